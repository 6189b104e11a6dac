"""Tables, summaries, fronts and comparisons over HTTP."""

import csv
import io
import subprocess
import sys
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from app import jobs
from app.db import transaction
from app.errors import Problem
from tests.app.analysis.made import result, stage
from tests.app.conftest import Service

DISTILL = {"method": "distill", "student": "student_net", "epochs": 5}
ALPHAS = {"name": "alpha", "field": "/steps/0/alpha", "values": [0.0, 0.5, 1.0]}
# Of each alpha and seed; 1.0 is best, and clearly so.
ACCURACIES = {0.0: [0.50, 0.52, 0.51], 0.5: [0.60, 0.63, 0.61], 1.0: [0.70, 0.72, 0.70]}


def answered(accuracy: float, size_bytes: int) -> dict[str, Any]:
    """A result with one step, of this test accuracy."""
    made = stage(1, "distill", size_bytes=size_bytes)
    made["splits"]["test"]["accuracy"] = accuracy
    return result(made)


def sweep(service: Service, **changes: Any) -> str:
    job = {"teachers": [service.teacher()], "dataset": service.dataset(), "steps": [DISTILL]}
    answer = service.client.post("/v1/sweeps", json={"job": job, "axes": [ALPHAS], "seeds": 3} | changes)
    assert answer.status_code == 202, answer.text
    ident: str = answer.json()["id"]
    return ident


def end(service: Service, job_id: str, outcome: dict[str, Any] | Problem) -> None:
    claim = service.worker.claim(job_id)
    with transaction() as session:
        if isinstance(outcome, Problem):
            jobs.fail(session, claim, outcome)
        else:
            jobs.finish(session, claim, outcome)


def end_all(service: Service, sweep_id: str) -> None:
    """Every job with its accuracy; the larger alpha, the larger the file."""
    for job in rows(service, sweep_id):
        accuracy = ACCURACIES[job["alpha"]][job["seed"]]
        end(service, job["job_id"], answered(accuracy, int(1000 + 1000 * job["alpha"])))


