"""Every view, at the width of a phone and of a desk, in light and dark: names, headings, contrast, tab order, width."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.service import Service
from tests.web import accessible
from tests.web.chromium import DESKTOP, PHONE, Visitor, shoot, visiting
from tests.web.test_journeys import QUICK


@pytest.fixture(scope="module")
def views(running: Service, registered: dict[str, Any]) -> dict[str, str]:
    """Name -> address of every view, each with something to show."""
    job = running.post(
        "/v1/jobs", {**registered, "name": "seen by all", "steps": [QUICK, {"method": "quantize"}]}
    )
    alphas = {"name": "alpha", "field": "/steps/0/alpha", "values": [0, 0.5]}
    sweep = running.post(
        "/v1/sweeps",
        {
            "name": "two alphas",
            "job": {**registered, "steps": [QUICK, {"method": "quantize"}]},
            "axes": [alphas],
            "seeds": 2,
        },
    )
    assert running.finished(job["id"])["state"] == "succeeded"
    ended = running.http.get(f"/v1/sweeps/{sweep['id']}", params={"wait": 60}).json()
    while ended["finished_at"] is None:
        ended = running.http.get(f"/v1/sweeps/{sweep['id']}", params={"wait": 60}).json()
    assert ended["state"] == "succeeded", ended
    return {
        "jobs": "/jobs",
        "job": f"/jobs/{job['id']}",
        "sweeps": "/sweeps",
        "sweep": f"/sweeps/{sweep['id']}",
        "new": "/new",
        "new-sweep": "/new-sweep",
        "preset": "/new-sweep?preset=alpha",
        "models": "/models",
        "teacher": f"/models/{registered['teachers'][0]}",
        "dataset": f"/models/{registered['dataset']}",
        "service": "/service",
    }


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_fault(
    browser: Browser,
    running: Service,
    views: dict[str, str],
    size: tuple[int, int],
    scheme: str,
    screenshots: Path | None,
) -> None:
    """A name for every control, headings in order, contrast, nothing wider than the window."""
    with visiting(browser, str(running.http.base_url).rstrip("/"), size, scheme) as visitor:
        found = {}
        for name, path in views.items():
            page = visitor.go(path)
            page.wait_for_load_state("networkidle")
            shoot(page, screenshots, f"{name}-{size[0]}-{scheme}")
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            page.wait_for_timeout(100)
            found[name] = accessible.faults(page)
        assert found == {name: [] for name in views}
        visitor.check()


def test_everything_is_reached_by_keyboard_alone(visitor: Visitor, views: dict[str, str]) -> None:
    """The Tab key comes to every control, in the order of reading, and focus shows."""
    for name in ("jobs", "job", "sweep", "new", "models"):
        page = visitor.go(views[name])
        page.wait_for_load_state("networkidle")
        assert accessible.unreached(page) == [], name


def test_a_view_says_where_it_is(visitor: Visitor, views: dict[str, str]) -> None:
    """Title, heading with the focus, the current entry of the navigation; the skip link leads to the content."""
    page = visitor.go("/jobs")
    for name, title in (("Sweeps", "Sweeps"), ("Models and data", "Models and data"), ("Workers", "Workers")):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        page.wait_for_function("title => document.title.startsWith(title)", arg=title)
        page.wait_for_function("() => document.activeElement.tagName === 'H1'")
        assert page.locator("nav [aria-current=page]").inner_text() == name
    page.keyboard.press("Tab")
    page.evaluate("document.querySelector('.skip').focus()")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("#/service")
