"""The result of an earlier job is served again to one that would do the same, and to no other."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, select

from app import jobs, reuse
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.db import reading, transaction
from app.planning import plans
from app.spec.job import GATES, JobSpec
from app.tables import Artifact, Event, Job
from tests.app.conftest import Service

PAIR = {"test": {"num_images": 100, "num_only_teacher": 6, "num_only_network": 2}}


def finish(service: Service, job_id: str, *, content: bytes = b"student", receipt: str = "first") -> None:
    """As a worker does: two artifacts, and a result that names the job's teacher."""
    claim = service.worker.claim(job_id)
    teacher = claim.spec["teachers"][0]
    answer = {"size_bytes": 1000, "against_teacher": PAIR, "latency_ms": None}
    result = {
        "stages": [{"id": teacher, "teachers": [{"id": teacher}]}, answer],
        "warnings": [f"Teacher {teacher} was declared better."],
        "gates": [],
        "passed": None,
    }
    artifacts = [
        service.worker.artifact(b"of step 1", kind="stage", step=1),
        replace(service.worker.artifact(content, step=2), receipt={"is": receipt}),
    ]
    with transaction() as session:
        jobs.finish(session, claim, result, artifacts)


def post(service: Service, spec: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = service.client.post("/v1/jobs", json=spec, headers=headers)
    assert answer.status_code == 202, answer.text
    view: dict[str, Any] = answer.json()
    return view


def files(service: Service, job_id: str) -> list[tuple[Any, ...]]:
    items = service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    return [(item["step"], item["kind"], item["name"], item["sha256"]) for item in items]


def finished(service: Service) -> tuple[dict[str, Any], str]:
    """(spec, id) of a job that succeeded."""
    spec = service.job_spec()
    job_id: str = post(service, spec)["id"]
    finish(service, job_id)
    return spec, job_id


def test_the_same_job_again_has_succeeded_at_once(service: Service) -> None:
    """Under its own id, with artifacts of its own that are the same bytes; no worker saw it."""
    spec, done = finished(service)
    view = post(service, {**spec, "reuse_result": True, "name": "again", "max_bytes": 10**6})
    assert view["id"] != done
    assert (view["state"], view["attempts"], view["result"]["reused_from"]) == ("succeeded", [], done)
    assert view["result_key"] == service.client.get(f"/v1/jobs/{done}").json()["result_key"]
    assert view["finished_at"] is not None
    assert files(service, view["id"]) == files(service, done)
    assert service.client.get(f"/v1/jobs/{view['id']}/download").content == b"student"
    artifact = service.client.get(f"/v1/jobs/{view['id']}/artifacts").json()["items"][-1]
    assert service.client.get(artifact["links"]["receipt"]).json() == {"is": "first"}
    with reading() as session:
        events = session.execute(
            select(Event.seq, Event.type, Event.data).where(Event.job_id == view["id"])
        ).all()
        ids = set(session.scalars(select(Artifact.id)))
    assert len(ids) == 4
    assert [(event.seq, event.type, event.data.get("reason")) for event in events] == [
        (1, "state", "submitted"),
        (2, "artifact", None),
        (3, "artifact", None),
        (4, "state", "reused"),
    ]
    third = post(service, {**spec, "reuse_result": True})
    assert third["result"]["reused_from"] == done


def test_without_asking_a_job_runs(sqlite_service: Service) -> None:
    service = sqlite_service
    spec, _ = finished(service)
    assert post(service, spec)["state"] == "queued"


def test_the_gates_are_the_new_jobs_own(sqlite_service: Service) -> None:
    """Limits decide nothing about the network, so they may differ; each job is judged by its own."""
    service = sqlite_service
    spec, _ = finished(service)
    strict = post(service, {**spec, "reuse_result": True, "max_bytes": 900, "max_accuracy_drop": 0.04})
    assert (strict["state"], strict["passed"]) == ("succeeded", False)
    assert [(gate["gate"], gate["passed"]) for gate in strict["result"]["gates"]] == [
        ("max_bytes", False),
        ("max_accuracy_drop", True),
    ]
    assert len(strict["result"]["warnings"]) == 2
    generous = post(service, {**spec, "reuse_result": True, "max_bytes": 1100})
    assert (generous["passed"], len(generous["result"]["warnings"])) == (True, 1)
    ids = {True: [generous["id"]], False: [strict["id"]]}
    for passed, expected in ids.items():
        found = service.client.get("/v1/jobs", params={"passed": str(passed).lower()}).json()["items"]
        assert [(job["id"], job["passed"]) for job in found] == [(ident, passed) for ident in expected]
    assert len(service.client.get("/v1/jobs").json()["items"]) == 3


def test_the_same_bytes_under_other_names_are_the_same(sqlite_service: Service) -> None:
    """A teacher that was registered twice. The result speaks of the one that this job names."""
    service = sqlite_service
    spec, _ = finished(service)
    (old,) = spec["teachers"]
    new = service.teacher()
    view = post(service, {**spec, "teachers": [new], "reuse_result": True})
    assert view["state"] == "succeeded"
    assert old not in str(view["result"])
    assert view["result"]["stages"][0] == {"id": new, "teachers": [{"id": new}]}
    assert view["result"]["warnings"] == [f"Teacher {new} was declared better."]


def test_an_idempotency_key_names_one_job_here_too(service: Service) -> None:
    spec, _ = finished(service)
    wanted = {**spec, "reuse_result": True}
    first = post(service, wanted, **{"Idempotency-Key": "k"})
    again = post(service, wanted, **{"Idempotency-Key": "k"})
    assert again == first
    answer = service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_job_under_way_is_not_waited_for(sqlite_service: Service) -> None:
    service = sqlite_service
    spec = service.job_spec()
    running = post(service, spec)["id"]
    service.worker.claim(running)
    assert post(service, {**spec, "reuse_result": True})["state"] == "queued"


def test_another_tenant_learns_nothing(service: Service) -> None:
    """Who uploads the same files and asks the same runs it."""
    owner, other = service.as_tenant("owner"), service.as_tenant("other")
    finish(owner, owner.job())
    view = post(other, other.job_spec(reuse_result=True))
    with reading() as session:
        rows = session.execute(select(Job.result_key, Job.tenant_id).where(Job.kind == "compress")).all()
    assert (len({row.result_key for row in rows}), len({row.tenant_id for row in rows})) == (1, 2)
    assert view["state"] == "queued"
    assert post(owner, owner.job_spec(reuse_result=True))["state"] == "succeeded"


def test_a_result_that_lost_a_file_is_not_served(sqlite_service: Service) -> None:
    """Neither without the bytes nor without the row; an older job that is whole serves instead."""
    service = sqlite_service
    spec, done = finished(service)
    newer = post(service, spec)["id"]
    finish(service, newer, content=b"another student", receipt="second")
    wanted = {**spec, "reuse_result": True}
    assert post(service, wanted)["result"]["reused_from"] == newer
    (sha256,) = {file[3] for file in files(service, newer)} - {file[3] for file in files(service, done)}
    service.worker.storage.delete(sha256)
    assert post(service, wanted)["result"]["reused_from"] == done
    with transaction() as session:
        session.execute(delete(Artifact).where(Artifact.kind == "stage"))
    assert post(service, wanted)["state"] == "queued"


def test_files_of_an_attempt_that_was_cancelled_are_left_where_they_are(service: Service) -> None:
    """Of a job that was tried again, what it left in the end is served."""
    spec = service.job_spec()
    job_id = post(service, spec)["id"]
    claim = service.worker.claim(job_id)
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    with transaction() as session:
        early = [service.worker.artifact(b"early", kind=kind) for kind in ("stage", "best_so_far")]
        jobs.finish_cancel(session, claim, {}, early)
    service.client.post(f"/v1/jobs/{job_id}/retry")
    finish(service, job_id)
    view = post(service, {**spec, "reuse_result": True})
    found = files(service, view["id"])
    assert [(step, kind) for step, kind, *_ in found] == [(1, "stage"), (2, "final")]
    assert set(found) < set(files(service, job_id))


def test_a_deletion_comes_before_or_after(service: Service) -> None:
    """Whoever deletes the other job waits for the one that is served from it, and takes nothing away from that."""
    spec, done = finished(service)
    locked = threading.Event()

    def remove() -> None:
        with transaction() as session:
            session.scalars(select(Job).where(Job.id == done).with_for_update()).one()
            locked.set()
            for table in (Event, Artifact):
                session.execute(delete(table).where(table.job_id == done))

    with tenancy.transaction(DEFAULT) as session:
        key = session.scalars(select(Job.result_key).where(Job.id == done)).one()
        job, _ = jobs.submit(session, kind="compress", spec={**spec, "reuse_result": True}, result_key=key)
        assert reuse.reuse(session, job, service.worker.storage)
        thread = threading.Thread(target=remove)
        thread.start()
        assert not locked.wait(0.3)
    thread.join()
    assert locked.is_set()
    assert len(files(service, job.id)) == 2
    assert post(service, {**spec, "reuse_result": True})["result"]["reused_from"] == done


# ---- what decides


def key_of(spec: dict[str, Any]) -> str:
    with tenancy.reading(DEFAULT) as session:
        return plans.resolve(session, JobSpec.model_validate(spec)).result_key


def test_what_does_not_decide_is_not_in_the_key(sqlite_service: Service) -> None:
    spec = sqlite_service.job_spec()
    changes: dict[str, Any] = {
        "name": "n",
        "labels": {"a": "b"},
        "deadline_seconds": 9.0,
        "reuse_result": True,
        "priority": 5,
        "memory_bytes": 1 << 40,
        **dict.fromkeys(GATES, 1),
    }
    assert set(changes) == set(reuse.UNDECISIVE)
    for name, value in changes.items():
        if name in JobSpec.model_fields:
            assert key_of(spec) == key_of({**spec, name: value}), name


DECISIVE: list[dict[str, Any]] = [
    {"seed": 1},
    {"seeds": 2},
    {"exports": ["course_8bit"]},
    {"device": "cpu"},
    {"num_threads": 2},
    {"steps": [{"method": "distill", "student": "student_net", "epochs": 3}]},
    {"steps": [{"method": "distill", "student": "student_net"}, {"method": "quantize"}]},
]


def test_what_decides_is_in_the_key(sqlite_service: Service) -> None:
    spec = sqlite_service.job_spec()
    assert len({key_of({**spec, **change}) for change in [{}, *DECISIVE]}) == 1 + len(DECISIVE)
    view = sqlite_service.client.post("/v1/jobs", params={"validate_only": True}, json=spec).json()
    assert view["result_key"] == key_of(spec)


def test_every_field_of_a_job_was_thought_of() -> None:
    """A new field must be put on one side: what decides is in the key by itself."""
    deciding = {
        "teachers",
        "dataset",
        "steps",
        "seed",
        "seeds",
        "exports",
        "device",
        "num_threads",
        "sensitivity",
    }
    assert set(JobSpec.model_fields) - set(reuse.UNDECISIVE) == deciding


def test_bytes_of_teachers_and_data_decide_and_so_does_the_version(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sqlite_service.job_spec()
    first = key_of(spec)
    knows = dict(sqlite_service.worker.answers)
    sqlite_service.worker.answers["teacher"] = lambda s: {**knows["teacher"](s), "artifact_sha256": "b" * 64}
    other = sqlite_service.teacher()
    sqlite_service.worker.answers["dataset"] = lambda s: {**knows["dataset"](s), "pack_sha256": "f" * 64}
    photos = sqlite_service.dataset()
    declared = sqlite_service.teacher(declared_accuracy=0.5)
    distinct = {
        first,
        key_of({**spec, "teachers": [other]}),
        key_of({**spec, "teachers": [declared]}),
        key_of({**spec, "dataset": photos}),
        key_of({**spec, "teachers": [*spec["teachers"], other]}),
        key_of({**spec, "teachers": [other, *spec["teachers"]]}),
    }
    monkeypatch.setattr(reuse, "version", lambda: "99")
    assert len(distinct | {key_of(spec)}) == 7
