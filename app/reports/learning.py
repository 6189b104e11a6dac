"""Learning curves: what each epoch of each step and seed reached."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.reports.comparison import accuracy
from app.reports.figures import BOTTOM, TOP, entitle, epochs_axis, legend, panel, percent_axis, style
from app.reports.job_facts import JobFacts, Point
from app.reports.palette import INK, MUTED
from app.reports.plot import Plot
from app.reports.wording import percent, plural, shown

MOST_POINTS = 240
"""Of one line: more than there are pixels between them help nobody."""
_PANEL = 190


class Curve(NamedTuple):
    """`epochs` count over all steps of the job."""

    seed: int
    epochs: list[int]
    values: list[float]


def learning_curves(facts: JobFacts) -> Plot | None:
    """Val accuracy above, losses below; every seed a thin line, with their mean."""
    begins, end = _step_begins(facts.points)
    by_name = {
        name: _curves(facts.points, name, begins) for name in ("accuracy", "cross_entropy", "train_loss")
    }
    if not any(by_name.values()):
        return None
    has_accuracy = bool(by_name["accuracy"])
    losses = {"train": by_name["train_loss"], "val": by_name["cross_entropy"]}
    height = TOP + BOTTOM + (2 if has_accuracy else 1) * _PANEL + (40 if has_accuracy else 0)
    teacher = accuracy(facts.teacher, "val")
    names = {step: shown(_method(facts, step), 24) for step in begins}

    def draw(figure: Any) -> None:
        if has_accuracy:
            above = panel(figure, bottom=height - TOP - _PANEL)
            _draw_curves(above, by_name["accuracy"], 0, "val accuracy", begins)
            if teacher is not None:
                above.axhline(teacher, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="teacher")
            percent_axis(above.yaxis, "val accuracy")
            above.margins(x=0.02)
            epochs_axis(above.xaxis)
            above.set_xlabel("")
            _mark_steps(above, begins, names)
            legend(figure, above)
        below = panel(figure, top=height - BOTTOM - _PANEL)
        for position, (split, curves) in enumerate(losses.items(), 1):
            _draw_curves(below, curves, position, f"{split} loss", begins)
        below.set_ylabel("loss (nat)")
        below.margins(x=0.02)
        epochs_axis(below.xaxis)
        _mark_steps(below, begins, names if not has_accuracy else {})
        legend(figure, below, left=290 if has_accuracy else 2)
        entitle(figure, "Learning curves")

    return Plot(
        "learning_curves",
        "Learning curves",
        _alt(by_name, len(begins), end, teacher),
        ["seed", "step", "epoch", "name", "value"],
        [[_seed_of(facts, p.seed), p.step, p.epoch, p.name, p.value] for p in facts.points],
        draw,
        height=height,
    )


def _seed_of(facts: JobFacts, position: int) -> int:
    first: int = facts.job.spec.get("seed", 0)
    return first + max(0, position - 1)


def _method(facts: JobFacts, step: int) -> str:
    steps = facts.job.spec.get("steps", [])
    return f"{step} {steps[step - 1]['method']}" if 0 < step <= len(steps) else str(step)


def _step_begins(points: Sequence[Point]) -> tuple[dict[int, int], int]:
    """How many epochs of earlier steps lie before each step's first one; and how many there are in all."""
    longest: dict[int, int] = defaultdict(int)
    for point in points:
        longest[point.step] = max(longest[point.step], point.epoch)
    begins, end = {}, 0
    for step in sorted(longest):
        begins[step] = end
        end += longest[step]
    return begins, end


def _curves(points: Sequence[Point], name: str, begins: dict[int, int]) -> list[Curve]:
    by_seed: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for point in points:
        if point.name == name:
            by_seed[point.seed].append((begins[point.step] + point.epoch, point.value))
    return [
        Curve(seed, [epoch for epoch, _ in pairs], [value for _, value in pairs])
        for seed, pairs in sorted(by_seed.items())
    ]


def _mean(curves: Sequence[Curve]) -> Curve:
    """Over the seeds, of the epochs that all of them have."""
    values: dict[int, list[float]] = defaultdict(list)
    for curve in curves:
        for epoch, value in zip(curve.epochs, curve.values, strict=True):
            values[epoch].append(value)
    shared = sorted(epoch for epoch, found in values.items() if len(found) == len(curves))
    return Curve(0, shared, [sum(values[epoch]) / len(curves) for epoch in shared])


def _draw_curves(
    axes: Any, curves: Sequence[Curve], position: int, label: str, begins: dict[int, int]
) -> None:
    """Each in one piece a step: a new step begins with another network."""
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            axes.plot(*_pieces(curve, begins), **style(position, marker="", linewidth=0.7, alpha=0.45))
    mean = _mean(curves)
    few = len(mean.epochs) <= 30
    axes.plot(*_pieces(mean, begins), label=label, **style(position, markersize=4 if few else 0))


def _pieces(curve: Curve, begins: dict[int, int]) -> tuple[list[float], list[float]]:
    """Every k-th point and the last one, with a gap where a step ends."""
    every = max(1, -(-len(curve.epochs) // MOST_POINTS))
    last = len(curve.epochs) - 1
    points = [
        (float(epoch), value)
        for k, (epoch, value) in enumerate(zip(curve.epochs, curve.values, strict=True))
        if k % every == 0 or k == last
    ]
    points += [(begin + 0.5, math.nan) for begin in begins.values() if begin]
    points.sort(key=lambda point: point[0])
    return [epoch for epoch, _ in points], [value for _, value in points]


def _mark_steps(axes: Any, begins: dict[int, int], names: dict[int, str]) -> None:
    """A line where a step ends and the next begins; its name where there is room above."""
    if len(begins) < 2:
        return
    for step, begin in begins.items():
        if begin:
            axes.axvline(begin + 0.5, color=MUTED, linewidth=0.8)
        if step in names and len(begins) <= 6:
            axes.text(
                begin + 0.6,
                1.02,
                names[step],
                transform=axes.get_xaxis_transform(),
                fontsize=11,
                color=INK,
                va="bottom",
            )


def _alt(by_name: dict[str, list[Curve]], num_steps: int, end: int, teacher: float | None) -> str:
    where = f"{plural(end, 'epoch')} of {plural(num_steps, 'training step')}"
    curves = by_name["accuracy"]
    if not curves:
        losses = by_name["train_loss"]
        mean = _mean(losses) if losses else None
        went = (
            f": train loss from {mean.values[0]:.3g} to {mean.values[-1]:.3g}" if mean and mean.values else ""
        )
        return f"Losses over {where}{went}."
    mean = _mean(curves)
    seeds = f", mean of {len(curves)} seeds" if len(curves) > 1 else ""
    if not mean.values:
        return f"Val accuracy over {where}{seeds}."
    best = max(range(len(mean.values)), key=mean.values.__getitem__)
    against = f"; the teacher has {percent(teacher)} %" if teacher is not None else ""
    return (
        f"Val accuracy over {where}{seeds}: {percent(mean.values[0])} % after epoch {mean.epochs[0]}, "
        f"{percent(mean.values[-1])} % after epoch {mean.epochs[-1]}, the best {percent(mean.values[best])} % after epoch "
        f"{mean.epochs[best]}{against}."
    )
