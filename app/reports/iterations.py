"""A prune step, iteration by iteration: accuracy before and after its fine-tuning."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from app.reports.document import Column, Table
from app.reports.figures import amount_axis, entitle, legend, panel, percent_axis, style
from app.reports.plot import Plot
from app.reports.wording import number, percent, scaled, shown


class Pruning(NamedTuple):
    """`rows`: the network before any cut as iteration 0, where it was measured, then one an iteration."""

    step: int
    rows: list[dict[str, Any]]
    stopped: str | None


def prunings(stages: Sequence[dict[str, Any]]) -> Iterator[Pruning]:
    for record in stages:
        details = record.get("details") or {}
        iterations = details.get("iterations")
        if not iterations:
            continue
        start = details.get("start") or {}
        first = {"iteration": 0, "accuracy_before": None, "accuracy_after": start.get("accuracy")} | {
            name: start.get(name) for name in ("parameters", "macs", "bytes")
        }
        stopped = (details.get("stopped") or {}).get("reason")
        yield Pruning(record["step"], [first, *iterations] if start else list(iterations), stopped)


def iteration_table(pruning: Pruning) -> Table:
    columns = [
        Column("iteration"),
        Column("parameters"),
        Column("MACs"),
        Column("val accuracy before", "%"),
        Column("val accuracy after", "%"),
        Column("units removed"),
        Column("trained", "epochs"),
        Column("trained", "MACs"),
    ]
    rows = [
        [
            number(row["iteration"]),
            number(row.get("parameters")),
            number(row.get("macs")),
            percent(row.get("accuracy_before")),
            percent(row.get("accuracy_after")),
            number(row.get("removed")),
            number(row.get("epochs"), 1),
            scaled(row.get("trained_macs")),
        ]
        for row in pruning.rows
    ]
    note = f"It stopped there: {shown(pruning.stopped, 300)}" if pruning.stopped else ""
    return Table(
        f"Step {pruning.step}: iterations of pruning, before and after training", columns, rows, note=note
    )


def iteration_plot(found: Sequence[Pruning]) -> Plot | None:
    """Accuracy over parameters; a step's two curves, before and after training."""
    rows = [(pruning.step, row) for pruning in found for row in pruning.rows if row.get("parameters")]
    measured = [(step, row) for step, row in rows if row.get("accuracy_after") is not None]
    if len(measured) < 2:
        return None
    several = len(found) > 1

    def draw(figure: Any) -> None:
        axes = panel(figure)
        for position, pruning in enumerate(found):
            of = f"step {pruning.step}, " if several else ""
            for shift, (name, when) in enumerate(
                (("accuracy_after", "after"), ("accuracy_before", "before"))
            ):
                known = [row for row in pruning.rows if row.get(name) is not None and row.get("parameters")]
                axes.plot(
                    [row["parameters"] for row in known],
                    [row[name] for row in known],
                    label=f"{of}{when} training",
                    **style(2 * position + shift),
                )
        amount_axis(axes, "x", "parameters", [row["parameters"] for _, row in measured])
        percent_axis(axes.yaxis, "val accuracy")
        legend(figure, axes)
        entitle(figure, "Pruning, iteration by iteration")

    first, last = measured[0][1], measured[-1][1]
    return Plot(
        "prune_iterations",
        "Pruning, iteration by iteration",
        f"From {number(first['parameters'])} parameters with {percent(first['accuracy_after'])} % on val to "
        f"{number(last['parameters'])} with {percent(last['accuracy_after'])} % after training"
        + (
            f" and {percent(last['accuracy_before'])} % before it."
            if last.get("accuracy_before") is not None
            else "."
        ),
        ["step", "iteration", "parameters", "macs", "val_accuracy_before", "val_accuracy_after"],
        [
            [
                step,
                row["iteration"],
                row["parameters"],
                row.get("macs"),
                row.get("accuracy_before"),
                row.get("accuracy_after"),
            ]
            for step, row in rows
        ],
        draw,
    )
