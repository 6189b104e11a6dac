"""Tables on the terminal and as Markdown."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli import figures
from app.cli.terminal import printable

Row = Mapping[str, Any]

_SHARES = ("accuracy", "agreement")
_RIGHT = (int, float)


@dataclass(frozen=True)
class Column:
    """`name` is the key in the rows, `title` the heading."""

    name: str
    title: str
    right: bool = False


def console(*, stderr: bool = False) -> Console:
    """What is no terminal has no width: nothing is folded or cut in a file."""
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 10_000
    return Console(highlight=False, width=width, markup=False, emoji=False, stderr=stderr)


def terminal_table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(shown(column.name, row.get(column.name)))) for column in columns))
    return table


def shown(name: str, value: Any) -> str:
    """A value as people read it, by what its column is."""
    if isinstance(value, str):
        return value
    if isinstance(value, float | int) and not isinstance(value, bool):
        if any(part in name for part in _SHARES):
            return figures.share(value)
        if name.endswith("_ms"):
            return figures.milliseconds(value)
        if name == "seconds":
            return figures.duration(value)
        if name in ("macs", "train_macs", "parameters", "size_bytes"):
            return figures.count(value)
    return figures.value(value)


def columns_of(names: Sequence[str], rows: Sequence[Row]) -> list[Column]:
    """Columns of rows that bring their own names; numbers to the right, those that are nowhere filled left out."""
    return [
        Column(name, name.replace("_", " "), right=_is_numeric(name, rows))
        for name in names
        if any(row.get(name) is not None for row in rows)
    ]


def _is_numeric(name: str, rows: Sequence[Row]) -> bool:
    return all(isinstance(row.get(name), _RIGHT) for row in rows if row.get(name) is not None)


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = [[column.title for column in columns], ["---:" if column.right else "---" for column in columns]]
    lines += [[_cell(shown(column.name, row.get(column.name))) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text of others in a Markdown table: neither a column nor HTML."""
    for mark, written in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(mark, written)
    return printable(text)
