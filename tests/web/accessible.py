"""Checks of a page that is open in the browser: names, headings, references, contrast, tab order, width."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_CHECKS = Path(__file__).with_suffix(".js").read_text().replace("export ", "")


def faults(page: Page) -> list[str]:
    """What is wrong with the page as it is shown now; empty: nothing that these checks know."""
    found: list[str] = page.evaluate(f"() => {{ {_CHECKS}; return faults(); }}")
    return found


def _stops(page: Page) -> list[str]:
    """Once nothing more is being fetched and shown: what is made anew would lose its number."""
    before: list[str] = []
    while True:
        stops: list[str] = page.evaluate(f"() => {{ {_CHECKS}; return stops(); }}")
        if stops == before:
            return stops
        before = stops
        page.wait_for_timeout(1000)


def unreached(page: Page, most: int = 400) -> list[str]:
    """The controls that the Tab key does not come to, in the order of reading; focus must show, too."""
    stops = _stops(page)
    page.evaluate(
        "() => { document.activeElement.blur(); window.getSelection().removeAllRanges(); scrollTo(0, 0); }"
    )
    page.evaluate(
        "() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); }"
    )
    order: list[int] = []
    for _ in range(min(len(stops) + 5, most)):
        page.keyboard.press("Tab")
        at: dict[str, Any] | None = page.evaluate(
            "() => { const e = document.activeElement; if (!e || e === document.body) return null; const s = getComputedStyle(e);"
            " return { stop: e.dataset.stop ?? null, ring: s.outlineStyle !== 'none' || e.closest('svg') !== null, html: e.outerHTML.slice(0, 120) }; }"
        )
        if at is None or at["stop"] is None:
            continue
        if int(at["stop"]) in order:
            break
        assert at["ring"], f"focus does not show: {at['html']}"
        order.append(int(at["stop"]))
    assert order == sorted(order), "the Tab key jumps about"
    return [stop for index, stop in enumerate(stops) if index not in order]
