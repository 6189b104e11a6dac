"""Jobs over HTTP: submit, replay, look, wait, cancel, try again."""

import threading
import time

import pytest

from app import jobs
from app.db import reading, transaction
from app.errors import Problem
from app.scheduling import workers
from app.tables import Job
from tests.app.conftest import Service


def test_a_job_is_accepted_and_seen_to_its_end(service: Service) -> None:
    """202 with its place; then running with its attempt; then succeeded with its result."""
    answer = service.client.post("/v1/jobs", json=service.job_spec(name="first", labels={"team": "a"}))
    assert answer.status_code == 202
    job = answer.json()
    path = answer.headers["location"]
    assert path == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (answer.headers["retry-after"], job["state"], job["queue"]["position"]) == ("2", "queued", 1)
    assert job["created_at"].endswith("Z")

    claim = service.worker.claim(job["id"])
    with transaction() as session:
        jobs.record(session, claim, phase="training", progress={"fraction": 0.5, "unit": "epoch"})
    job = service.client.get(path).json()
    assert (job["state"], job["phase"], job["queue"]) == ("running", "training", None)
    assert job["progress"]["fraction"] == 0.5
    assert [(a["n"], a["worker"], a["outcome"]) for a in job["attempts"]] == [(1, "fake:1", None)]

    with transaction() as session:
        jobs.finish(session, claim, {"metrics": {"accuracy": 0.9}})
    answer = service.client.get(path)
    assert "retry-after" not in answer.headers
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["result"] == {"metrics": {"accuracy": 0.9}}
    assert answer.json()["attempts"][0]["outcome"] == "succeeded"


def test_a_failed_job_has_a_problem_as_its_error(service: Service) -> None:
    """The same object that an HTTP error would be."""
    job_id = service.job()
    claim = service.worker.claim(job_id)
    with transaction() as session:
        jobs.fail(session, claim, Problem(422, "TEACHER_UNFIT", "It guesses."))
    error = service.client.get(f"/v1/jobs/{job_id}").json()["error"]
    assert (error["code"], error["status"], error["detail"]) == ("TEACHER_UNFIT", 422, "It guesses.")


