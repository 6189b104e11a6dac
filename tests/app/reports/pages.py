"""A page as a parser sees it: tables by their caption, texts, elements with their attributes."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "br", "img", "path", "use", "rect", "image"})


@dataclass
class Table:
    caption: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def column(self, title: str) -> list[str]:
        """The cells under the first header that begins so."""
        position = next(k for k, name in enumerate(self.header) if name.startswith(title))
        return [row[position] for row in self.rows]


class Page(HTMLParser):
    """`elements`: (tag, attributes) in order. `text`: all that is read, SVG and style apart."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[Table] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.alts: list[str] = []
        self._cell: str | None = None
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        if tag == "tr" and "tbody" in self.open:
            self.tables[-1].rows.append([])
        if tag in ("th", "td", "caption"):
            self._cell = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> while {self.open[-3:]} are open"
        self.open.pop()
        if tag == "caption":
            self.tables[-1].caption = self._taken()
        elif tag in ("th", "td"):
            cells = self.tables[-1].rows[-1] if "tbody" in self.open else self.tables[-1].header
            cells.append(self._taken())

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
        elif "desc" in self.open:
            self.alts.append(data)
        elif "svg" not in self.open:
            self.text += data
        if self._cell is not None:
            self._cell += data

    def _taken(self) -> str:
        taken, self._cell = (self._cell or "").strip(), None
        return taken

    def table(self, caption: str) -> Table:
        """The one whose caption begins so."""
        (found,) = (table for table in self.tables if table.caption.startswith(caption))
        return found

    def tags(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]
