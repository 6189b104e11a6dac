"""Class by class: what is taken for what, and which classes the answer lost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.reports.comparison import compared_split
from app.reports.document import Column, Table
from app.reports.figures import dot_rows, entitle, label_for, rows_height
from app.reports.palette import BLUE, INK, MUTED, ON_DEEP_HEAT, ON_HEAT, VERMILLION
from app.reports.plot import Plot
from app.reports.wording import number, percent, plural, points, shown

_MOST_LOST = 12
_MOST_NUMBERED = 12
"""Up to so many classes a heat map has its numbers written in."""
_MOST_NAMED = 30
"""Up to so many it has names at its sides; beyond, positions."""


class Recall(NamedTuple):
    """Of the images of one class, how many each of the two gets right."""

    name: str
    num_images: int
    teacher: int | None
    answer: int

    @property
    def change(self) -> float | None:
        """Of the share of its images; None where the teacher is not known to have seen the same ones."""
        if self.teacher is None or not self.num_images:
            return None
        return (self.answer - self.teacher) / self.num_images


def recalls(
    teacher: dict[str, Any] | None, answer: dict[str, Any], split: str, class_names: Sequence[str]
) -> list[Recall]:
    """In the order of the classes. Empty for a stage of before classes were counted."""
    mine = (answer.get("confusion") or {}).get(split)
    if mine is None:
        return []
    theirs = ((teacher or {}).get("confusion") or {}).get(split)
    # A teacher that is a table of soft labels may have been asked about fewer images.
    same = theirs is not None and theirs["num_images"] == mine["num_images"]
    names = _names(class_names, len(mine["num_images"]))
    return [
        Recall(name, total, theirs["num_correct"][k] if same and theirs else None, mine["num_correct"][k])
        for k, (name, total) in enumerate(zip(names, mine["num_images"], strict=True))
    ]


def _names(class_names: Sequence[str], count: int) -> list[str]:
    return list(class_names) if len(class_names) == count else [f"class {k}" for k in range(count)]


def most_lost(found: Sequence[Recall]) -> list[Recall]:
    """Those that lost the most, the worst first; at most a dozen."""
    lost = [each for each in found if each.change is not None and each.change < 0]
    return sorted(lost, key=lambda each: (each.change, each.name))[:_MOST_LOST]


def recall_table(found: Sequence[Recall], caption: str) -> Table:
    columns = [
        Column("class", is_number=False),
        Column("images"),
        Column("teacher right"),
        Column("answer right"),
        Column("teacher recall", "%"),
        Column("answer recall", "%"),
        Column("change", "points"),
    ]
    rows = [
        [
            shown(each.name, 60),
            number(each.num_images),
            number(each.teacher),
            number(each.answer),
            percent(_share(each.teacher, each.num_images)),
            percent(_share(each.answer, each.num_images)),
            points(each.change),
        ]
        for each in found
    ]
    return Table(caption, columns, rows)


def _share(count: int | None, total: int) -> float | None:
    return None if count is None or not total else count / total


def recall_plot(found: Sequence[Recall], split: str) -> Plot | None:
    """The classes that lost the most; of a few classes, all."""
    known = [each for each in found if each.num_images]
    if len(known) > _MOST_LOST:
        known = most_lost(known)
    if not known:
        return None
    known = sorted(known, key=lambda each: (each.change or 0.0, each.name))
    labels = [f"{label_for(each.name, 24)} ({each.num_images:,})" for each in known]
    teacher = [_share(each.teacher, each.num_images) for each in known]
    answer = [_share(each.answer, each.num_images) for each in known]

    def draw(figure: Any) -> None:
        groups = [("answer", answer)] if None in teacher else [("teacher", teacher), ("answer", answer)]
        dot_rows(figure, labels, groups, f"recall on {split}", linked=True)
        entitle(figure, "Recall by class")

    worst = known[0]
    told = (
        f"{shown(worst.name)} changes by {points(worst.change)} points, from {worst.teacher} to {worst.answer} "
        f"of {plural(worst.num_images, 'image')}."
        if worst.change is not None
        else ""
    )
    return Plot(
        "recall",
        "Recall by class",
        f"Of {plural(len(found), 'class', 'classes')} on {split}, {len(known)} are shown, those that lost the most first. "
        f"{told}".rstrip(),
        ["class", "num_images", "teacher_num_correct", "answer_num_correct"],
        [[each.name, each.num_images, each.teacher, each.answer] for each in known],
        draw,
        height=rows_height(len(known)),
    )


class Mistake(NamedTuple):
    true: str
    answered: str
    answer: int
    teacher: int | None
    num_images: int


def most_frequent_mistakes(
    teacher: dict[str, Any] | None, answer: dict[str, Any], split: str, class_names: Sequence[str]
) -> list[Mistake]:
    """Which class the answer takes most often for which other one; at most a dozen pairs."""
    mine = _counts(answer, split)
    if mine is None:
        return []
    theirs = _counts(teacher or {}, split)
    names = _names(class_names, len(mine))
    found = [
        Mistake(
            names[true], names[answered], count, theirs[true][answered] if theirs else None, sum(mine[true])
        )
        for true, row in enumerate(mine)
        for answered, count in enumerate(row)
        if true != answered and count
    ]
    return sorted(found, key=lambda each: (-each.answer, each.true, each.answered))[:_MOST_LOST]


def mistake_table(found: Sequence[Mistake]) -> Table:
    columns = [
        Column("class", is_number=False),
        Column("taken for", is_number=False),
        Column("by the answer", "images"),
        Column("by the teacher", "images"),
        Column("images of the class"),
    ]
    rows = [
        [
            shown(each.true, 60),
            shown(each.answered, 60),
            number(each.answer),
            number(each.teacher),
            number(each.num_images),
        ]
        for each in found
    ]
    return Table("The most frequent mistakes", columns, rows)


def _counts(record: dict[str, Any], split: str) -> list[list[int]] | None:
    found: list[list[int]] | None = ((record.get("confusion") or {}).get(split) or {}).get("counts")
    return found


def confusion_plot(record: dict[str, Any], class_names: Sequence[str]) -> Plot | None:
    """What the answer says about images of each class, as shares of the class."""
    split = compared_split(record)
    counts = _counts(record, split) if split else None
    if split is None or counts is None:
        return None
    names = _names(class_names, len(counts))
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    right, total = sum(row[k] for k, row in enumerate(counts)), sum(map(sum, counts))
    title = f"Confusion on {split}"

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("heat", ["#f4f7fa", "#7fb4d8", "#0b4a7a"])
        _heat_map(figure, shares, counts, names, colours, (0.0, 1.0))
        entitle(figure, title)

    return Plot(
        "confusion",
        title,
        f"Rows are true classes, columns the answer's, shaded by the share of the row: {right:,} of {total:,} images lie "
        f"on the diagonal. {_worst_pair(counts, names)}",
        ["true", "answered", "num_images"],
        [
            [names[true], names[answered], count]
            for true, row in enumerate(counts)
            for answered, count in enumerate(row)
            if count
        ],
        draw,
        **_heat_size(names),
    )


def confusion_difference(
    teacher: dict[str, Any] | None, record: dict[str, Any], class_names: Sequence[str]
) -> Plot | None:
    """The answer's counts less the teacher's: what moved where."""
    split = compared_split(record)
    mine = _counts(record, split) if split else None
    theirs = _counts(teacher or {}, split) if split else None
    if split is None or mine is None or theirs is None or [*map(sum, mine)] != [*map(sum, theirs)]:
        return None
    names = _names(class_names, len(mine))
    moved = [
        [a - b for a, b in zip(row, other, strict=True)] for row, other in zip(mine, theirs, strict=True)
    ]
    shares = [[count / max(1, sum(row)) for count in line] for line, row in zip(moved, mine, strict=True)]
    largest = max((abs(share) for row in shares for share in row), default=0.0) or 1.0
    lost = -sum(row[k] for k, row in enumerate(moved))
    title = f"Confusion on {split}: the answer less the teacher"

    def draw(figure: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("moved", [VERMILLION, "#f7f7f7", BLUE])
        _heat_map(figure, shares, moved, names, colours, (-largest, largest))
        entitle(figure, title)

    return Plot(
        "confusion_difference",
        title,
        f"How many images of each true class (row) the answer gives each class (column) more or fewer than the teacher: "
        f"{abs(lost):,} {'fewer' if lost > 0 else 'more'} on the diagonal.",
        ["true", "answered", "num_images_more"],
        [
            [names[true], names[answered], count]
            for true, row in enumerate(moved)
            for answered, count in enumerate(row)
            if count
        ],
        draw,
        **_heat_size(names),
    )


def _worst_pair(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    wrong = [
        (count, true, answered)
        for true, row in enumerate(counts)
        for answered, count in enumerate(row)
        if true != answered and count
    ]
    if not wrong:
        return "There is no mistake."
    count, true, answered = max(wrong, key=lambda each: (each[0], -each[1], -each[2]))
    return f"The most frequent mistake: {shown(names[true])} taken for {shown(names[answered])}, {plural(count, 'time')}."


# ---- heat maps

_SIDE = 400
_LEVEL = 5
"""Up to so many names have room beside each other."""


def _label_room(names: Sequence[str]) -> float:
    longest = max(len(label_for(name, 16)) for name in names)
    return 20 + 6.4 * longest if len(names) <= _MOST_NAMED else 52.0


def _heat_size(names: Sequence[str]) -> dict[str, int]:
    room = _label_room(names)
    below = 56.0 if len(names) <= _LEVEL else room + 16
    side = _side(len(names))
    # Wide enough for the title, however few classes there are.
    return {"width": int(max(400, side + room + 40)), "height": int(40 + side + below)}


def _side(num_classes: int) -> float:
    """Of the square: no more than a few classes need."""
    return float(min(_SIDE, 64 * num_classes))


def _heat_map(
    figure: Any,
    shares: Sequence[Sequence[float]],
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    colours: Any,
    limits: tuple[float, float],
) -> None:
    width, height = 72 * figure.get_size_inches()
    room = _label_room(names) + 14
    side = _side(len(names))
    axes = figure.add_axes((room / width, (height - 40 - side) / height, side / width, side / height))
    axes.imshow(shares, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    if len(names) <= _MOST_NAMED:
        labels = [label_for(name, 16) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90 if len(names) > _LEVEL else 0, fontsize=11)
        axes.set_yticks(range(len(names)), labels, fontsize=11)
    axes.set_ylabel("true class", color=INK)
    axes.set_xlabel(
        "answered" if len(names) <= _MOST_NAMED else "answered (position of the class)", color=INK
    )
    if len(names) > _MOST_NUMBERED:
        axes.tick_params(labelcolor=MUTED)
        return
    span = limits[1] - limits[0]
    for true, row in enumerate(counts):
        for answered, count in enumerate(row):
            if not count:
                continue
            level = (shares[true][answered] - limits[0]) / span
            is_deep = level > 0.62 if limits[0] == 0 else not 0.12 < level < 0.88
            axes.text(
                answered,
                true,
                number(count, sign=limits[0] < 0),
                ha="center",
                va="center",
                fontsize=11,
                color=ON_DEEP_HEAT if is_deep else ON_HEAT,
            )
