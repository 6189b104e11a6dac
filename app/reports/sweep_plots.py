"""The plots of a sweep: the metric along its axes, differences to the baseline, accuracy over size, pruning curves."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.analysis import pareto
from app.analysis.columns import axis_columns
from app.analysis.statistics import Spread, is_number
from app.analysis.summary import PointSummary, name_of
from app.reports.figures import (
    BOTTOM,
    RIGHT,
    TOP,
    amount_axis,
    entitle,
    label_for,
    legend,
    legend_height,
    panel,
    percent_axis,
    room_for,
    rows_height,
    style,
)
from app.reports.measures import Measure
from app.reports.palette import INK, MUTED, series
from app.reports.plot import Plot
from app.reports.sweep_facts import SweepFacts
from app.reports.wording import plural, shown

MOST_LINES = 12
"""Of one plot: more cannot be told apart."""
MOST_ROWS = 40
_LOG_FROM = 20.0
"""An axis whose positive values span this factor is drawn on a log scale: budgets, learning rates."""
_INTERVAL = "Bars are 95 % intervals of the mean over seeds (Student's t)."


def sweep_plots(facts: SweepFacts) -> dict[str, Plot]:
    """By name, those that this sweep has something for."""
    found = (metric_plot(facts), pareto_plot(facts), difference_plot(facts), pruning_plot(facts))
    return {plot.name: plot for plot in found if plot is not None}


# ---- the metric along an axis


class Line(NamedTuple):
    """`within`: what all its points share on the other axes."""

    within: dict[str, Any]
    values: list[float]
    spreads: list[Spread]


def numeric_axis(points: Sequence[PointSummary], axes: Sequence[str]) -> str | None:
    """The axis to draw along: of those whose values are all numbers the one with the most; None where none has two."""
    best, most = None, 1
    for axis in axes:
        values = [point.params[axis] for point in points]
        distinct = {value for value in values if is_number(value)}
        if all(map(is_number, values)) and len(distinct) > most:
            best, most = axis, len(distinct)
    return best


def lines(points: Sequence[PointSummary], axes: Sequence[str], along: str, metric: str) -> list[Line]:
    """One for each setting of the axes that vary where `along` does not: fields that go in step with it make no lines."""
    others = [axis for axis in axes if axis != along and _varies(points, axis, along)]
    groups: dict[str, list[PointSummary]] = {}
    for point in points:
        groups.setdefault(json.dumps([point.params[axis] for axis in others], sort_keys=True), []).append(
            point
        )
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda point: point.params[along])
        found.append(
            Line(
                {axis: group[0].params[axis] for axis in others},
                [point.params[along] for point in ordered],
                [point.metrics[metric] for point in ordered],
            )
        )
    return found


def _varies(points: Sequence[PointSummary], axis: str, along: str) -> bool:
    seen: dict[Any, str] = {}
    return any(
        seen.setdefault(point.params[along], json.dumps(point.params[axis], sort_keys=True))
        != json.dumps(point.params[axis], sort_keys=True)
        for point in points
    )


def metric_plot(facts: SweepFacts) -> Plot | None:
    points = facts.points
    if not points:
        return None
    along = numeric_axis(points, facts.summary.axes)
    return _rows_of_points(facts, points) if along is None else _along_axis(facts, points, along)


def _columns_and_rows(facts: SweepFacts, points: Sequence[PointSummary]) -> tuple[list[str], list[list[Any]]]:
    columns = axis_columns(facts.summary.axes)
    header = [
        "point",
        *columns.values(),
        "n",
        *(f"{facts.metric}_{name}" for name in ("mean", "low", "high")),
    ]
    rows = []
    for point in points:
        spread = point.metrics[facts.metric]
        params = [_plain(point.params[axis]) for axis in columns]
        rows.append([point.point, *params, spread.n, spread.mean, spread.low, spread.high])
    return header, rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) or value is None else json.dumps(value)


def _along_axis(facts: SweepFacts, points: Sequence[PointSummary], along: str) -> Plot:
    measure = Measure(facts.metric)
    found = lines(points, facts.summary.axes, along, facts.metric)
    drawn = found[:MOST_LINES]
    names = [label_for(name_of(line.within), 34) if line.within else measure.title for line in drawn]
    columns = 2 if max(map(len, names)) > 18 else 4
    more = legend_height(len(drawn), columns) if len(drawn) > 1 else -16.0
    title = f"{measure.title.capitalize()} along {shown(along, 30)}"
    teacher = _teacher_accuracy(facts, facts.metric)

    def draw(figure: Any) -> None:
        axes = panel(figure, top=TOP + more)
        for position, (line, name) in enumerate(zip(drawn, names, strict=True)):
            _draw_line(axes, line, position, name, limits=(0.0, 1.0) if measure.is_share else None)
        if teacher is not None:
            _reference(axes, teacher, "teacher")
        _value_axis(axes, measure)
        _parameter_axis(axes, along, [value for line in found for value in line.values])
        if len(drawn) > 1:
            legend(figure, axes, columns=columns)
        entitle(figure, title)

    header, rows = _columns_and_rows(facts, points)
    return Plot(
        "metric",
        title,
        _told_along(facts, found, along, len(drawn)),
        header,
        rows,
        draw,
        height=int(340 + more),
    )


def _draw_line(axes: Any, line: Line, position: int, name: str, limits: tuple[float, float] | None) -> None:
    means = [spread.mean for spread in line.spreads]
    axes.plot(line.values, means, label=name, **style(position))
    known = [
        (x, *interval)
        for x, spread in zip(line.values, line.spreads, strict=True)
        if (interval := _interval(spread, limits)) is not None
    ]
    if len(known) > 1:
        xs, lows, highs = zip(*known, strict=True)
        axes.fill_between(xs, lows, highs, color=series(position).colour, alpha=0.16, linewidth=0)


def _interval(spread: Spread, limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """As it is drawn: few seeds have intervals that leave what a share can be. None: one seed has none."""
    if spread.low is None or spread.high is None:
        return None
    least, most = limits or (-math.inf, math.inf)
    return max(least, spread.low), min(most, spread.high)


def _parameter_axis(axes: Any, name: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    if min(values) > 0 and max(values) >= _LOG_FROM * min(values):
        amount_axis(axes, "x", shown(name, 40), values)
        return
    distinct = sorted(set(values))
    closest = min((b - a for a, b in itertools.pairwise(distinct)), default=0.0)
    if closest >= 0.07 * (distinct[-1] - distinct[0]):
        axes.xaxis.set_major_locator(FixedLocator(distinct))  # they have room: the very values are marked
    else:
        whole = all(float(value).is_integer() for value in values)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=whole))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    axes.set_xlabel(shown(name, 40))


def _value_axis(axes: Any, measure: Measure) -> None:
    if measure.is_share:
        percent_axis(axes.yaxis, measure.title)
    else:
        values = [float(y) for line in axes.get_lines() for y in line.get_ydata()]
        amount_axis(axes, "y", f"{measure.title} ({measure.unit})" if measure.unit else measure.title, values)


def _reference(axes: Any, value: float, name: str) -> None:
    axes.axhline(value, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
    axes.text(
        1.0,
        value,
        f"{name} ",
        transform=axes.get_yaxis_transform(),
        color=INK,
        fontsize=11,
        ha="right",
        va="bottom",
    )


def _teacher_accuracy(facts: SweepFacts, metric: str) -> float | None:
    """Where all jobs have the same."""
    column = f"teacher_{metric}"
    if metric not in ("val_accuracy", "test_accuracy"):
        return None
    found = {row[column] for row in facts.answers if row[column] is not None}
    return found.pop() if len(found) == 1 else None


def _told_along(facts: SweepFacts, found: Sequence[Line], along: str, num_drawn: int) -> str:
    measure = Measure(facts.metric)
    told = []
    for line in found[:3]:
        best = max(range(len(line.values)), key=lambda k: _signed(facts, line.spreads[k].mean))
        of = f"{shown(name_of(line.within), 40)}: " if line.within else ""
        told.append(
            f"{of}{measure.told(line.spreads[0].mean)} at {line.values[0]:g}, {measure.told(line.spreads[-1].mean)} at "
            f"{line.values[-1]:g}, the best {measure.told(line.spreads[best].mean)} at {line.values[best]:g}"
        )
    sentence = f"{measure.title.capitalize()} along {shown(along, 40)}. {'; '.join(told)}."
    if len(found) > 3:
        sentence += f" {plural(len(found), 'line')} in all" + (
            f", {num_drawn} drawn." if num_drawn < len(found) else "."
        )
    if any(spread.low is not None for line in found for spread in line.spreads):
        sentence += " Bands are 95 % intervals of the mean over seeds (Student's t)."
    return sentence


def _signed(facts: SweepFacts, value: float) -> float:
    return value if facts.summary.better == "higher" else -value


# ---- points in rows: categories, and differences


def _rows_of_points(facts: SweepFacts, points: Sequence[PointSummary]) -> Plot:
    measure = Measure(facts.metric)
    drawn = points[:MOST_ROWS]
    axes = facts.summary.axes
    title = measure.title.capitalize() + (f" by {shown(axes[0], 30)}" if len(axes) == 1 else "")
    spreads = [point.metrics[facts.metric] for point in drawn]
    teacher = _teacher_accuracy(facts, facts.metric)

    def draw(figure: Any) -> None:
        limits = (0.0, 1.0) if measure.is_share else None
        bars = [(spread.mean, *(_interval(spread, limits) or (None, None))) for spread in spreads]
        _bar_rows(figure, _labels(drawn, axes), bars, measure, measure.title, measure.unit, teacher)
        entitle(figure, title)

    best = max(points, key=lambda point: _signed(facts, point.metrics[facts.metric].mean))
    worst = min(points, key=lambda point: _signed(facts, point.metrics[facts.metric].mean))
    header, rows = _columns_and_rows(facts, points)
    alt = (
        f"{measure.title.capitalize()} of {plural(len(points), 'point')}: the best is {shown(best.name)} with "
        f"{measure.told(best.metrics[facts.metric].mean)}, the last {shown(worst.name)} with "
        f"{measure.told(worst.metrics[facts.metric].mean)}."
    )
    if any(spread.low is not None for spread in spreads):
        alt += f" {_INTERVAL}"
    if len(drawn) < len(points):
        alt += f" The first {len(drawn)} are drawn."
    return Plot("metric", title, alt, header, rows, draw, height=rows_height(len(drawn)))


def _labels(points: Sequence[PointSummary], axes: Sequence[str]) -> list[str]:
    """Of rows: of a single axis its values alone, the axis stands in the title."""
    prefix = f"{axes[0]}=" if len(axes) == 1 else ""
    return [point.name.removeprefix(prefix) for point in points]


def _bar_rows(
    figure: Any,
    labels: Sequence[str],
    bars: Sequence[tuple[float, float | None, float | None]],
    measure: Measure,
    axis_label: str,
    unit: str,
    reference: float | None = None,
) -> None:
    names = [label_for(label) for label in labels]
    axes = panel(figure, left=room_for(names), top=40, grid="x")
    for row, (mean, low, high) in enumerate(bars):
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=series(0).colour, linewidth=1.4, solid_capstyle="butt")
            for end in (low, high):
                axes.plot([end, end], [row - 0.14, row + 0.14], color=series(0).colour, linewidth=1.4)
        axes.plot([mean], [row], **style(0, linestyle="none", markersize=7))
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        axes.text(reference, -0.75, "teacher", color=INK, fontsize=11, ha="center", va="bottom")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if measure.is_share:
        percent_axis(axes.xaxis, axis_label, unit)
    else:
        values = [mean for mean, _, _ in bars]
        amount_axis(axes, "x", f"{axis_label} ({unit})" if unit else axis_label, values)


def difference_plot(facts: SweepFacts) -> Plot | None:
    """Each point less the baseline, over the seeds that both have."""
    metric, measure = facts.metric, Measure(facts.metric)
    compared = [
        (point, difference)
        for point in facts.points
        if (difference := point.differences.get(metric)) is not None and difference.mean is not None
    ]
    baseline = next((point for point in facts.summary.points if point.point == facts.summary.baseline), None)
    if not compared or baseline is None:
        return None
    drawn = compared[:MOST_ROWS]
    title = f"{measure.title.capitalize()}: difference to {shown(baseline.name, 30)}"

    def draw(figure: Any) -> None:
        bars = [(d.mean or 0.0, d.low, d.high) for _, d in drawn]
        _bar_rows(
            figure,
            _labels([point for point, _ in drawn], facts.summary.axes),
            bars,
            measure,
            f"difference of {measure.title}",
            measure.difference_unit,
        )
        figure.axes[0].axvline(0, color=INK, linewidth=1, zorder=1)
        entitle(figure, title)

    certain = [point for point, d in compared if d.p_holm is not None and d.p_holm < facts.summary.alpha]
    largest = max(compared, key=lambda each: abs(each[1].mean or 0.0))
    return Plot(
        "differences",
        title,
        f"Paired over common seeds: {len(certain)} of {plural(len(compared), 'point')} differ beyond chance (Holm-corrected "
        f"paired t test, 5 %). The largest difference is {measure.difference(largest[1].mean)} {measure.difference_unit} of "
        f"{shown(largest[0].name)}. {_INTERVAL}",
        ["point", "name", "n", "difference", "low", "high", "p", "p_holm"],
        [[point.point, point.name, d.n, d.mean, d.low, d.high, d.p, d.p_holm] for point, d in compared],
        draw,
        height=rows_height(len(drawn)) - 18,
    )


# ---- accuracy over size


def pareto_plot(facts: SweepFacts) -> Plot | None:
    """Every point by size and accuracy, and the front that none of them beats in both."""
    x, y = "size_bytes", facts.accuracy
    found = pareto.with_both(pareto.point_rows(facts.answers, facts.summary.axes), x, y)
    if len({row[x] for row in found}) < 2:
        return None
    front = pareto.front(found, x, y)
    on_front = {id(row) for row in front}
    spreads = {point.point: point.metrics.get(y) for point in facts.summary.points}
    measure = Measure(y)
    title = f"{measure.title.capitalize()} and size"
    teacher = _teacher_accuracy(facts, y)

    def draw(figure: Any) -> None:
        axes = panel(figure)
        others = [row for row in found if id(row) not in on_front]
        for row in found:
            spread = spreads.get(row["point"])
            if spread is not None and spread.low is not None and spread.high is not None:
                colour = series(0).colour if id(row) in on_front else MUTED
                axes.plot(
                    [row[x]] * 2,
                    [max(0.0, spread.low), min(1.0, spread.high)],
                    color=colour,
                    linewidth=0.9,
                    alpha=0.6,
                )
        axes.plot(
            [row[x] for row in others],
            [row[y] for row in others],
            label="beaten by another",
            **style(0, linestyle="none", color="none", markeredgecolor=MUTED, markeredgewidth=1.3),
        )
        axes.plot(
            [row[x] for row in front],
            [row[y] for row in front],
            label="Pareto front",
            **style(0, linewidth=1.2),
        )
        if teacher is not None:
            _reference(axes, teacher, "teacher")
        if len(front) <= 6:
            _name_points(axes, front, x, y)
        axes.margins(x=0.1, y=0.14)
        amount_axis(axes, "x", "size of the file", [row[x] for row in found], "B")
        percent_axis(axes.yaxis, measure.title)
        legend(figure, axes)
        entitle(figure, title)

    smallest, largest = front[0], front[-1]
    return Plot(
        "pareto",
        title,
        f"{plural(len(found), 'point')}, {len(front)} of them on the front: from {shown(smallest['name'])} with "
        f"{smallest[x]:,.0f} bytes and {measure.told(smallest[y])} to {shown(largest['name'])} with {largest[x]:,.0f} bytes "
        f"and {measure.told(largest[y])}. Means over seeds.",
        ["point", "name", "n", x, y, "on_front"],
        [[row["point"], row["name"], row["n"], row[x], row[y], id(row) in on_front] for row in found],
        draw,
        height=380,
    )


def _name_points(axes: Any, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> None:
    for row in rows:
        axes.annotate(
            label_for(row["name"], 26),
            (row[x], row[y]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=10.5,
        )


# ---- pruning


class PruneCurve(NamedTuple):
    """A point's iterations, each a mean over the seeds that came so far."""

    name: str
    rows: list[dict[str, float]]