def get(service: Service, path: str, **parameters: Any) -> Any:
    answer = service.client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(service: Service, sweep_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(service, f"/v1/sweeps/{sweep_id}/table")["rows"]
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_table_fills_while_the_sweep_runs(service: Service) -> None:
    """A row for every job from the beginning, in the order of the grid; then its numbers."""
    sweep_id = sweep(service)
    waiting = rows(service, sweep_id)
    assert [(row["alpha"], row["seed"]) for row in waiting] == [(a, s) for a in ACCURACIES for s in range(3)]
    assert {row["state"] for row in waiting} == {"queued"}
    end(service, waiting[0]["job_id"], answered(0.5, 1000))
    end(service, waiting[1]["job_id"], Problem(422, "TARGET_UNREACHABLE", "Too small."))
    end(service, waiting[2]["job_id"], Problem(422, "DIVERGED", "The loss became nan."))
    found = rows(service, sweep_id)
    assert [(row["state"], row["code"]) for row in found[:4]] == [
        ("succeeded", None),
        ("infeasible", "TARGET_UNREACHABLE"),
        ("failed", "DIVERGED"),
        ("queued", None),
    ]
    assert [row["test_accuracy"] for row in found[:2]] == [0.5, None]


def test_the_table_says_what_its_columns_are(service: Service) -> None:
    sweep_id = sweep(service)
    end_all(service, sweep_id)
    table = get(service, f"/v1/sweeps/{sweep_id}/table")
    assert (table["sweep_id"], table["kind"]) == (sweep_id, "answers")
    assert table["axes"] == [{"name": "alpha", "column": "alpha"}]
    assert [column["name"] for column in table["columns"]] == list(table["rows"][0])
    units = {column["name"]: (column["unit"], column["better"]) for column in table["columns"]}
    assert units["size_bytes"] == ("byte", "lower")
    assert table["shared"] == {"teacher": True, "splits": True, "version": True}
    assert table["warnings"] == []
    assert table["digests"]["teacher"] == [["a" * 64]], "bytes, not ids"
    stages = get(service, f"/v1/sweeps/{sweep_id}/table", rows="stages")["rows"]
    assert [row["step"] for row in stages] == [0, 1] * 9
    iterations = get(service, f"/v1/sweeps/{sweep_id}/table", rows="iterations")
    assert iterations["columns"][-1]["name"] == "accuracy_after"


def test_the_formats_have_the_same_table(sqlite_service: Service) -> None:
    """By parameter, and by Accept; the parameter goes first."""
    sweep_id = sweep(sqlite_service)
    end_all(sqlite_service, sweep_id)
    path = f"/v1/sweeps/{sweep_id}/table"
    expected = rows(sqlite_service, sweep_id)
    for asked, headers in (("?format=csv", {}), ("", {"Accept": "text/csv, */*;q=0.1"})):
        answer = sqlite_service.client.get(path + asked, headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        assert f'filename="{sweep_id}-answers.csv"' in answer.headers["content-disposition"]
        found = list(csv.DictReader(io.StringIO(answer.text)))
        assert [float(row["test_accuracy"]) for row in found] == [row["test_accuracy"] for row in expected]
        assert list(found[0]) == list(expected[0])
    accept = {"Accept": "application/vnd.apache.parquet"}
    for asked, headers in (("?format=parquet", {"Accept": "text/csv"}), ("", accept)):
        answer = sqlite_service.client.get(path + asked, headers=headers)
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert pyarrow.parquet.read_table(io.BytesIO(answer.content)).to_pylist() == expected
    assert sqlite_service.client.get(path, headers={"Accept": "*/*"}).json()["rows"] == expected


def test_a_summary_names_the_winner(service: Service) -> None:
    """And compares with the first point, or the one that is asked for."""
    sweep_id = sweep(service)
    end_all(service, sweep_id)
    path = f"/v1/sweeps/{sweep_id}/summary"
    summary = get(service, path)
    assert (summary["metric"], summary["baseline"], summary["better"]) == ("test_accuracy", 0, "higher")
    assert summary["winner"] == {"point": 2, "name": "alpha=1.0", "params": {"alpha": 1.0}}
    assert summary["verdict"].startswith("alpha=1.0 has the best test_accuracy")
    best = summary["points"][2]
    assert best["metrics"]["test_accuracy"]["n"] == 3
    assert best["differences"]["test_accuracy"]["mean"] == pytest.approx(0.2, abs=0.01)
    assert summary["trends"][0]["rho"] > 0.9
    assert summary["shared"]["splits"] is True
    other = get(service, path, baseline=2, metric="size_bytes")
    assert (other["metric"], other["baseline"], other["better"]) == ("size_bytes", 2, "lower")
    assert other["points"][0]["differences"]["size_bytes"]["mean"] == -1000
    assert code(service.client.get(path, params={"baseline": 3})) == (422, "UNKNOWN_BASELINE")
    assert code(service.client.get(path, params={"metric": "accuracy"})) == (422, "UNKNOWN_COLUMN")


def test_a_sweep_may_say_its_baseline_and_metric(sqlite_service: Service) -> None:
    sweep_id = sweep(sqlite_service, baseline={"alpha": 0.5}, metric="val_accuracy")
    summary = get(sqlite_service, f"/v1/sweeps/{sweep_id}/summary")
    assert (summary["metric"], summary["baseline"], summary["winner"]) == ("val_accuracy", 1, None)
    assert "nothing has ended" in summary["verdict"]


def test_a_front_is_told_with_all_that_it_beats(sqlite_service: Service) -> None:
    """Means of the points, or every answer; the larger file is the better one here, so all points are on it."""
    sweep_id = sweep(sqlite_service)
    end_all(sqlite_service, sweep_id)
    path = f"/v1/sweeps/{sweep_id}/pareto"
    front = get(sqlite_service, path)
    assert (front["x"]["name"], front["y"]["name"], front["over"]) == (
        "size_bytes",
        "test_accuracy",
        "points",
    )
    assert [(item["point"], item["x"], item["on_front"]) for item in front["items"]] == [
        (0, 1000, True),
        (1, 1500, True),
        (2, 2000, True),
    ]
    assert front["items"][0]["y"] == pytest.approx(0.51)
    assert (front["items"][0]["n"], front["items"][0]["job_id"], front["left_out"]) == (3, None, 0)
    singles = get(sqlite_service, path, over="rows", x="size_bytes", y="test_accuracy")["items"]
    assert [item["y"] for item in singles if item["on_front"]] == [0.52, 0.63, 0.72]
    assert len(singles) == 9
    assert all(item["job_id"] for item in singles)
    equal = get(sqlite_service, path, x="macs", y="val_accuracy")["items"]
    assert all(item["on_front"] for item in equal), "equals stand together"
    refused = sqlite_service.client.get(path, params={"x": "bytes"})
    assert code(refused) == (422, "UNKNOWN_COLUMN")
    assert "size_bytes" in refused.json()["detail"]


def test_what_lacks_a_number_is_counted(sqlite_service: Service) -> None:
    sweep_id = sweep(sqlite_service)
    for position, job in enumerate(rows(sqlite_service, sweep_id)):
        answer = answered(0.5 + position / 20, 1000)
        if job["alpha"] == 0:
            answer["stages"][1]["latency_ms"] = None
        end(sqlite_service, job["job_id"], answer)
    front = get(sqlite_service, f"/v1/sweeps/{sweep_id}/pareto", x="latency_ms")
    assert (front["left_out"], len(front["items"])) == (1, 2)


def test_without_a_test_split_val_counts(sqlite_service: Service) -> None:
    sqlite_service.worker.know(names=["cat", "dog"], splits=("train", "val"))
    sweep_id = sweep(sqlite_service)
    for job in rows(sqlite_service, sweep_id):
        answer = answered(0.5, 1000)
        del answer["stages"][1]["splits"]["test"]
        end(sqlite_service, job["job_id"], answer)
    assert get(sqlite_service, f"/v1/sweeps/{sweep_id}/summary")["metric"] == "val_accuracy"
    assert get(sqlite_service, f"/v1/sweeps/{sweep_id}/pareto")["y"]["name"] == "val_accuracy"


# ---- any jobs


def two_jobs(service: Service) -> list[str]:
    made = [service.job(name="small"), service.job()]
    for job_id, accuracy in zip(made, (0.6, 0.7), strict=True):
        end(service, job_id, answered(accuracy, 1000))
    return made


def test_any_jobs_are_compared(service: Service) -> None:
    """In the order asked; a warning says what they do not share; one seed each has no winner."""
    first, second = two_jobs(service)
    found = get(service, "/v1/compare", job=[second, first])
    assert [(row["job_id"], row["job"], row["test_accuracy"]) for row in found["rows"]] == [
        (second, second, 0.7),
        (first, "small", 0.6),
    ]
    assert found["sweep_id"] is None
    assert found["summary"]["baseline"] == 0
    assert found["summary"]["winner"] is None
    assert "one seed in common" in found["summary"]["verdict"]
    assert found["summary"]["points"][0]["against_teacher"]["test"]["num_images"] == 100
    text = service.client.get("/v1/compare", params={"job": [first, second], "format": "csv"}).text
    assert text.splitlines()[1].startswith(f"{first},0,small,0,succeeded,")


def test_jobs_on_other_images_are_compared_with_a_warning(sqlite_service: Service) -> None:
    first = two_jobs(sqlite_service)[0]
    other = sqlite_service.job()
    answer = answered(0.9, 1000)
    answer["splits"]["test"]["digest"] = "9" * 64
    end(sqlite_service, other, answer)
    found = get(sqlite_service, "/v1/compare", job=[first, other])
    assert found["shared"]["splits"] is False
    assert "Not the same test images" in found["warnings"][0]


def test_a_job_of_several_seeds_has_an_interval(sqlite_service: Service) -> None:
    seeds = [{"seed": n, "stages": answered(0.5 + n / 10, 1000)["stages"][1:]} for n in range(3)]
    several, single = sqlite_service.job(seeds=3), two_jobs(sqlite_service)[0]
    end(sqlite_service, several, answered(0.7, 1000) | {"seeds": seeds})
    found = get(sqlite_service, "/v1/compare", job=[several, single])
    assert [(row["seed"], row["test_accuracy"]) for row in found["rows"][:3]] == [
        (0, 0.5),
        (1, 0.6),
        (2, 0.7),
    ]
    assert found["summary"]["points"][0]["metrics"]["test_accuracy"]["n"] == 3


def test_what_cannot_be_compared_is_refused(sqlite_service: Service) -> None:
    client = sqlite_service.client
    first, second = two_jobs(sqlite_service)
    assert code(client.get("/v1/compare", params={"job": [first, "job_0"]})) == (404, "NOT_FOUND")
    assert client.get("/v1/compare", params={"job": [first]}).status_code == 422
    assert client.get("/v1/compare").status_code == 422
    assert client.get("/v1/compare", params={"job": [first] * 201}).status_code == 422
    assert code(client.get("/v1/compare", params={"job": [first, first]})) == (422, "INVALID_PARAMETER")
    assert client.get("/v1/compare", params={"job": [first, "ins_1"]}).status_code == 422
    twice = client.get(f"/v1/compare?job={first}&job={second}&rows=stages&rows=answers")
    assert code(twice) == (422, "INVALID_PARAMETER"), "what is no list is still given once"


def test_another_tenants_jobs_and_sweeps_are_not_there(service: Service) -> None:
    owner, stranger = service.as_tenant("owner"), service.as_tenant("stranger")
    mine, theirs = two_jobs(stranger)[0], two_jobs(owner)[0]
    sweep_id = sweep(owner)
    assert code(stranger.client.get("/v1/compare", params={"job": [mine, theirs]})) == (404, "NOT_FOUND")
    for part in ("table", "summary", "pareto"):
        assert code(stranger.client.get(f"/v1/sweeps/{sweep_id}/{part}")) == (404, "NOT_FOUND")


def test_the_api_starts_without_heavy_libraries() -> None:
    """They are loaded by the first question that needs them."""
    heavy = {"scipy", "numpy", "pyarrow", "matplotlib"}
    program = f"import sys, app.main; print(sorted({heavy} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
