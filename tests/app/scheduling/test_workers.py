"""Workers report; those that fell silent are no longer listed."""

from sqlalchemy import update

from app import db
from app.scheduling import workers
from app.settings import settings
from app.tables import Worker


def test_a_worker_is_listed_with_what_it_last_said(database: str) -> None:
    with db.transaction() as session:
        workers.seen(session, "host:1", queues=["compress"], device="cpu")
        workers.seen(session, "host:2", queues=["inspect"], device="cpu")
    with db.transaction() as session:
        workers.seen(session, "host:1", queues=["compress"], device="cuda:0", job_id="job_1")
    with db.reading() as session:
        first, second = workers.alive(session)
    assert (first.id, first.device, first.job_id) == ("host:1", "cuda:0", "job_1")
    assert (second.id, second.queues, second.job_id) == ("host:2", ["inspect"], None)
    assert first.started_at < first.seen_at


def test_a_worker_silent_for_three_leases_is_gone(database: str) -> None:
    with db.transaction() as session:
        for worker_id in ("host:1", "host:2"):
            workers.seen(session, worker_id, queues=["compress"], device="cpu")
        for worker_id, leases in (("host:1", 2.9), ("host:2", 3.1)):
            session.execute(
                update(Worker)
                .where(Worker.id == worker_id)
                .values(seen_at=db.db_now() - leases * settings().lease_seconds)
            )
    with db.reading() as session:
        assert [worker.id for worker in workers.alive(session)] == ["host:1"]