def prune_curves(facts: SweepFacts) -> list[PruneCurve]:
    names = {point.point: point.name for point in facts.summary.points}
    grouped: dict[int, dict[tuple[int, int], list[dict[str, Any]]]] = {}
    for row in facts.iterations:
        grouped.setdefault(row["point"], {}).setdefault((row["step"], row["iteration"]), []).append(row)
    return [
        PruneCurve(
            names[point], [mean for key in sorted(by_iteration) for mean in _mean_of(by_iteration[key])]
        )
        for point, by_iteration in sorted(grouped.items())
    ]


def _mean_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    wanted = ("parameters", "accuracy_before", "accuracy_after")
    found: dict[str, float] = {"iteration": rows[0]["iteration"], "n": len(rows)}
    for name in wanted:
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[name] = sum(values) / len(values)
    if "parameters" in found and "accuracy_after" in found:
        yield found


def pruning_plot(facts: SweepFacts) -> Plot | None:
    """Val accuracy over parameters at every iteration: hollow before fine-tuning, filled after."""
    curves = [curve for curve in prune_curves(facts) if len(curve.rows) > 1]
    if not curves:
        return None
    drawn = curves[:MOST_LINES]
    names = [label_for(curve.name, 34) for curve in drawn]
    columns = 2 if max(map(len, names)) > 18 else 4
    more = legend_height(len(drawn) + 1, columns)
    title = "Pruning: val accuracy at every size"

    def draw(figure: Any) -> None:
        axes = panel(figure, top=TOP + more, right=RIGHT, bottom=BOTTOM)
        for position, (curve, name) in enumerate(zip(drawn, names, strict=True)):
            colour = series(position).colour
            axes.plot(
                [row["parameters"] for row in curve.rows],
                [row["accuracy_after"] for row in curve.rows],
                label=name,
                **style(position),
            )
            cut = [row for row in curve.rows if "accuracy_before" in row and row["iteration"]]
            axes.plot(
                [row["parameters"] for row in cut],
                [row["accuracy_before"] for row in cut],
                label="before training: hollow" if position == 0 else None,
                **style(
                    position, linestyle="none", color="none", markeredgecolor=colour, markeredgewidth=1.2
                ),
            )
        amount_axis(axes, "x", "parameters", [row["parameters"] for curve in drawn for row in curve.rows])
        percent_axis(axes.yaxis, "val accuracy")
        legend(figure, axes, columns=columns)
        entitle(figure, title)

    told = [
        f"{shown(curve.name, 40)} from {curve.rows[0]['parameters']:,.0f} parameters with "
        f"{100 * curve.rows[0]['accuracy_after']:.1f} % to {curve.rows[-1]['parameters']:,.0f} with "
        f"{100 * curve.rows[-1]['accuracy_after']:.1f} %"
        for curve in curves[:3]
    ]
    more_curves = f"; {len(curves) - 3} more" if len(curves) > 3 else ""
    return Plot(
        "pruning",
        title,
        f"After training, means over seeds: {'; '.join(told)}{more_curves}.",
        ["name", "iteration", "n", "parameters", "accuracy_before", "accuracy_after"],
        [
            [
                curve.name,
                *(
                    row.get(name)
                    for name in ("iteration", "n", "parameters", "accuracy_before", "accuracy_after")
                ),
            ]
            for curve in curves
            for row in curve.rows
        ],
        draw,
        height=int(360 + more),
    )
