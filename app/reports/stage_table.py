"""The stages of a job: what each step made of accuracy, bytes and time."""

from collections.abc import Sequence
from typing import Any

from app.reports.comparison import accuracy, compared_split, drop, ratio
from app.reports.document import Column, Table
from app.reports.figures import amount_axis, entitle, panel, percent_axis, style
from app.reports.plot import Plot
from app.reports.wording import duration, number, percent, points, scaled, shown, significant, times

_SPLITS = ("test", "val", "train")


def stage_name(record: dict[str, Any]) -> str:
    if record["step"] == 0:
        return "teacher" if len(record.get("teachers", [])) < 2 else "teachers together"
    return f"{record['step']} {shown(record['method'])}"


def stage_table(stages: Sequence[dict[str, Any]]) -> Table:
    """One row a stage, the teacher first."""
    splits = [split for split in _SPLITS if any(split in record["splits"] for record in stages)]
    columns = [
        Column("stage", is_number=False),
        *(Column(f"{split} accuracy", "%") for split in splits),
        Column("lost to the teacher", "points"),
        Column("95 % interval"),
        Column("agreement", "%"),
        Column("size", "bytes"),
        Column("compression ratio"),
        Column("parameters"),
        Column("MACs"),
        Column("speed-up", "in MACs"),
        Column("latency", "ms"),
        Column("p10 to p90", "ms"),
        Column("trained", "epochs"),
        Column("trained", "MACs"),
        Column("took"),
    ]
    rows = [_row(record, stages[0], splits) for record in stages]
    return Table(
        "The teacher and every step",
        columns,
        rows,
        note=_note(stages),
        emphasised=len(rows) - 1 if len(rows) > 1 else None,
    )


def _row(record: dict[str, Any], teacher: dict[str, Any], splits: Sequence[str]) -> list[str]:
    is_teacher = record["step"] == 0
    lost = None if is_teacher else drop(record)
    latency, cost = record.get("latency_ms") or {}, record.get("cost") or {}
    agreement = record.get("agreement") or {}
    split = compared_split(record) or ""
    return [
        stage_name(record),
        *(percent(accuracy(record, split)) for split in splits),
        points(-lost.value) if lost else number(None),
        f"{points(-lost.high)} to {points(-lost.low)}" if lost else number(None),
        percent(agreement.get(split)),
        number(record["size_bytes"]),
        times(None if is_teacher else ratio(teacher["size_bytes"], record["size_bytes"])),
        number(record["parameters"]),
        number(record["macs"]),
        times(None if is_teacher else ratio(teacher["macs"], record["macs"])),
        significant(latency.get("median")),
        f"{significant(latency['p10'])} to {significant(latency['p90'])}"
        if "p10" in latency
        else number(None),
        number(cost.get("epochs"), 1) if cost.get("epochs") else number(None),
        scaled(cost.get("macs")) if cost.get("macs") else number(None),
        duration(record.get("seconds")),
    ]


def _note(stages: Sequence[dict[str, Any]]) -> str:
    lost = drop(stages[-1]) if len(stages) > 1 else None
    sentences = []
    if lost is not None:
        sentences.append(
            f"What is lost to the teacher is counted on {lost.split}, {lost.num_images:,} images that both answered: points "
            "of accuracy, negative where the network is worse. The interval says how far other images of the same kind "
            "could move it; another training may move it further."
        )
    sentences.append(
        "Agreement: same answer as the (first) teacher. Compression ratio and speed-up: the teacher's bytes and "
        "multiply-adds divided by the network's. Latency: one image, median."
    )
    for record in stages:
        if "shared_from" in record:
            sentences.append(
                f"Step {record['step']} was done by {record['shared_from']} for several jobs: what it took, it took there."
            )
    if any(score.get("leaked") for record in stages for score in record["splits"].values()):
        sentences.append("A split that was trained on says nothing about other photos: see the warnings.")
    return " ".join(sentences)


def accuracy_size(stages: Sequence[dict[str, Any]]) -> Plot | None:
    """Accuracy over bytes, from the teacher to the answer."""
    split = compared_split(stages[-1]) if len(stages) > 1 else None
    known = [record for record in stages if accuracy(record, split) is not None and record["size_bytes"]]
    if split is None or len(known) < 2:
        return None
    first, last = known[0], known[-1]

    def draw(figure: Any) -> None:
        axes = panel(figure, top=44)
        sizes = [record["size_bytes"] for record in known]
        shares = [accuracy(record, split) or 0.0 for record in known]
        axes.plot(sizes, shares, **style(0, linewidth=1.2))
        for record, size, share in zip(known, sizes, shares, strict=True):
            axes.annotate(
                stage_name(record),
                (size, share),
                xytext=(-5, 6),
                textcoords="offset points",
                ha="right",
                fontsize=11.5,
            )
        axes.margins(x=0.2, y=0.2)
        amount_axis(axes, "x", "size of the file", sizes, "B")
        percent_axis(axes.yaxis, f"{split} accuracy")
        entitle(figure, "Accuracy and size, stage by stage")

    return Plot(
        "accuracy_size",
        "Accuracy and size, stage by stage",
        f"From the {stage_name(first)} with {percent(accuracy(first, split))} % on {split} in {number(first['size_bytes'])} "
        f"bytes to stage {stage_name(last)} with {percent(accuracy(last, split))} % in {number(last['size_bytes'])} bytes.",
        ["stage", "size_bytes", f"{split}_accuracy"],
        [[stage_name(record), record["size_bytes"], accuracy(record, split)] for record in known],
        draw,
    )


def seed_table(summary: Sequence[dict[str, Any]]) -> Table:
    """The spread over the seeds, for every step."""
    splits = [split for split in ("test", "val") if any(split in step["splits"] for step in summary)]
    columns = [Column("stage", is_number=False), Column("seeds")]
    for split in splits:
        columns += [
            Column(f"{split} accuracy, mean", "%"),
            Column("std", "points"),
            Column("min", "%"),
            Column("max", "%"),
        ]
    columns += [Column("size, mean", "bytes"), Column("size, min"), Column("size, max")]
    return Table("Spread over the seeds", columns, [_seed_row(step, splits) for step in summary])


def _seed_row(step: dict[str, Any], splits: Sequence[str]) -> list[str]:
    cells = [stage_name(step), number(len(step["size_bytes"]["values"]))]
    for split in splits:
        spread = (step["splits"].get(split) or {}).get("accuracy") or {}
        cells += [percent(spread.get(name), 2) for name in ("mean", "std", "min", "max")]
    size = step["size_bytes"]
    return [*cells, *(number(size[name]) for name in ("mean", "min", "max"))]
