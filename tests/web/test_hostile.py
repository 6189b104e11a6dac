"""Text of strangers is text; the line may break; what is not there is said."""

import re

import pytest
from playwright.sync_api import expect

from app import jobs
from app.db import transaction
from tests.app.conftest import Service
from tests.web.chromium import Visitor

HOSTILE = '<img src=x onerror="document.title=\'broken in\'"> & "quotes" \' \u202egnp.exe ' + "w" * 120


@pytest.fixture(scope="module")
def hostile(prepared: Service) -> str:
    """A job whose name, label, log, error and numbers were written by somebody who means harm."""
    spec = prepared.job_spec(name=HOSTILE[:200], labels={"team": HOSTILE[:200]}, steps=[{"method": "fold"}])
    job_id: str = prepared.client.post("/v1/jobs", json=spec).json()["id"]
    claim = prepared.worker.claim(job_id)
    metric = {"step": 1, "epoch": 1, "split": "<b>val</b>"[:16], "name": "<i>accuracy</i>", "value": 0.5}
    with transaction() as session:
        jobs.record(
            session,
            claim,
            phase="<script>alert(1)</script>",
            events=[("log", {"level": "info", "message": HOSTILE})],
            metrics=[{**metric, "unit": "1"}],
            progress={
                "fraction": 0.4,
                "done": 2,
                "total": 5,
                "unit": "<u>epoch</u>",
                "eta_seconds": 7.0,
                "step": 1,
            },
        )
    return job_id


def test_what_a_stranger_typed_is_shown_as_text(guest: Visitor, hostile: str) -> None:
    """In the list, on the job's page, in the form that begins like it: no element and no script comes of it."""
    for path, title in (("/jobs", "Jobs"), (f"/jobs/{hostile}", None), (f"/new?from={hostile}", "New job")):
        page = guest.go(path)
        expect(page.get_by_text("<img src=x onerror").first).to_be_visible()
        assert page.locator("main img, main b, main i, main u, main script").count() == 0
        assert page.title() != "broken in"
        assert page.title() == f"{title or HOSTILE[:200].strip()} · fewbytes"
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path


def test_a_broken_line_is_said_and_mended(guest: Visitor, hostile: str) -> None:
    """The page says that nobody answers, and is up to date again by itself."""
    page = guest.go("/jobs")
    page.route("**/v1/jobs?*", lambda route: route.abort("connectionrefused"))
    expect(page.locator("#notice")).to_contain_text("does not answer", timeout=10_000)
    page.unroute("**/v1/jobs?*")
    expect(page.locator("#notice")).to_be_empty(timeout=15_000)
    expect(page.get_by_role("link", name=re.compile("onerror"))).to_be_visible()


def test_what_is_not_there_is_said_plainly(guest: Visitor) -> None:
    page = guest.go("/jobs/job_none")
    expect(page.get_by_role("alert")).to_contain_text("There is no job 'job_none'")
    page = guest.go("/nowhere")
    expect(page.locator("h1")).to_have_text("Nothing here")
    page.get_by_role("link", name="All jobs").click()
    expect(page.locator("h1")).to_have_text("Jobs")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Nothing here")
