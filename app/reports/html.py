"""A report as one HTML file: style and plots within, no script, nothing fetched from anywhere."""

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from app.reports.document import Column, Document, Table
from app.reports.palette import dark_rules
from app.reports.plot import Plot
from app.reports.wording import NOTHING, number, shown
from app.version import version

if TYPE_CHECKING:
    from jinja2 import Template

MOST_ROWS = 60
"""So many numbers behind a plot are on the page as well; more are a CSV away."""


@lru_cache
def _style() -> str:
    """The page's only style, so that its digest can be what the policy allows."""
    sheet = resources.files("app.reports").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return "".join(line.strip() for line in sheet.splitlines()) + dark_rules()


@lru_cache
def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def policy() -> str:
    """The Content-Security-Policy of a page by `as_html`: its own style, pictures within it, and nothing else."""
    return f"{_policy()}; frame-ancestors 'self'"


def as_html(document: Document) -> str:
    return _template().render(document=document, style=_style(), policy=_policy(), version=version())


@lru_cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"kind": lambda block: type(block).__name__, "svg": _svg, "data": _data}
    source = resources.files("app.reports").joinpath("templates", "page.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _svg(plot: Plot) -> Any:
    """Matplotlib escapes the texts of a plot; what comes back is markup."""
    from markupsafe import Markup

    from app.reports.drawing import inline_svg

    return Markup(inline_svg(plot))


def _data(plot: Plot) -> Table | None:
    """The numbers behind a plot, as they were measured; None where they are too many for a page."""
    if len(plot.rows) > MOST_ROWS:
        return None
    columns = [
        Column(name, is_number=all(not isinstance(row[position], str) for row in plot.rows))
        for position, name in enumerate(plot.columns)
    ]
    return Table(
        f"The numbers of “{plot.title}”", columns, [[_cell(value) for value in row] for row in plot.rows]
    )


def _cell(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return number(value)
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