def test_the_same_idempotency_key_is_the_same_job(service: Service) -> None:
    """A replay is 202 with a header that says so, even after a teacher is gone; another body is refused."""
    spec = service.job_spec()
    headers = {"Idempotency-Key": "k-1"}
    first = service.client.post("/v1/jobs", json=spec, headers=headers)
    again = service.client.post("/v1/jobs", json=spec, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = service.client.post("/v1/jobs", json=spec | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    service.client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    service.client.delete(f"/v1/teachers/{spec['teachers'][0]}")
    late = service.client.post("/v1/jobs", json=spec, headers=headers)
    assert (late.status_code, late.json()["id"]) == (202, first.json()["id"])


def test_one_key_sent_at_once_by_many_makes_one_job(service: Service) -> None:
    """Concurrent duplicates find each other."""
    spec = service.job_spec()
    ids: list[str] = []

    def post() -> None:
        ids.append(service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()["id"])

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_the_etag_is_the_version(service: Service) -> None:
    """304 while nothing changed; a new place in the queue is a change too."""
    first, second = service.job(), service.job()
    path = f"/v1/jobs/{second}"
    etag = service.client.get(path).headers["etag"]
    unchanged = service.client.get(path, headers={"If-None-Match": f'W/"x", {etag}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == etag
    service.worker.claim(first)
    moved = service.client.get(path, headers={"If-None-Match": etag})
    assert (moved.status_code, moved.json()["queue"]["position"]) == (200, 1)


def test_a_long_poll_answers_when_the_job_changes(service: Service) -> None:
    """Not before, and not much later; without a change it answers at its end."""
    job_id = service.job()
    etag = service.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    began = time.monotonic()
    idle = service.client.get(f"/v1/jobs/{job_id}?wait=0.3", headers={"If-None-Match": etag})
    assert idle.status_code == 304
    assert 0.3 <= time.monotonic() - began < 2
    timer = threading.Timer(0.3, lambda: service.worker.claim(job_id))
    timer.start()
    began = time.monotonic()
    answer = service.client.get(f"/v1/jobs/{job_id}?wait=20")
    timer.join()
    assert answer.json()["state"] == "running"
    assert 0.3 <= time.monotonic() - began < 5
    stale = service.client.get(f"/v1/jobs/{job_id}?wait=20", headers={"If-None-Match": etag})
    assert stale.status_code == 200
    assert time.monotonic() - began < 10


def test_submitting_can_wait_for_the_end(service: Service) -> None:
    """Prefer: wait=N on POST."""
    spec = service.job_spec()

    def finish() -> None:
        time.sleep(0.2)
        (job,) = service.client.get("/v1/jobs").json()["items"]
        service.worker.finish(job["id"])

    thread = threading.Thread(target=finish)
    thread.start()
    answer = service.client.post("/v1/jobs", json=spec, headers={"Prefer": "wait=10"})
    thread.join()
    assert (answer.status_code, answer.json()["state"]) == (202, "succeeded")


def test_jobs_are_filtered_and_paged(service: Service) -> None:
    """By state, by labels (all of them), by time; inspections are not among them."""
    spec = service.job_spec()
    ids = []
    for labels in ({"team": "a"}, {"team": "a", "run.no": "1"}, {"team": "b"}):
        ids.append(service.client.post("/v1/jobs", json=spec | {"labels": labels}).json()["id"])
    service.client.post(f"/v1/jobs/{ids[0]}/cancel")

    def listed(**params: str | int) -> list[str]:
        return [job["id"] for job in service.client.get("/v1/jobs", params=params).json()["items"]]

    assert listed() == ids[::-1]
    assert listed(state="cancelled") == ids[:1]
    assert listed(**{"label.team": "a"}) == [ids[1], ids[0]]
    assert listed(**{"label.team": "a", "label.run.no": "1"}) == [ids[1]]
    assert listed(**{"label.team": "c"}) == []
    second = service.client.get(f"/v1/jobs/{ids[1]}").json()["created_at"]
    assert ids[0] not in listed(created_after=second)
    assert listed(created_after="2100-01-01T00:00:00Z") == []
    first = service.client.get("/v1/jobs?page_size=2").json()
    assert [job["id"] for job in first["items"]] == [ids[2], ids[1]]
    assert listed(page_size=2, page_token=first["next_page_token"]) == [ids[0]]


def test_cancel_and_retry(service: Service) -> None:
    """A queued job is cancelled at once (200), a running one asked to stop (202), an ended one not (409)."""
    job_id = service.job()
    path = f"/v1/jobs/{job_id}"
    assert service.client.post(f"{path}/retry").json()["code"] == "JOB_NOT_RETRYABLE"
    answer = service.client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    again = service.client.post(f"{path}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "JOB_FINISHED")
    answer = service.client.post(f"{path}/retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["id"]) == (202, "queued", job_id)
    service.worker.claim(job_id)
    answer = service.client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert service.client.post("/v1/jobs/job_none/cancel").status_code == 404


def test_pause_and_resume(service: Service) -> None:
    """A queued job is held at once (200), a running one asked to stop (202), an ended one not (409). Twice is once."""
    job_id = service.job()
    path = f"/v1/jobs/{job_id}"
    held = service.client.post(f"{path}/pause")
    assert (held.status_code, held.json()["state"], held.json()["paused"]) == (200, "queued", True)
    assert (held.json()["queue"]["position"], held.json()["queue"]["reason"]) == (None, "paused")
    again = service.client.post(f"{path}/pause")
    assert (again.status_code, again.json()["version"]) == (200, held.json()["version"])
    assert [job["id"] for job in service.client.get("/v1/jobs?paused=true").json()["items"]] == [job_id]
    assert service.client.get("/v1/jobs?paused=false").json()["items"] == []
    resumed = service.client.post(f"{path}/resume")
    assert (resumed.status_code, resumed.json()["paused"]) == (200, False)
    assert resumed.headers["etag"] != held.headers["etag"]
    assert service.client.post(f"{path}/resume").json()["version"] == resumed.json()["version"]
    service.worker.claim(job_id)
    asked = service.client.post(f"{path}/pause")
    assert (asked.status_code, asked.json()["state"], asked.json()["queue"]) == (202, "running", None)
    assert service.client.post(f"{path}/cancel").json()["paused"] is False
    refused = service.client.post(f"{path}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "JOB_CANCELLING")
    types = [event["type"] for event in service.client.get(f"{path}/events").json()["items"]]
    assert [name for name in types if name != "state"] == ["paused", "resumed", "paused"]


def test_a_paused_job_is_cancelled_as_any(service: Service) -> None:
    path = f"/v1/jobs/{service.job()}"
    service.client.post(f"{path}/pause")
    cancelled = service.client.post(f"{path}/cancel").json()
    assert (cancelled["state"], cancelled["paused"]) == ("cancelled", False)
    for verb in ("pause", "resume"):
        refused = service.client.post(f"{path}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "JOB_FINISHED")
        assert service.client.post(f"/v1/jobs/job_none/{verb}").status_code == 404


def test_a_job_waits_where_its_device_is_with_what_it_is_expected_to_cost(service: Service) -> None:
    spec = service.job_spec(device="cuda", priority=3, memory_bytes=1 << 30, seeds=2)
    cost = service.client.post("/v1/jobs?validate_only=true", json=spec).json()["estimated_macs"]
    assert cost > 0
    one_seed = service.client.post("/v1/jobs?validate_only=true", json=spec | {"seeds": 1}).json()
    assert cost == pytest.approx(2 * one_seed["estimated_macs"])
    job_id = service.client.post("/v1/jobs", json=spec).json()["id"]
    with reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.queue, job.priority, job.memory_bytes) == ("gpu", 3, 1 << 30)
        assert job.estimated_macs == pytest.approx(cost)
    for wrong in ({"priority": 101}, {"priority": -101}, {"memory_bytes": 0}):
        assert service.client.post("/v1/jobs", json=spec | wrong).status_code == 422


def test_a_waiting_job_changes_with_its_place(service: Service) -> None:
    """What is asked with If-None-Match is answered anew when a worker comes, though the job itself is the same."""
    job_id = service.job()
    first = service.client.get(f"/v1/jobs/{job_id}")
    assert first.json()["queue"]["reason"] == "no_worker"
    same = service.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
    assert same.status_code == 304
    with transaction() as session:
        workers.seen(session, "host:1", queues=["compress"], device="cpu")
    then = service.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["etag"]})
    assert (then.status_code, then.json()["queue"]["reason"]) == (200, "next")
    assert then.json()["version"] == first.json()["version"]


def test_a_plan_is_the_job_with_everything_filled_in(service: Service) -> None:
    """validate_only stores nothing, and answers what would run."""
    steps = [
        {"method": "distill", "student": {"architecture": "student_net", "image_size": 64}, "epochs": 3},
        {"method": "quantize"},
    ]
    answer = service.client.post("/v1/jobs?validate_only=true", json=service.job_spec(steps=steps))
    assert answer.status_code == 200
    plan = answer.json()
    student = plan["spec"]["steps"][0]["student"]
    assert student["options"] == {"width_mult": 1.0}
    assert (student["preprocessing"]["resize"], student["preprocessing"]["crop"]) == (73, 64)
    assert plan["spec"]["steps"][0]["temperature"] == 4.0
    assert plan["teachers"][0]["parameters"] == 11_000_000
    assert plan["dataset"]["num_images"] == {"train": 4, "val": 4, "test": 4}
    distilled, quantized = plan["estimates"]
    assert (distilled["parameters"], distilled["weight_bytes"]) == (256_779, 256_779 * 4)
    assert (quantized["parameters"], quantized["weight_bytes"]) == (256_779, 256_779)
    assert plan["warnings"] == []
    assert service.client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "pointer", "code", "says"),
    [
        ({"teachers": ["tch_none"]}, "/teachers/0", "UNKNOWN_TEACHER", "no such teacher"),
        ({"dataset": "dst_none"}, "/dataset", "UNKNOWN_DATASET", "no such data set"),
        (
            {"steps": [{"method": "distill", "student": "reprot/final"}]},
            "/steps/0/student/architecture",
            "UNKNOWN_ARCHITECTURE",
            "Did you mean report/final?",
        ),
        (
            {
                "steps": [
                    {
                        "method": "distill",
                        "student": {"architecture": "student_net", "options": {"width_mult": True}},
                    }
                ]
            },
            "/steps/0/student/options/width_mult",
            "INVALID_OPTION",
            "type number",
        ),
        (
            {"steps": [{"method": "distill", "student": {"architecture": "student_net", "image_size": 8}}]},
            "/steps/0/student/image_size",
            "INVALID_IMAGE_SIZE",
            "from 16 pixels on",
        ),
        (
            {
                "steps": [
                    {
                        "method": "distill",
                        "student": {"architecture": "student_net", "preprocessing": {"crop": [32, 64]}},
                    }
                ]
            },
            "/steps/0/student/preprocessing",
            "NOT_SQUARE",
            "32x64",
        ),
        (
            {
                "steps": [
                    {
                        "method": "distill",
                        "student": "student_net",
                        "transfer_splits": ["train", "unlabeled"],
                    }
                ]
            },
            "/steps/0/transfer_splits/1",
            "UNKNOWN_SPLIT",
            "It has test, train, val.",
        ),
        (
            {"steps": [{"method": "distill", "student": "student_net", "loss": "dkd"}]},
            "/steps/0/loss",
            "CLASSES_UNSUITABLE",
            "of 2 classes there is only one: set loss to 'kd'",
        ),
    ],
)
def test_a_job_that_cannot_run_is_refused(
    sqlite_service: Service, changes: dict[str, object], pointer: str, code: str, says: str
) -> None:
    """At submit and by validate_only alike, with a pointer to what is wrong."""
    spec = sqlite_service.job_spec(**changes)
    for query in ("", "?validate_only=true"):
        answer = sqlite_service.client.post(f"/v1/jobs{query}", json=spec)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_SPEC")
        (error,) = answer.json()["errors"]
        assert (error["pointer"], error["code"]) == (pointer, code)
        assert says in error["detail"] + error["hint"]
    assert sqlite_service.client.get("/v1/jobs").json()["items"] == []


def test_teachers_must_know_the_classes_of_the_data(service: Service) -> None:
    """Each teacher is compared and the differences listed; another order of the same names is fine."""
    dataset = service.dataset()
    service.worker.know(names=["dog", "cat"])
    reordered = service.teacher()
    service.worker.know(names=["a", "b", "c"])
    three = service.teacher()
    service.worker.know(names=["cat", "fish"])
    fish = service.teacher()
    step = {"method": "distill", "student": "student_net"}
    body = {"teachers": [reordered, three, fish], "dataset": dataset, "steps": [step]}
    errors = service.client.post("/v1/jobs", json=body).json()["errors"]
    assert [error["pointer"] for error in errors] == ["/teachers/1", "/teachers/2"]
    assert errors[0]["detail"] == "This teacher has 3 outputs, the data set 2 classes."
    assert errors[1]["detail"] == (
        "The class names differ: only the teacher has 'fish'; only the data set has 'dog'."
    )


def test_the_numbers_of_a_flat_data_set_are_no_names(sqlite_service: Service) -> None:
    """`0_12.jpg` says class 0, not a name: a teacher with names fits it by number, as the worker matches it."""
    sqlite_service.worker.know(names=["0", "1"])
    dataset = sqlite_service.dataset()
    sqlite_service.worker.know(names=["bread", "soup"])
    teacher = sqlite_service.teacher()
    body = {
        "teachers": [teacher],
        "dataset": dataset,
        "steps": [{"method": "distill", "student": "student_net"}],
    }
    assert sqlite_service.client.post("/v1/jobs", json=body).status_code == 202


def test_a_data_set_must_allow_a_measurement(sqlite_service: Service) -> None:
    """Without val and test nothing could be said about the student."""
    sqlite_service.worker.know(names=["cat", "dog"], splits=("train",))
    answer = sqlite_service.client.post("/v1/jobs", json=sqlite_service.job_spec())
    assert [error["code"] for error in answer.json()["errors"]] == ["NO_EVALUATION_SPLIT"]


def test_a_teacher_under_inspection_is_not_ready(sqlite_service: Service) -> None:
    """The same job may be accepted later: retryable. A rejected one never."""
    spec = sqlite_service.job_spec()
    held = sqlite_service.worker.answers.pop("teacher")
    sqlite_service.upload("t.pt")
    headers = {"Prefer": "respond-async"}
    row = sqlite_service.client.post("/v1/teachers", json={"file": "t.pt"}, headers=headers).json()
    problem = sqlite_service.client.post("/v1/jobs", json=spec | {"teachers": [row["id"]]}).json()
    assert (problem["errors"][0]["code"], problem["retryable"]) == ("NOT_READY", True)
    sqlite_service.worker.answers["teacher"] = lambda spec: Problem(422, "NOT_FINITE", "NaN.")
    while sqlite_service.client.get(row["links"]["self"]).json()["state"] == "inspecting":
        time.sleep(0.02)
    problem = sqlite_service.client.post("/v1/jobs", json=spec | {"teachers": [row["id"]]}).json()
    assert (problem["errors"][0]["code"], problem["retryable"]) == ("TEACHER_REJECTED", False)
    assert held


def test_a_plan_warns(sqlite_service: Service) -> None:
    """Training on the test split, no val split, nameless classes: allowed, but said."""
    sqlite_service.worker.know(names=["cat", "dog"], splits=("train", "test"))
    steps = [{"method": "distill", "student": "student_net", "transfer_splits": ["train", "test"]}]
    answer = sqlite_service.client.post(
        "/v1/jobs?validate_only=true", json=sqlite_service.job_spec(steps=steps)
    )
    assert [warning.split(":")[0] for warning in answer.json()["warnings"]] == [
        "The data set has no val split",
        "steps[0] trains on test",
    ]


def test_an_ended_job_can_be_deleted_and_what_it_shared_stays(service: Service) -> None:
    """409 before its end, 404 afterwards; the answer of another job with the same bytes is still served."""
    spec = service.job_spec()
    first, second = (service.client.post("/v1/jobs", json=spec).json()["id"] for _ in range(2))
    early = service.client.delete(f"/v1/jobs/{first}")
    assert (early.status_code, early.json()["code"]) == (409, "JOB_NOT_FINISHED")
    service.worker.finish(first)
    service.worker.finish(second)
    (gone,) = service.client.get(f"/v1/jobs/{first}/artifacts").json()["items"]
    assert service.client.delete(f"/v1/jobs/{first}").status_code == 204
    for path in (f"/v1/jobs/{first}", f"/v1/jobs/{first}/events", f"/v1/artifacts/{gone['id']}"):
        assert service.client.get(path).status_code == 404, path
    assert service.client.delete(f"/v1/jobs/{first}").status_code == 404
    (kept,) = service.client.get(f"/v1/jobs/{second}/artifacts").json()["items"]
    assert service.client.get(f"/v1/artifacts/{kept['id']}/content").content == b"student"
    assert service.client.get("/v1/audit").json()["items"][0]["action"] == "job.delete"
