"""The checker finds what is forged, and nothing in what the verbs write themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from app import jobs
from app.access import tenancy, tenants
from app.db import reading, transaction
from app.storage.objects import Storage
from app.tables import Artifact, Attempt, Event, Job
from tests.faults.checker import check

CONTENT = b"a network"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


@pytest.fixture
def told(sqlite_database: str, storage: Storage) -> str:
    """The id of a job that lost one attempt, was handed back by one, and succeeded."""
    with tenancy.transaction(tenants.DEFAULT) as session:
        job, _ = jobs.submit(session, kind="compress", spec={"name": "told"})
    for outcome in ("worker_lost", "preempted"):
        claim = claimed(job.id)
        with transaction() as session:
            jobs.record(session, claim, events=[("log", {"level": "info", "message": "at work"})])
            jobs.release(session, claim, outcome=outcome)
    claim = claimed(job.id)
    with storage.writer() as writer:
        writer.write(CONTENT)
        sha256, size_bytes = writer.commit()
    final = jobs.NewArtifact(1, "final", "final.pt", sha256, size_bytes, {})
    with transaction() as session:
        jobs.finish(session, claim, {"stages": []}, [final])
    return job.id


def claimed(job_id: str) -> jobs.Claim:
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(next_attempt_at=None))
        claim = jobs.claim(session, job_id, worker="w")
    assert claim is not None
    return claim


def faults(storage: Storage) -> list[str]:
    with reading() as session:
        return check(session, storage, max_failures=3)


def test_what_the_verbs_write_is_right(told: str, storage: Storage) -> None:
    assert faults(storage) == []


def test_no_job_at_all_is_right(sqlite_database: str, storage: Storage) -> None:
    assert faults(storage) == []


def two_winners(session: Session, job_id: str) -> None:
    session.execute(
        update(Attempt).where(Attempt.job_id == job_id, Attempt.n == 2).values(outcome="succeeded")
    )


def a_gap(session: Session, job_id: str) -> None:
    session.execute(delete(Event).where(Event.job_id == job_id, Event.seq == 3))


def an_illegal_move(session: Session, job_id: str) -> None:
    data = {"state": "cancelling", "attempt": 1, "reason": "worker_lost"}
    session.execute(update(Event).where(Event.job_id == job_id, Event.seq == 4).values(data=data))


def an_attempt_too_many(session: Session, job_id: str) -> None:
    session.execute(
        insert(Attempt).values(
            job_id=job_id, n=4, worker="w", started_at=1.0, ended_at=2.0, outcome="preempted"
        )
    )


def a_state_of_its_own(session: Session, job_id: str) -> None:
    session.execute(update(Job).where(Job.id == job_id).values(state="failed"))


def an_open_attempt(session: Session, job_id: str) -> None:
    session.execute(
        update(Attempt).where(Attempt.job_id == job_id, Attempt.n == 1).values(outcome=None, ended_at=None)
    )


def a_write_after_the_end(session: Session, job_id: str) -> None:
    _say(session, job_id, "log", {"level": "info", "message": "I am still here"})


def a_second_final(session: Session, job_id: str) -> None:
    row = {
        "id": "art_2",
        "job_id": job_id,
        "step": 1,
        "kind": "final",
        "name": "final.pt",
        "sha256": "0" * 64,
    }
    session.execute(
        insert(Artifact).values(**row, size_bytes=1, metrics={}, created_at=1.0, tenant_id=tenants.DEFAULT)
    )
    _say(session, job_id, "artifact", {"id": "art_2"})


def a_lease_of_nobody(session: Session, job_id: str) -> None:
    session.execute(update(Job).where(Job.id == job_id).values(lease_owner="w", lease_until=1.0))


def losses_without_end(session: Session, job_id: str) -> None:
    """Two more attempts that were lost, told as it should be: only their number is wrong."""
    session.execute(
        update(Attempt).where(Attempt.job_id == job_id, Attempt.n == 2).values(outcome="worker_lost")
    )
    job = session.get_one(Job, job_id)
    for n in (4, 5):
        session.execute(
            insert(Attempt).values(
                job_id=job_id, n=n, worker="w", started_at=1.0, ended_at=2.0, outcome="trainer_lost"
            )
        )
    assert job.attempt == 3


def _say(session: Session, job_id: str, type_: str, data: dict[str, str]) -> None:
    job = session.get_one(Job, job_id)
    job.last_seq += 1
    session.add(Event(job_id=job_id, seq=job.last_seq, at=9e9, type=type_, data=data))


FORGERIES: dict[str, tuple[Callable[[Session, str], None], str]] = {
    "two winners": (two_winners, "was won more than once: by attempts [2, 3]"),
    "a gap": (a_gap, "missing [3]"),
    "an illegal move": (an_illegal_move, "moved from cancelling to running"),
    "an attempt too many": (an_attempt_too_many, "has attempts [1, 2, 3, 4], its events tell [1, 2, 3]"),
    "a state of its own": (a_state_of_its_own, "is failed, its events say succeeded"),
    "an open attempt": (an_open_attempt, "the attempts without an end are [1]"),
    "a write after the end": (a_write_after_the_end, "(log) was written while nobody held the job"),
    "a second final": (a_second_final, "has 2 final artifacts"),
    "a lease of nobody": (a_lease_of_nobody, "its lease is w until 1.0"),
    "losses without end": (losses_without_end, "lost 4 attempts, 3 are the most"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found(name: str, told: str, storage: Storage) -> None:
    forge, expected = FORGERIES[name]
    with transaction() as session:
        forge(session, told)
    assert any(expected in fault for fault in faults(storage)), faults(storage)


def test_an_artifact_without_bytes_is_found(told: str, storage: Storage) -> None:
    with reading() as session:
        sha256 = session.query(Artifact.sha256).scalar()
    storage.delete(sha256)
    assert faults(storage) == [f"{told}: artifact final.pt has no bytes"]


def test_an_artifact_with_other_bytes_is_found(told: str, storage: Storage) -> None:
    with reading() as session:
        path = storage.path(session.query(Artifact.sha256).scalar())
    path.chmod(0o644)
    path.write_bytes(CONTENT + b"!")
    assert faults(storage) == [f"{told}: artifact final.pt has other bytes than its digest says"]


def test_attempts_that_vanished_are_found(told: str, storage: Storage) -> None:
    with transaction() as session:
        session.execute(delete(Attempt).where(Attempt.job_id == told))
    assert any("has attempts []" in fault for fault in faults(storage))
