"""The ways that users go, by browser, against `fewbytes up` with a real worker."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.service import Service, wait_for
from tests.web.chromium import Visitor, shoot
from tests.worker import tiny

STUDENT = {"architecture": "report/final", "image_size": tiny.SIDE}
LONG = {"method": "distill", "student": STUDENT, "epochs": 400, "batch_size": 16}
QUICK = {"method": "distill", "student": STUDENT, "epochs": 4, "batch_size": 16}
FINISH = 60_000


def state_of(page: Page) -> str:
    return page.locator("main .badge").first.inner_text().split()[-1]


def ended(page: Page, state: str) -> None:
    expect(page.locator("main .badge").first).to_contain_text(state, timeout=FINISH)


@pytest.fixture(scope="module")
def finished(running: Service, registered: dict[str, Any]) -> dict[str, Any]:
    """A job of two steps that has succeeded."""
    job = running.post(
        "/v1/jobs", {**registered, "name": "finished", "steps": [QUICK, {"method": "quantize"}]}
    )
    done = running.finished(job["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


def test_a_job_is_made_by_form_and_watched_to_its_end(
    visitor: Visitor, running: Service, registered: dict[str, Any], screenshots: Path | None
) -> None:
    """Check, submit, curves that grow, stages, the answer's file; without loading the page again."""
    page = visitor.go("/new")
    step = page.locator('[data-pointer="/steps/0"]')
    step.get_by_label("Architecture").select_option("report/final")
    step.get_by_label(re.compile("^Epochs")).fill("25")
    step.get_by_label(re.compile("^Image size")).fill(str(tiny.SIDE))
    page.get_by_label(re.compile("^Name")).fill("by form")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name="Plan")).to_be_visible()
    expect(page.get_by_role("region", name="Estimates after each step").get_by_role("row")).to_have_count(3)
    shoot(page, screenshots, "new-job")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("#/jobs/job_"))
    expect(page.locator("h1")).to_have_text("by form")
    expect(page.locator("h1")).to_be_focused()
    # The curve has a few points while the job still runs, and more later.
    line = page.locator(".chart polyline.line").first
    line.wait_for(state="attached", timeout=FINISH)
    first = len(line.get_attribute("points").split())
    assert state_of(page) == "running"
    shoot(page, screenshots, "job-running")
    page.wait_for_function(
        "(first) => document.querySelector('.chart polyline.line').getAttribute('points').split(' ').length > first",
        arg=first,
        timeout=FINISH,
    )
    ended(page, "succeeded")
    stages = page.get_by_role("region", name="What was measured after each step")
    expect(stages.get_by_role("row")).to_have_count(4)
    job_id = page.url.rsplit("/", 1)[1]
    result = running.get(f"/v1/jobs/{job_id}")["result"]
    expect(stages.get_by_role("row").last).to_contain_text(f"{result['stages'][-1]['size_bytes']:,}")
    assert result["stages"][1]["method"] == "distill"
    assert len(result["stages"]) == 3
    shoot(page, screenshots, "job-done")


def test_a_running_job_is_cancelled_and_tried_again(
    visitor: Visitor, running: Service, registered: dict[str, Any]
) -> None:
    """It keeps the best network so far, which the page offers; the second try goes on."""
    job = running.post("/v1/jobs", {**registered, "name": "too long", "steps": [LONG]})
    wait_for(lambda: running.epochs(job["id"]) >= 2, 60)
    page = visitor.go(f"/jobs/{job['id']}")
    page.get_by_role("button", name="Cancel").click()
    ended(page, "cancelled")
    expect(page.get_by_role("region", name="Files that the job left")).to_contain_text("best-so-far.pt")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("main .badge").first).to_contain_text(re.compile("queued|running"))
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    wait_for(lambda: running.get(f"/v1/jobs/{job['id']}")["state"] == "queued", 60)
    expect(page.locator("main .badge").first).to_contain_text("paused", timeout=FINISH)
    page.get_by_role("button", name="Cancel").click()
    ended(page, "cancelled")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good?").click()
    page.wait_for_url(re.compile("#/jobs$"))
    assert running.http.get(f"/v1/jobs/{job['id']}").status_code == 404


def test_what_is_downloaded_is_what_was_measured(
    visitor: Visitor, running: Service, finished: dict[str, Any], tmp_path: Path
) -> None:
    """The file that a browser keeps has the digest of the receipt, and the page verifies it."""
    page = visitor.go(f"/jobs/{finished['id']}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the answer").click()
    download.value.save_as(tmp_path / "answer.pt")
    found = hashlib.sha256((tmp_path / "answer.pt").read_bytes()).hexdigest()
    assert found == finished["result"]["artifact"]["sha256"]
    page.get_by_role("button", name="Verify final.pt against its receipt").click()
    expect(page.get_by_text("2 of 2 checks")).to_be_visible()
    assert download.value.suggested_filename.endswith(".pt")


