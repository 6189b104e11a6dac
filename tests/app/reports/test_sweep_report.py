"""The report of a sweep: its points, its plots, what has no answer, against numbers worked out by hand."""

import csv
import io
import json
import re
import statistics
from typing import Any
from xml.etree import ElementTree

import pytest

from app import jobs
from app.analysis.statistics import spread
from app.db import transaction
from app.errors import Problem
from app.reports import sweep_plots
from tests.app.conftest import Service
from tests.app.reports import examples
from tests.app.reports.pages import Page
from tests.app.reports.test_job_report import HOSTILE

STEP = {"method": "distill", "student": "student_net", "epochs": 2}
ACCURACIES = {0: (60, 64), 0.4: (70, 71), 0.8: (80, 83)}
"""alpha -> of the two seeds, how many of 100 test images are right."""


def post(service: Service, **spec: Any) -> str:
    job = {"teachers": [service.teacher()], "dataset": service.dataset(), "steps": [STEP]}
    answer = service.client.post("/v1/sweeps", json={"job": job, **spec})
    assert answer.status_code == 202, answer.text
    ident: str = answer.json()["id"]
    return ident


def children(service: Service, sweep_id: str) -> list[dict[str, Any]]:
    """In the order of the grid, seeds innermost."""
    items = service.client.get(f"/v1/sweeps/{sweep_id}/table").json()["rows"]
    return sorted(items, key=lambda row: (row["point"], row["seed"]))


def finish(service: Service, job_id: str, result: dict[str, Any] | Problem) -> None:
    claim = service.worker.claim(job_id)
    with transaction() as session:
        if isinstance(result, Problem):
            jobs.fail(session, claim, result)
        else:
            jobs.finish(session, claim, result, [service.worker.artifact(b"student")])


