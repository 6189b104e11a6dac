"""Reports and plots over HTTP: formats, headers, what is not there, whose they are."""

import struct
from xml.etree import ElementTree

import pytest

from app import jobs
from app.db import transaction
from tests.app.conftest import Service
from tests.app.reports import examples
from tests.app.reports.conftest import ended


def test_a_report_comes_from_both_databases(service: Service) -> None:
    job_id = ended(service, examples.result(), examples.curves(1, 3), name="both")
    answer = service.client.get(f"/v1/jobs/{job_id}/report")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>both" in answer.text


def test_every_plot_that_is_listed_is_there(sqlite_service: Service, job_id: str) -> None:
    items = sqlite_service.client.get(f"/v1/jobs/{job_id}/plots").json()["items"]
    assert {"learning_curves", "accuracy_size", "confusion", "recall", "layers"} <= {
        item["name"] for item in items
    }
    for item in items:
        svg, png, table = (sqlite_service.client.get(item["links"][kind]) for kind in ("svg", "png", "csv"))
        assert svg.headers["content-type"] == "image/svg+xml"
        root = ElementTree.fromstring(svg.content)
        assert root.find("{http://www.w3.org/2000/svg}title").text == item["title"]
        assert png.content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", png.content[16:24])
        assert (width, height) == (2 * int(root.get("width")), 2 * int(root.get("height")))
        assert table.text.count("\n") > 1


def test_an_unchanged_report_is_not_sent_again(sqlite_service: Service) -> None:
    """The ETag is that of the job's version and the format; a change of the job changes it."""
    job_id = sqlite_service.job()
    path = f"/v1/jobs/{job_id}/report"
    first = sqlite_service.client.get(path)
    assert (
        sqlite_service.client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    )
    other = sqlite_service.client.get(f"{path}?format=md")
    assert other.headers["etag"] != first.headers["etag"]
    claim = sqlite_service.worker.claim(job_id)
    changed = sqlite_service.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    with transaction() as session:
        jobs.record(session, claim, phase="step 1 of 1: distill")
    assert "step 1 of 1: distill" in sqlite_service.client.get(path).text


@pytest.mark.parametrize("path", ["report", "plots", "plots/recall.svg"])
def test_an_unknown_job_has_none(sqlite_service: Service, path: str) -> None:
    assert sqlite_service.client.get(f"/v1/jobs/job_none/{path}").status_code == 404


def test_a_plot_that_is_not_there_names_those_that_are(sqlite_service: Service, job_id: str) -> None:
    answer = sqlite_service.client.get(f"/v1/jobs/{job_id}/plots/prune_iterations.svg")
    assert (answer.status_code, answer.json()["code"]) == (404, "NO_SUCH_PLOT")
    assert "learning_curves" in answer.json()["detail"]
    assert sqlite_service.client.get(f"/v1/jobs/{job_id}/plots/recall.gif").status_code == 422


def test_a_report_is_nobody_elses(sqlite_service: Service) -> None:
    """Neither drawn for another tenant, nor served to one because it was drawn for its owner."""
    owner = sqlite_service.as_tenant("owner")
    job_id = ended(owner, examples.result())
    other = sqlite_service.as_tenant("other")
    for path in ("report", "plots", "plots/recall.svg"):
        assert owner.client.get(f"/v1/jobs/{job_id}/{path}").status_code == 200
        assert other.client.get(f"/v1/jobs/{job_id}/{path}").status_code == 404


def test_an_inspection_has_a_report_too(sqlite_service: Service) -> None:
    teacher = sqlite_service.client.get(f"/v1/teachers/{sqlite_service.teacher()}").json()
    inspection = teacher["links"]["inspection"]
    answer = sqlite_service.client.get(f"{inspection}/report")
    assert answer.status_code == 200
    assert "succeeded" in answer.text
