"""Sweeps in the browser: made by form, watched, read by keyboard, held and cancelled."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.service import Service
from tests.web.chromium import Visitor, shoot
from tests.web.test_journeys import FINISH, LONG, QUICK


@pytest.fixture(scope="module")
def sweep(running: Service, registered: dict[str, Any]) -> dict[str, Any]:
    """Three bit widths after a shared training, two seeds each; one of the widths cannot be stored by this scheme."""
    spec = {
        "name": "bits",
        "job": {**registered, "steps": [QUICK, {"method": "quantize"}]},
        "axes": [{"name": "bits", "field": "/steps/1/bits", "values": [8, 4, 2]}],
        "seeds": 2,
    }
    return running.post("/v1/sweeps", spec)


def test_a_sweep_is_made_by_form(visitor: Visitor, running: Service, registered: dict[str, Any]) -> None:
    """Axes over fields that the form knows; Check shows the points; what is stored is what was shown."""
    page = visitor.go("/new-sweep")
    axes = page.locator('[data-pointer="/axes/0"]')
    axes.get_by_label("Field", exact=True).fill("/steps/0/temperature")
    axes.get_by_label("Values").fill("1, 4")
    step = page.locator('[data-pointer="/job/steps/0"]')
    step.get_by_label("Architecture").select_option("report/final")
    step.get_by_label(re.compile("^Epochs")).fill("1")
    step.get_by_label(re.compile("^Image size")).fill("32")
    assert page.locator("datalist option[value='/steps/0/student/width']").count() == 1
    page.get_by_role("button", name="Check").click()
    points = page.get_by_role("region", name="Points of the grid")
    expect(points.get_by_role("row")).to_have_count(5)
    axes.get_by_label("Field", exact=True).fill("/steps/0/temprature")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_be_focused()
    axes.get_by_label("Field", exact=True).fill("/steps/0/temperature")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("#/sweeps/swp_"))
    sweep_id = page.url.rsplit("/", 1)[1]
    stored = running.get(f"/v1/sweeps/{sweep_id}")["spec"]
    assert stored["axes"][0]["values"] == [1, 4]
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main .badge").first).to_contain_text("cancelled", timeout=FINISH)
    expect(page.get_by_role("button", name=re.compile("^Try .* again"))).to_be_visible()


def test_a_sweep_is_watched_and_its_plot_read_by_keyboard(
    visitor: Visitor, running: Service, sweep: dict[str, Any], screenshots: Path | None
) -> None:
    """The table grows; each point of the plot says its numbers when the arrows come to it, and Enter opens its job."""
    page = visitor.go(f"/sweeps/{sweep['id']}")
    expect(page.locator("main .badge").first).to_contain_text("succeeded", timeout=2 * FINISH)
    table = page.get_by_role("region", name="The jobs of the sweep")
    expect(table.get_by_role("row")).to_have_count(7)
    expect(table.get_by_role("row", name=re.compile("succeeded"))).to_have_count(6, timeout=FINISH)
    shoot(page, screenshots, "sweep-done")
    points = page.locator(".point")
    expect(points).to_have_count(3)
    points.first.focus()
    readout = page.locator(".readout")
    known = running.get(f"/v1/sweeps/{sweep['id']}/pareto")
    seen = []
    for _ in known["items"]:
        seen.append(readout.inner_text())
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == 3
    # By rising bytes, with the very numbers of the service.
    for item, words in zip(known["items"], seen, strict=True):
        assert item["name"] in words
        assert f"{round(item['x']):,}" in words
        assert f"{100 * item['y']:.1f} %" in words
    assert page.locator(".on-front").count() == sum(item["on_front"] for item in known["items"])
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#/jobs/job_"))
    page.go_back()
    expect(points).to_have_count(3)


def test_the_axes_of_the_plot_are_chosen_and_stay_in_the_address(
    visitor: Visitor, running: Service, sweep: dict[str, Any]
) -> None:
    page = visitor.go(f"/sweeps/{sweep['id']}")
    page.get_by_label("Of", exact=True).select_option("rows")
    expect(page.locator(".point")).to_have_count(6)
    page.get_by_label("Across").select_option("axis:bits")
    page.get_by_label("Up").select_option("val_accuracy")
    page.get_by_label("Scale").select_option("log")
    expect(page.locator(".chart .label", has_text="bits")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Across")).to_have_value("axis:bits")
    expect(page.locator(".point")).to_have_count(6)


def test_the_table_is_sorted_by_its_columns(
    visitor: Visitor, running: Service, sweep: dict[str, Any]
) -> None:
    """The largest number first, then the smallest; the order is said to whoever does not see it, and focus stays."""
    page = visitor.go(f"/sweeps/{sweep['id']}")
    table = page.get_by_role("region", name="The jobs of the sweep")
    head = table.get_by_role("columnheader", name=re.compile("^Bytes"))
    wanted = sorted(
        (row["size_bytes"] for row in running.get(f"/v1/sweeps/{sweep['id']}/table")["rows"]), reverse=True
    )
    index = [cell.strip() for cell in table.locator("thead th").all_inner_texts()].index("Bytes")
    for expected, order in ((wanted, "descending"), (wanted[::-1], "ascending")):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        cells = table.locator("tbody tr").evaluate_all(
            "(rows, index) => rows.map((row) => row.cells[index].textContent)", index
        )
        assert cells == [f"{value:,}" for value in expected]
        expect(head.get_by_role("button")).to_be_focused()


def test_a_sweep_is_held_and_goes_on_with_more_seeds(
    visitor: Visitor, running: Service, registered: dict[str, Any]
) -> None:
    spec = {"name": "held", "job": {**registered, "steps": [LONG]}, "axes": [], "seeds": 1}
    made = running.post("/v1/sweeps", spec)
    page = visitor.go(f"/sweeps/{made['id']}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("main .badge").first).to_contain_text("paused", timeout=FINISH)
    page.get_by_label("Seeds of each point afterwards").fill("2")
    page.get_by_role("button", name="Extend to so many seeds").click()
    table = page.get_by_role("region", name="The jobs of the sweep")
    expect(table.get_by_role("row")).to_have_count(3)
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main .badge").first).to_contain_text("cancelled", timeout=FINISH)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete it and its jobs for good?").click()
    page.wait_for_url(re.compile("#/sweeps$"))
    assert running.http.get(f"/v1/sweeps/{made['id']}").status_code == 404