@pytest.fixture
def alpha(sqlite_service: Service) -> str:
    """Three points of two seeds, all ended."""
    axes = [{"field": "/steps/0/alpha", "values": list(ACCURACIES)}]
    sweep_id = post(sqlite_service, name="alpha", axes=axes, seeds=2, baseline={"alpha": 0})
    rows = children(sqlite_service, sweep_id)
    wanted = [right for pair in ACCURACIES.values() for right in pair]
    for position, (row, right) in enumerate(zip(rows, wanted, strict=True)):
        finish(sqlite_service, row["job_id"], examples.answer(right, 1000 + 100 * (position // 2)))
    return sweep_id


def page_of(service: Service, sweep_id: str) -> Page:
    answer = service.client.get(f"/v1/sweeps/{sweep_id}/report")
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_every_point_has_its_mean_and_its_difference(sqlite_service: Service, alpha: str) -> None:
    """Means and differences by hand; the interval of two values is mean ± 12.706 · std / sqrt(2)."""
    table = page_of(sqlite_service, alpha).table("Each point")
    assert [row[0] for row in table.rows] == ["alpha=0", "alpha=0.4", "alpha=0.8"]
    assert table.column("test accuracy, mean") == ["62.00", "70.50", "81.50"]
    assert table.column("difference") == ["baseline", "+8.50", "+19.50"]
    half = 12.7062047 * statistics.stdev([60, 64]) / 2**0.5
    assert table.rows[0][3] == f"{62 - half:.2f} to {62 + half:.2f}"
    assert table.column("size") == ["1,000", "1,100", "1,200"]


def test_the_verdict_is_the_summarys(sqlite_service: Service, alpha: str) -> None:
    verdict = sqlite_service.client.get(f"/v1/sweeps/{alpha}/summary").json()["verdict"]
    assert verdict in page_of(sqlite_service, alpha).text


def test_the_plots_are_drawn_from_the_same_numbers(sqlite_service: Service, alpha: str) -> None:
    items = {
        item["name"]: item for item in sqlite_service.client.get(f"/v1/sweeps/{alpha}/plots").json()["items"]
    }
    assert set(items) == {"metric", "differences", "pareto"}
    rows = list(csv.DictReader(io.StringIO(sqlite_service.client.get(items["metric"]["links"]["csv"]).text)))
    assert [(float(row["alpha"]), float(row["test_accuracy_mean"])) for row in rows] == [
        (0, pytest.approx(0.62)),
        (0.4, pytest.approx(0.705)),
        (0.8, pytest.approx(0.815)),
    ]
    assert "62.00 % at 0, 81.50 % at 0.8, the best 81.50 % at 0.8" in items["metric"]["alt"]
    for item in items.values():
        root = ElementTree.fromstring(sqlite_service.client.get(item["links"]["svg"]).content)
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert item["title"] in texts


def test_the_front_is_the_apis(sqlite_service: Service, alpha: str) -> None:
    table = page_of(sqlite_service, alpha).table("The front")
    items = sqlite_service.client.get(f"/v1/sweeps/{alpha}/pareto").json()["items"]
    assert [row[0] for row in table.rows] == [item["name"] for item in items if item["on_front"]]


def test_other_axes_become_lines(sqlite_service: Service) -> None:
    """One along alpha for each temperature; a zipped field makes none of its own."""
    axes = [
        {"field": "/steps/0/temperature", "values": [2, 4]},
        {
            "zip": [
                {"field": "/steps/0/alpha", "values": [0, 0.5, 1]},
                {"field": "/steps/0/epochs", "values": [1, 2, 3]},
            ]
        },
    ]
    sweep_id = post(sqlite_service, axes=axes)
    for position, row in enumerate(children(sqlite_service, sweep_id)):
        finish(sqlite_service, row["job_id"], examples.answer(50 + position))
    (item,) = (
        item
        for item in sqlite_service.client.get(f"/v1/sweeps/{sweep_id}/plots").json()["items"]
        if item["name"] == "metric"
    )
    assert "along alpha" in item["title"]
    assert "temperature=2: 50.00 % at 0, 52.00 % at 1" in item["alt"]
    assert "temperature=4: 53.00 % at 0, 55.00 % at 1" in item["alt"]
    rows = list(csv.DictReader(io.StringIO(sqlite_service.client.get(item["links"]["csv"]).text)))
    assert [row["axis_epochs"] for row in rows] == ["1", "2", "3"] * 2


def test_categories_are_rows(sqlite_service: Service) -> None:
    """A hostile name of a point is text on the page and in the plot."""
    points = [
        {"name": HOSTILE[:80], "set": {"/steps/0/alpha": 0.5}},
        {"name": "$plain$", "set": {"/steps/0/alpha": 0.7}},
    ]
    sweep_id = post(sqlite_service, name=HOSTILE[:200], axes=[{"name": "plan", "points": points}])
    for row, right in zip(children(sqlite_service, sweep_id), (70, 60), strict=True):
        finish(sqlite_service, row["job_id"], examples.answer(right))
    source = sqlite_service.client.get(f"/v1/sweeps/{sweep_id}/report").text
    page = Page(source)
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert "\u202e" not in source
    svg = sqlite_service.client.get(f"/v1/sweeps/{sweep_id}/plots/metric.svg").content
    texts = [
        element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "$plain$" in texts, "the only axis stands in the title, not at every row"
    assert "Test accuracy by plan" in texts
    markdown = sqlite_service.client.get(f"/v1/sweeps/{sweep_id}/report?format=md").text
    assert "<script" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)


def test_an_interval_is_drawn_as_far_as_a_share_goes() -> None:
    """Two seeds have one of Student's t that ends beyond 100 %; the table says it, the plot has no room for it."""
    found = spread([0.7, 0.99])
    assert found is not None
    assert found.high is not None
    assert found.high > 1
    assert sweep_plots._interval(found, (0.0, 1.0)) == (0.0, 1.0)
    assert sweep_plots._interval(found, None) == (found.low, found.high)


def test_what_has_no_answer_is_there_with_its_reason(sqlite_service: Service) -> None:
    """Infeasible, failed and unfinished are told apart, and none is left out."""
    axes = [{"field": "/steps/0/alpha", "values": [0, 0.2, 0.4, 0.6]}]
    sweep_id = post(sqlite_service, axes=axes)
    rows = children(sqlite_service, sweep_id)
    finish(sqlite_service, rows[0]["job_id"], examples.answer(70))
    finish(
        sqlite_service,
        rows[1]["job_id"],
        Problem(422, "BUDGET_TOO_SMALL", "The smallest file has 500 bytes."),
    )
    finish(sqlite_service, rows[2]["job_id"], Problem(422, "TRAINING_DIVERGED", "It diverged."))
    page = page_of(sqlite_service, sweep_id)
    assert page.table("Infeasible").rows == [
        ["alpha=0.2", "0", rows[1]["job_id"], "BUDGET_TOO_SMALL", "The smallest file has 500 bytes."]
    ]
    assert page.table("Failed").rows[0][3:] == ["TRAINING_DIVERGED", "It diverged."]
    assert page.table("Not ended").rows[0][:3] == ["alpha=0.6", "0", rows[3]["job_id"]]
    assert [row[0] for row in page.table("Each point").rows] == ["alpha=0"]


def test_prune_sweeps_show_both_curves(sqlite_service: Service) -> None:
    """Parameters against val accuracy, before and after training, as the iterations have them."""
    sweep_id = post(sqlite_service, axes=[{"field": "/steps/0/alpha", "values": [0.1, 0.2]}])
    for row in children(sqlite_service, sweep_id):
        result = examples.answer(70)
        result["stages"][1] |= {"method": "prune", "details": examples.pruning()}
        finish(sqlite_service, row["job_id"], result)
    text = sqlite_service.client.get(f"/v1/sweeps/{sweep_id}/plots/pruning.csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == ["alpha=0.1"] * 4 + ["alpha=0.2"] * 4
    assert [float(row["parameters"]) for row in rows[:4]] == [1000, 900, 800, 700]
    assert [float(row["accuracy_after"]) for row in rows[:4]] == pytest.approx([0.8, 0.78, 0.76, 0.74])
    assert [float(row["accuracy_before"]) for row in rows[1:4]] == pytest.approx([0.7, 0.6, 0.5])


def test_the_command_posts_the_same_sweep(sqlite_service: Service, alpha: str) -> None:
    page = page_of(sqlite_service, alpha)
    body = json.loads(page.text.split("<<'JSON'\n")[1].split("\nJSON")[0])
    again = sqlite_service.client.post("/v1/sweeps", json=body)
    assert again.status_code == 202, again.text
    was = sqlite_service.client.get(f"/v1/sweeps/{alpha}").json()
    assert {**again.json()["spec"], "job": None} == {**was["spec"], "job": None}
    table = [
        sqlite_service.client.get(f"/v1/sweeps/{ident}/table").json()["rows"]
        for ident in (alpha, again.json()["id"])
    ]
    assert [(row["point"], row["alpha"], row["seed"]) for row in table[0]] == [
        (row["point"], row["alpha"], row["seed"]) for row in table[1]
    ]


def test_a_sweep_that_has_not_begun_has_a_report(service: Service) -> None:
    """On both databases."""
    sweep_id = post(service, axes=[{"field": "/steps/0/alpha", "values": [0, 1]}])
    page = page_of(service, sweep_id)
    assert page.tags("svg") == []
    assert len(page.table("Not ended").rows) == 2
    assert "No significant winner" in page.text


def test_a_sweeps_report_is_nobody_elses(sqlite_service: Service) -> None:
    """Nor is it served to another because it was drawn for its owner."""
    owner = sqlite_service.as_tenant("owner")
    sweep_id = post(owner, axes=[{"field": "/steps/0/alpha", "values": [0, 1]}])
    for row in children(owner, sweep_id):
        finish(owner, row["job_id"], examples.answer(70))
    other = sqlite_service.as_tenant("other")
    for path in ("report", "plots", "plots/metric.svg"):
        assert owner.client.get(f"/v1/sweeps/{sweep_id}/{path}").status_code == 200
        assert other.client.get(f"/v1/sweeps/{sweep_id}/{path}").status_code == 404
