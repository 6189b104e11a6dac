"""Teachers and data sets: registered, inspected, usable."""

import time

import pytest
from sqlalchemy import select

from app import jobs
from app.db import reading, transaction
from app.errors import Problem
from app.tables import Job
from tests.app.conftest import Service


def test_a_teacher_answers_when_it_was_inspected(service: Service) -> None:
    """201 with the layer table; the same by its id and in the list."""
    service.upload("t.pt", b"weights")
    answer = service.client.post("/v1/teachers", json={"file": "t.pt", "name": "mine"})
    assert answer.status_code == 201
    teacher = answer.json()
    assert answer.headers["location"] == f"/v1/teachers/{teacher['id']}"
    assert (teacher["state"], teacher["file_size_bytes"], teacher["artifact_sha256"]) == (
        "ready",
        7,
        "a" * 64,
    )
    assert teacher["report"]["layers"][0]["name"] == "conv1"
    assert service.client.get(answer.headers["location"]).json() == teacher
    assert service.client.get("/v1/teachers").json()["items"] == [teacher]


def test_a_rejected_teacher_is_422_and_stays_readable(service: Service) -> None:
    """With the inspection's own code; the problem names where the row is."""
    reason = Problem(400, "KEYS_DIFFER", "The checkpoint lacks fc.weight.", errors=[{"pointer": "/file"}])
    service.worker.answers["teacher"] = lambda spec: reason
    service.upload("t.pt")
    answer = service.client.post("/v1/teachers", json={"file": "t.pt"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "KEYS_DIFFER")
    assert problem["errors"] == [{"pointer": "/file"}]
    row = service.client.get(problem["instance"]).json()
    assert (row["state"], row["error"]["code"], row["report"]) == ("rejected", "KEYS_DIFFER", None)


def test_who_does_not_wait_gets_202_and_polls(sqlite_service: Service) -> None:
    """Prefer: respond-async, and a wait that is shorter than the inspection."""
    held = sqlite_service.worker.answers.pop("teacher")
    sqlite_service.upload("t.pt")
    began = time.monotonic()
    for prefer in ("respond-async", "wait=0", "wait=1"):
        answer = sqlite_service.client.post("/v1/teachers", json={"file": "t.pt"}, headers={"Prefer": prefer})
        assert (answer.status_code, answer.json()["state"]) == (202, "inspecting")
        assert answer.headers["retry-after"] == "2"
    assert 1 < time.monotonic() - began < 4
    sqlite_service.worker.answers["teacher"] = held
    give_up = time.monotonic() + 5
    while sqlite_service.client.get(answer.headers["location"]).json()["state"] == "inspecting":
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_an_inspection_that_died_rejects_its_teacher(service: Service) -> None:
    """The worker never spoke: the sweeper failed the job, so the row must not wait for ever."""
    del service.worker.answers["teacher"]
    service.upload("t.pt")
    headers = {"Prefer": "respond-async"}
    row = service.client.post("/v1/teachers", json={"file": "t.pt"}, headers=headers).json()
    job_id = row["links"]["inspection"].split("/")[-1]
    with transaction() as session:
        claim = jobs.claim(session, job_id, worker="doomed")
        assert claim is not None
        jobs.fail(session, claim, Problem(500, "WORKER_LOST", "It took its worker down.", retryable=True))
    found = service.client.get(row["links"]["self"]).json()
    assert (found["state"], found["error"]["code"]) == ("rejected", "WORKER_LOST")


@pytest.mark.parametrize(
    ("spec", "pointer", "hint"),
    [
        ({"file": "t.ptt"}, "/file", "Did you mean t.pt?"),
        (
            {"file": "t.pt", "architecture": "student_nett"},
            "/architecture/architecture",
            "Did you mean student_net?",
        ),
        (
            {"file": "t.pt", "architecture": {"architecture": "student_net", "options": {"width": 2}}},
            "/architecture/options/width",
            "Did you mean width_mult?",
        ),
        (
            {"file": "t.pt", "architecture": {"architecture": "student_net", "options": {"width_mult": 9}}},
            "/architecture/options/width_mult",
            "maximum 4.0",
        ),
    ],
)
def test_what_cannot_be_inspected_is_refused_at_once(
    sqlite_service: Service, spec: dict[str, object], pointer: str, hint: str
) -> None:
    """A misspelt file or architecture needs no worker to be found."""
    sqlite_service.upload("t.pt")
    answer = sqlite_service.client.post("/v1/teachers", json=spec)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert hint in error["hint"]
    with reading() as session:
        assert session.scalar(select(Job.id)) is None


def test_a_folder_must_be_registered_by_the_operator(sqlite_service: Service) -> None:
    """No caller names a path of the server's."""
    answer = sqlite_service.client.post("/v1/datasets", json={"folder": "etc"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "UNKNOWN_FOLDER")


def test_the_images_of_a_data_set(service: Service) -> None:
    """JSON in pages, or all rows as CSV of path and class name."""
    path = f"/v1/datasets/{service.dataset()}/files"
    csv = service.client.get(f"{path}?split=test&format=csv")
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text == "path,label\ntest/0.jpg,cat\ntest/1.jpg,dog\ntest/2.jpg,cat\n"
    seen, token = [], None
    while True:
        page = service.client.get(
            path, params={"page_size": 4} | ({"page_token": token} if token else {})
        ).json()
        seen += [image["path"] for image in page["items"]]
        if (token := page["next_page_token"]) is None:
            break
    assert seen == [f"{split}/{n}.jpg" for split in ("test", "train") for n in range(3)]


def test_images_of_a_data_set_that_is_not_ready(sqlite_service: Service) -> None:
    """409, and the same request works later."""
    del sqlite_service.worker.answers["dataset"]
    sqlite_service.upload("p.zip")
    headers = {"Prefer": "respond-async"}
    row = sqlite_service.client.post("/v1/datasets", json={"file": "p.zip"}, headers=headers).json()
    answer = sqlite_service.client.get(row["links"]["files"])
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (409, "NOT_READY", True)


def test_what_a_job_needs_is_not_deleted(service: Service) -> None:
    """409 while the job is queued; afterwards 204, and the job still reads."""
    job_id = service.job()
    spec = service.client.get(f"/v1/jobs/{job_id}").json()["spec"]
    paths = [f"/v1/teachers/{spec['teachers'][0]}", f"/v1/datasets/{spec['dataset']}"]
    for path in paths:
        answer = service.client.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (409, "IN_USE")
        assert job_id in answer.json()["detail"]
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    for path in paths:
        assert service.client.delete(path).status_code == 204
        assert service.client.get(path).status_code == 404
    assert service.client.get(f"/v1/jobs/{job_id}").status_code == 200


def test_deleting_a_teacher_cancels_its_inspection(service: Service) -> None:
    """Nobody wants the answer any more."""
    del service.worker.answers["teacher"]
    service.upload("t.pt")
    headers = {"Prefer": "respond-async"}
    row = service.client.post("/v1/teachers", json={"file": "t.pt"}, headers=headers).json()
    assert service.client.delete(row["links"]["self"]).status_code == 204
    assert service.client.get(row["links"]["inspection"]).json()["state"] == "cancelled"
