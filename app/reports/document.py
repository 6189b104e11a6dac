"""A report as what it says, apart from how it looks: `html.py` and `markdown.py` both write it.

All text here is plain, and may hold what a user typed: each writer escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.reports.plot import Plot


@dataclass(frozen=True)
class Column:
    title: str
    unit: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """`rows` are ready cells. The first column names its row. `emphasised`: the position of the row that matters most."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""
    emphasised: int | None = None


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Notice:
    kind: Literal["good", "warning", "error"]
    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values, each a short line."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Picture:
    """A plot, with the numbers behind it where they are few. `address`: where it is served, less the suffix."""

    plot: Plot
    address: str


@dataclass(frozen=True)
class Folded:
    """What most readers do not need: closed at first, and open on paper."""

    title: str
    blocks: Sequence["Block"]


Block = Table | Paragraph | Notice | Facts | Code | Picture | Folded


@dataclass(frozen=True)
class Section:
    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """`kind` and `ident` say what it is of; `state` as the API says it."""

    kind: str
    ident: str
    title: str
    state: str
    summary: str
    sections: Sequence[Section] = field(default_factory=list)
