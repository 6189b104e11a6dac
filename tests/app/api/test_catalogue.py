"""What can be asked for, who works, and the two programs."""

import sys
from pathlib import Path

import pytest

from app.db import transaction
from app.errors import Problem
from app.scheduling import workers
from app.spec.steps import STEPS
from tests.app.conftest import CATALOGUE, Service


def test_architectures_are_listed(sqlite_service: Service) -> None:
    """All of them, as the catalogue has them."""
    assert sqlite_service.client.get("/v1/architectures").json()["items"] == CATALOGUE


def test_a_layer_table_is_made_once(service: Service) -> None:
    """A worker builds the network; the same question again needs none."""
    asked = []

    def build(spec: dict[str, object]) -> dict[str, object]:
        asked.append(spec)
        return {"layers": [{"name": "fc"}], "parameters": 7, "macs": 9}

    service.worker.answers["architecture"] = build
    path = "/v1/architectures/student_net?num_classes=5&option.width_mult=0.5"
    answer = service.client.get(path)
    assert answer.status_code == 200
    assert answer.json()["table"] == {"layers": [{"name": "fc"}], "parameters": 7, "macs": 9}
    assert answer.json()["query"] == {
        "architecture": "student_net",
        "options": {"width_mult": 0.5},
        "num_classes": 5,
        "image_size": 64,
    }
    assert service.client.get(path).json() == answer.json()
    assert asked == [{"inspect": "architecture", **answer.json()["query"]}]
    service.client.get("/v1/architectures/student_net?num_classes=6")
    assert len(asked) == 2


def test_a_name_with_a_slash(sqlite_service: Service) -> None:
    """As in report/final."""
    sqlite_service.worker.answers["architecture"] = lambda spec: {
        "layers": [],
        "parameters": 120_859,
        "macs": 1,
    }
    answer = sqlite_service.client.get("/v1/architectures/report/final")
    assert answer.json()["table"]["parameters"] == 120_859


def test_nobody_there_is_202(sqlite_service: Service) -> None:
    """With Retry-After and no table; the inspection stays queued for whoever comes."""
    answer = sqlite_service.client.get("/v1/architectures/report/final", headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.json()["table"], answer.headers["retry-after"]) == (202, None, "5")


def test_a_network_that_cannot_be_built_is_422(sqlite_service: Service) -> None:
    """With the worker's own reason; and asked again, it is tried again."""
    answers = [Problem(422, "CANNOT_BUILD", "No."), {"layers": [], "parameters": 1, "macs": 1}]
    sqlite_service.worker.answers["architecture"] = lambda spec: answers.pop(0)
    path = "/v1/architectures/report/final?image_size=16"
    assert sqlite_service.client.get(path).json()["code"] == "CANNOT_BUILD"
    assert sqlite_service.client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("reprot/final", 404, "Did you mean report/final?"),
        ("student_net?option.width_mult=9", 422, "option.width_mult"),
        ("student_net?option.width_mult=wide", 422, "of type number"),
        ("student_net?option.width_mult=nan", 422, "finite"),
        ("student_net?option.depth=9", 422, "No such option"),
        ("student_net?option.A!=9", 422, "option.NAME=VALUE"),
        ("student_net?image_size=0", 422, "image_size"),
        ("student_net?image_size=15", 422, "from 16 pixels on"),
    ],
)
def test_a_question_that_makes_no_sense(sqlite_service: Service, path: str, status: int, says: str) -> None:
    """Is answered without a worker."""
    answer = sqlite_service.client.get(f"/v1/architectures/{path}")
    assert answer.status_code == status
    assert says in answer.text


def test_steps_come_with_their_schemas(sqlite_service: Service) -> None:
    """One for every spec class there is."""
    steps = {step["name"]: step for step in sqlite_service.client.get("/v1/steps").json()["items"]}
    assert set(steps) == set(STEPS)
    assert steps["quantize"]["summary"] == (
        "Store each tensor in fewer bits; the network computes in fp32 with the values that were stored."
    )
    assert steps["distill"]["json_schema"]["properties"]["alpha"]["maximum"] == 1


def test_workers_and_queues(service: Service) -> None:
    """Who is there, how much waits and for how long."""
    with transaction() as session:
        workers.seen(session, "host:1", queues=["compress"], device="cpu")
    (worker,) = service.client.get("/v1/workers").json()["items"]
    assert (worker["id"], worker["queues"], worker["job_id"]) == ("host:1", ["compress"], None)
    service.job()
    service.worker.claim(service.job())
    queues = {queue["name"]: queue for queue in service.client.get("/v1/queues").json()["items"]}
    compress = queues["compress"]
    assert (compress["depth"], compress["running"], compress["workers"]) == (1, 1, 1)
    assert 0 <= compress["oldest_wait_seconds"] < 60
    assert (queues["inspect"]["depth"], queues["inspect"]["oldest_wait_seconds"]) == (0, None)


def test_the_two_programs_are_served_without_importing_them(
    sqlite_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python text with an ETag; nothing else of that folder is."""
    package = tmp_path / "site" / "models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "load_artifact.py").write_text("print('reader')\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(package.parent))
    answer = sqlite_service.client.get("/v1/tools/load_artifact.py")
    assert answer.text == "print('reader')\n"
    assert answer.headers["content-type"].startswith("text/x-python")
    etag = answer.headers["etag"]
    assert (
        sqlite_service.client.get("/v1/tools/load_artifact.py", headers={"If-None-Match": etag}).status_code
        == 304
    )
    assert sqlite_service.client.get("/v1/tools/trace_network.py").json()["code"] == "NOT_INSTALLED"
    assert sqlite_service.client.get("/v1/tools/__init__.py").status_code == 422
