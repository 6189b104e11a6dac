"""A report as Markdown (GitHub's), for a pull request or a wiki. Plots are their sentence, and a link."""

import re
from collections.abc import Iterator, Sequence

from app.reports.document import (
    Block,
    Code,
    Column,
    Document,
    Facts,
    Folded,
    Notice,
    Paragraph,
    Picture,
    Table,
)
from app.version import version

# A backslash takes the meaning of these; the other three could begin HTML.
_MARKS = re.compile(r"([\\`*_{}\[\]|~#!])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_NOTICES = {"good": "Met", "warning": "Warning", "error": "Error"}


def as_markdown(document: Document) -> str:
    lines = [
        f"# {escaped(document.title)}",
        "",
        f"{document.kind} `{document.ident}`, {document.state}",
        "",
        escaped(document.summary),
    ]
    for section in document.sections:
        lines += ["", f"## {escaped(section.title)}"]
        lines += _blocks(section.blocks)
    lines += ["", f"*fewbytes {escaped(version())}*", ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Plain text that stays plain: no markup, no HTML, no end of a table's cell."""
    one_line = " ".join(text.split())
    return "".join(_HTML.get(character, character) for character in _MARKS.sub(r"\\\1", one_line))


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        yield ""
        yield from _lines(block)


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Table():
            yield from _table(block)
        case Paragraph(text):
            yield escaped(text)
        case Notice(kind, text):
            yield f"> **{_NOTICES[kind]}:** {escaped(text)}"
        case Facts(pairs):
            for name, value in pairs:
                yield f"- {escaped(name)}: {escaped(value)}"
        case Code(text, language):
            yield from _code(text, language)
        case Picture(plot, address):
            yield f"**{escaped(plot.title)}.** {escaped(plot.alt)} ([SVG]({address}.svg), [CSV]({address}.csv))"
        case Folded(title, inner):
            yield f"<details><summary>{escaped(title)}</summary>"
            yield from _blocks(inner)
            yield ""
            yield "</details>"


def _table(table: Table) -> Iterator[str]:
    yield f"**{escaped(table.caption)}**"
    yield ""
    yield _row([escaped(_header(column)) for column in table.columns])
    yield _row(["---:" if column.is_number else "---" for column in table.columns])
    for position, row in enumerate(table.rows):
        cells = [escaped(cell) for cell in row]
        if position == table.emphasised:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        yield _row(cells)
    if table.note:
        yield ""
        yield escaped(table.note)


def _header(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str, language: str) -> Iterator[str]:
    """In a fence longer than any in the text."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield text
    yield fence