def test_errors_of_the_service_stand_at_their_fields(visitor: Visitor, registered: dict[str, Any]) -> None:
    """By JSON pointer, also in a part that is folded; the focus goes to the summary, and from there to the field."""
    page = visitor.go("/new")
    step = page.locator('[data-pointer="/steps/0"]')
    step.get_by_label("Architecture").select_option("report/final")
    step.get_by_label(re.compile("^Alpha")).fill("1.5")
    more = step.locator("details.more").last
    more.locator("summary").first.click()
    step.get_by_label(re.compile("^Batch size")).fill("many")
    more.locator("summary").first.click()
    page.get_by_role("button", name="Check").click()
    alert = page.get_by_role("alert")
    expect(alert).to_be_focused()
    expect(step.locator('[data-pointer="/steps/0/alpha"] .field-error')).not_to_be_empty()
    expect(step.get_by_label(re.compile("^Alpha"))).to_have_attribute("aria-invalid", "true")
    alert.get_by_role("button", name="/steps/0/batch_size").click()
    expect(step.get_by_label(re.compile("^Batch size"))).to_be_focused()
    step.get_by_label(re.compile("^Alpha")).fill("0.5")
    step.get_by_label(re.compile("^Batch size")).fill("")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name="Plan")).to_be_visible()
    assert page.locator("[aria-invalid]").count() == 0


def test_the_form_the_curl_and_the_json_say_the_same(
    visitor: Visitor, running: Service, registered: dict[str, Any]
) -> None:
    """Steps are added, moved and removed; the JSON can be edited; what is sent is what is shown."""
    page = visitor.go("/new")
    page.get_by_label("One more step").select_option("fold")
    page.get_by_role("button", name="Add step").click()
    expect(page.locator("legend", has_text="Step 3")).to_be_focused()
    page.get_by_role("button", name="Move step 3 up").click()
    page.get_by_role("button", name="Remove step 3").click()
    page.get_by_text("Edit as JSON").click()
    spec = page.get_by_label("Spec", exact=True)
    assert [
        step["method"] for step in page.evaluate("(text) => JSON.parse(text).steps", spec.input_value())
    ] == [
        "distill",
        "fold",
    ]
    wanted = {**registered, "name": "it's <b>JSON</b>", "steps": [{"method": "quantize", "bits": 4}]}
    spec.fill(page.evaluate("(spec) => JSON.stringify(spec)", wanted))
    page.get_by_role("button", name="Use this JSON").click()
    expect(page.locator('[data-pointer="/steps/0"]').get_by_label(re.compile("^Bits"))).to_have_value("4")
    expect(page.get_by_label("The same by curl")).to_contain_text("it'\\''s <b>JSON</b>")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("#/jobs/job_"))
    expect(page.locator("h1")).to_have_text("it's <b>JSON</b>")
    stored = running.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}")["spec"]
    assert {name: stored[name] for name in wanted if name != "steps"} == {
        name: wanted[name] for name in wanted if name != "steps"
    }
    assert stored["steps"][0]["bits"] == 4


def test_a_job_like_another_begins_with_all_that_it_said(
    visitor: Visitor, running: Service, finished: dict[str, Any]
) -> None:
    """Unchanged it is the same spec."""
    page = visitor.go(f"/jobs/{finished['id']}")
    page.get_by_role("link", name="New job like this").click()
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("#/jobs/job_"))
    again = running.get(f"/v1/jobs/{page.url.rsplit('/', 1)[1]}")
    assert again["id"] != finished["id"]
    assert again["result_key"] == finished["result_key"]


def test_a_file_is_uploaded_over_a_broken_line_and_registered(
    visitor: Visitor, running: Service, files: dict[str, Path], tmp_path: Path
) -> None:
    """The second piece is lost; the page asks what has arrived and goes on. Then the verdict is shown."""
    large = tmp_path / "photos with ballast.zip"
    large.write_bytes(files["photos"].read_bytes())
    tiny_size = large.stat().st_size
    ballast = tmp_path / "ballast.bin"
    ballast.write_bytes(bytes(range(256)) * (20 << 12))  # three pieces
    page = visitor.go("/models")
    lost: list[str] = []

    def lose_one(route: Any) -> None:
        if "bytes 8388608" in (route.request.headers.get("content-range") or "") and not lost:
            lost.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/v1/uploads/upl_*", lose_one)
    page.get_by_label("File, chosen or dropped here").set_input_files(ballast)
    expect(page.get_by_text("100.0 %")).to_be_visible(timeout=FINISH)
    expect(page.get_by_role("group", name="ballast.bin is")).to_be_visible()
    assert lost
    stored = running.get("/v1/files/ballast.bin")
    assert stored["sha256"] == hashlib.sha256(ballast.read_bytes()).hexdigest()
    page.get_by_label("File, chosen or dropped here").set_input_files(large)
    expect(page.get_by_role("radio", name="photos (data set)")).to_be_checked()
    page.get_by_label(re.compile("^Name")).fill("uploaded")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_text(re.compile("2 classes · train 48"))).to_be_visible(timeout=FINISH)
    row = page.get_by_role("region", name="Data sets").get_by_role("row", name=re.compile("uploaded"))
    expect(row).to_contain_text("ready")
    assert running.get("/v1/files/photos_with_ballast.zip")["size_bytes"] == tiny_size


def test_a_verdict_against_a_file_says_why(visitor: Visitor, running: Service, tmp_path: Path) -> None:
    """A picture is no checkpoint: the service's own sentence, at the form."""
    picture = tmp_path / "cat.pt"
    picture.write_bytes(tiny.photo(0, 1))
    page = visitor.go("/models")
    page.get_by_label("File, chosen or dropped here").set_input_files(picture)
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("alert").last).to_be_visible(timeout=FINISH)
    expect(page.get_by_role("region", name="Teachers").get_by_role("row").last).to_be_visible()
    assert visitor.refused == []


def test_workers_are_shown_with_what_they_do(visitor: Visitor, registered: dict[str, Any]) -> None:
    page = visitor.go("/service")
    expect(page.get_by_role("region", name="Workers")).to_contain_text("compress")
    expect(page.get_by_role("region", name="Queues").get_by_role("row")).to_have_count(4)
