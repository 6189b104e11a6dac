"""Panels, axes and legends that all plots have in common. Positions are CSS pixels from the top left."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.reports.palette import GRID, INK, MUTED, series
from app.reports.wording import scaled, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = Figure = Any

TOP = 62
"""Room for the title and one line of legend."""
BOTTOM = 50
LEFT = 56
RIGHT = 20
# A generous mean of a letter at the size of tick labels.
_LETTER = 6.8


def panel(
    figure: Figure,
    *,
    left: float = LEFT,
    top: float = TOP,
    right: float = RIGHT,
    bottom: float = BOTTOM,
    grid: str = "y",
) -> Axes:
    """Axes with so much room on each side; without a box around them."""
    width, height = 72 * figure.get_size_inches()
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=3, width=0.8)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]  # its names are checked by matplotlib
    return axes


def entitle(figure: Figure, title: str, left: float = 2) -> None:
    width, height = 72 * figure.get_size_inches()
    figure.text(
        left / width, 1 - 20 / height, title, fontsize=13.5, fontweight="bold", color=INK, va="baseline"
    )


def legend(figure: Figure, axes: Axes, *, columns: int = 4, left: float = 2, top: float = 27) -> None:
    """On the line under the title, and beyond it where there are many."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = 72 * figure.get_size_inches()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(left / width, 1 - top / height),
        borderpad=0,
        borderaxespad=0,
        ncols=columns,
        columnspacing=1.6,
        handlelength=2.2,
        handletextpad=0.5,
        labelcolor=INK,
    )


def legend_height(count: int, columns: int) -> float:
    """What a legend needs beyond the one line that `TOP` has."""
    return 18.0 * max(0, math.ceil(count / columns) - 1)


def room_for(labels: Sequence[str], most: float = 230) -> float:
    """Pixels to the left of an axis with these labels."""
    longest = max((len(label) for label in labels), default=0)
    return min(most, 18 + _LETTER * longest)


def label_for(text: object, most: int = 30) -> str:
    return shown(text, most)


def style(position: int, **more: Any) -> dict[str, Any]:
    """Colour, marker and dash of the series at this position."""
    colour, marker, dash = series(position)
    return {"color": colour, "marker": marker, "linestyle": dash, "markeredgewidth": 0} | more


def percent_axis(axis: Any, label: str, unit: str = "%") -> None:
    """Values are shares; ticks are percent."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}".replace("-", "−")))
    axis.set_label_text(f"{label} ({unit})")


def amount_axis(axes: Axes, which: str, label: str, values: Sequence[float], unit: str = "") -> None:
    """Bytes, parameters, multiply-adds, milliseconds: on a log scale where they span more than a factor of 4.

    `which`: "x" or "y".
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    is_log = len(values) > 0 and min(values) > 0 and max(values) > 4 * min(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if is_log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(FixedLocator(_log_ticks(min(values), max(values))))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(nbins=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, unit)))
    axis.set_label_text(f"{label} (log scale)" if is_log else label)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade; powers of ten alone where that would be too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if math.log10(high / low) < 2.2 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low / 2 <= tick <= 2 * high]


def epochs_axis(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axis.set_label_text("epoch")


def dot_rows(
    figure: Figure,
    labels: Sequence[str],
    groups: Sequence[tuple[str, Sequence[float | None]]],
    axis_label: str,
    *,
    unit: str = "%",
    linked: bool = False,
) -> None:
    """A row for each label, with a dot for each group's value; the first row is at the top. `linked`: a line from the
    first group's dot to the last's."""
    names = [label_for(label) for label in labels]
    axes = panel(figure, left=room_for(names), grid="x")
    for position, (name, values) in enumerate(groups):
        known = [(value, row) for row, value in enumerate(values) if value is not None]
        axes.plot(
            [value for value, _ in known],
            [row for _, row in known],
            label=name,
            **style(position, linestyle="none", markersize=7),
        )
    if linked:
        for row, (first, last) in enumerate(zip(groups[0][1], groups[-1][1], strict=True)):
            if first is not None and last is not None:
                axes.plot([first, last], [row, row], color=MUTED, linewidth=1.2, zorder=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    percent_axis(axes.xaxis, axis_label, unit)
    legend(figure, axes)


def rows_height(count: int) -> int:
    """Of a plot by `dot_rows`."""
    return int(TOP + BOTTOM + 24 * max(count, 1))
