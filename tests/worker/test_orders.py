"""What a child is told comes from the rows of its job's owner."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app import db, jobs
from app.access import tenancy, tenants
from app.errors import Problem
from app.spec.job import JobSpec
from app.storage.objects import storage
from app.tables import Attempt, Dataset, Job, Teacher
from worker import orders, work_folder

pytestmark = pytest.mark.usefixtures("data_dir")


def claimed(tenant_id: str, teacher_id: str) -> jobs.Claim:
    """An inspection of this teacher, claimed."""
    with tenancy.transaction(tenant_id) as session:
        job, _ = jobs.submit(session, kind="inspect", spec={"inspect": "teacher", "id": teacher_id})
    with db.transaction() as session:
        claim = jobs.claim(session, job.id, worker="w")
    assert claim is not None
    return claim


def test_a_job_gets_nothing_of_another_tenants(sqlite_database: str) -> None:
    """Even if its row named it."""
    with db.transaction() as session:
        owner = tenants.make(session, "owner").id
    theirs = claimed(owner, "tch_1")
    row = {
        "spec": {},
        "state": "inspecting",
        "file_sha256": "0" * 64,
        "file_size_bytes": 1,
        "created_at": 0.0,
    }
    with tenancy.transaction(owner) as session:
        session.add(Teacher(id="tch_1", job_id=theirs.job_id, **row))
    with pytest.raises(Problem, match="OBJECT_MISSING"):  # it is found; only its bytes are not there
        orders.build(theirs)
    with pytest.raises(Problem, match="There is no teacher 'tch_1'"):
        orders.build(claimed(tenants.DEFAULT, "tch_1"))


def compress_job(deadline_seconds: float) -> jobs.Claim:
    """A job that names a teacher and a data set which are there, claimed."""
    with storage().writer() as writer:
        writer.write(b"bytes")
        sha256, _ = writer.commit()
    with tenancy.transaction(tenants.DEFAULT) as session:
        inspection, _ = jobs.submit(session, kind="inspect", spec={"inspect": "teacher"})
        row: dict[str, Any] = {
            "spec": {},
            "state": "ready",
            "job_id": inspection.id,
            "created_at": 0.0,
        }
        session.add(
            Teacher(
                id="tch_1",
                file_sha256=sha256,
                artifact_sha256=sha256,
                file_size_bytes=5,
                **row,
            )
        )
        session.add(Dataset(id="dst_1", index_sha256=sha256, **row))
        spec = JobSpec.model_validate(
            {
                "teachers": ["tch_1"],
                "dataset": "dst_1",
                "steps": [{"method": "fold"}],
                "deadline_seconds": deadline_seconds,
            }
        )
        job, _ = jobs.submit(session, kind="compress", spec=spec.model_dump(mode="json"))
    return claim(job.id)


def claim(job_id: str) -> jobs.Claim:
    with db.transaction() as session:
        made = jobs.claim(session, job_id, worker="w")
    assert made is not None
    return made


def as_if_attempt(job_id: str, n: int, *, started: float, ended: float | None) -> None:
    """Seconds ago."""
    now = db.db_now()
    with db.transaction() as session:
        session.execute(
            update(Attempt)
            .where(Attempt.job_id == job_id, Attempt.n == n)
            .values(started_at=now - started, ended_at=None if ended is None else now - ended)
        )
        if n == 1:
            session.execute(update(Job).where(Job.id == job_id).values(started_at=now - started - 5))


def test_a_deadline_counts_what_all_attempts_ran_and_not_what_the_job_waited(database: str) -> None:
    first = compress_job(deadline_seconds=100)
    assert orders.build(first)["deadline_seconds"] == pytest.approx(100, abs=10)
    with db.transaction() as session:
        jobs.release(session, first, outcome="preempted")
    second = claim(first.job_id)
    as_if_attempt(first.job_id, 1, started=1000, ended=970)
    as_if_attempt(first.job_id, 2, started=20, ended=None)
    assert orders.build(second)["deadline_seconds"] == pytest.approx(100 - 30 - 20, abs=10)


def test_a_job_tried_again_by_its_owner_has_its_time_anew(database: str) -> None:
    first = compress_job(deadline_seconds=100)
    as_if_attempt(first.job_id, 1, started=1000, ended=None)
    with db.transaction() as session:
        jobs.fail(session, first, Problem(504, "DEADLINE_EXCEEDED", "Too late."))
    with tenancy.transaction(tenants.DEFAULT) as session:
        jobs.retry(session, first.job_id)
    assert orders.build(claim(first.job_id))["deadline_seconds"] == pytest.approx(100, abs=10)


def test_every_attempt_has_a_folder_of_its_own(sqlite_database: str) -> None:
    first = compress_job(deadline_seconds=100)
    folder = Path(orders.build(first)["work_dir"])
    assert folder == work_folder.of_job(first.job_id) / "attempt-1"
    (folder / "kept").write_text("by the first")
    with db.transaction() as session:
        jobs.release(session, first, outcome="trainer_lost", detail="It was killed.")
    again = Path(orders.build(claim(first.job_id))["work_dir"])
    assert again.name == "attempt-2"
    assert (again / "kept").read_text() == "by the first"


def test_tenants_share_nothing_that_one_of_them_computed(sqlite_database: str) -> None:
    """Not even how long it takes tells a tenant what another has run."""
    with db.transaction() as session:
        others = tenants.make(session, "other").id
    with db.reading() as session:
        job = session.get(Job, compress_job(deadline_seconds=100).job_id)
    assert job is not None
    first = orders.build(jobs.Claim(job.id, 1, job.kind, job.spec, "w"))["shared_dir"]
    with db.transaction() as session:
        for table in (Job, Teacher, Dataset):
            session.execute(update(table).values(tenant_id=others))
    second = orders.build(jobs.Claim(job.id, 1, job.kind, job.spec, "w"))["shared_dir"]
    assert Path(first).parent == Path(second).parent
    assert first != second
