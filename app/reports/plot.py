"""A plot as data: the numbers, the sentence that says them, and how they are drawn when somebody asks for a picture."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Draw = Callable[[Figure], None]
else:
    Draw = Callable[[Any], None]

# What makes a spreadsheet take a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Plot:
    """`alt`: what there is to see, with the numbers that matter. `columns`, `rows`: all that is drawn, as it was measured,
    units in the columns' names. `width`, `height`: in CSS pixels."""

    name: str
    title: str
    alt: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    draw: Draw
    width: int = 640
    height: int = 340


def as_csv(plot: Plot) -> str:
    """Its data with a header. Text that a spreadsheet would run begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(plot.columns)
    writer.writerows([_cell(value) for value in row] for row in plot.rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
