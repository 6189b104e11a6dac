"""The outbox: what is queued is announced, whatever happens to the broker or the database meanwhile."""

import ast
import json
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update

from app import db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.scheduling import outbox, queue
from app.scheduling.outbox import Outbox
from app.settings import settings
from app.tables import CANCELLED, Job
from tests.servers import Broker


@pytest.fixture(autouse=True)
def connected(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings(), "broker_url", broker.url)
    queue.reset()
    yield
    queue.reset()


@pytest.fixture
def running(database: str) -> Iterator[Outbox]:
    thread = Outbox()
    thread.start()
    yield thread
    thread.stop()
    assert not thread._thread.is_alive()


def submit(count: int = 1) -> list[str]:
    with tenancy.transaction(DEFAULT) as session:
        return [jobs.submit(session, kind="compress", spec={"n": n})[0].id for n in range(count)]


def announced(broker: Broker) -> list[str]:
    """The job ids in the queue, oldest first, read from Valkey itself."""
    raw = broker.client().lrange("fewbytes:compress", 0, -1)
    return [ast.literal_eval(json.loads(message)["headers"]["argsrepr"])[0] for message in reversed(raw)]


def undispatched() -> int:
    with db.reading() as session:
        return len(session.scalars(select(Job.id).where(Job.dispatched_at.is_(None))).all())


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it never came to hold"
        time.sleep(0.02)


def lapse_stamps() -> None:
    """Make every announcement an hour old."""
    with db.transaction() as session:
        session.execute(update(Job).values(dispatched_at=db.db_now() - 3600))


def test_a_woken_outbox_announces_in_order_at_once(database: str, broker: Broker, running: Outbox) -> None:
    ids = submit(5)
    running.wake()
    eventually(lambda: announced(broker) == ids, seconds=2)
    eventually(lambda: undispatched() == 0)


def test_a_row_is_announced_once(database: str, broker: Broker) -> None:
    """Busy workers for an hour, or a broker that forgot it: whoever gets idle looks by itself."""
    ids = submit(3)
    assert outbox.ring() == 3
    assert announced(broker) == ids
    broker.client().flushall()
    lapse_stamps()
    assert outbox.ring() == 0
    assert announced(broker) == []


def test_what_waits_for_its_time_or_is_paused_is_announced_when_that_is_over(
    database: str, broker: Broker
) -> None:
    late, paused = submit(2)
    with db.transaction() as session:
        jobs.pause(session, paused)
        session.execute(update(Job).where(Job.id == late).values(next_attempt_at=db.db_now() + 3600))
    assert outbox.ring() == 0
    with db.transaction() as session:
        jobs.resume(session, paused)
        session.execute(update(Job).where(Job.id == late).values(next_attempt_at=db.db_now() - 1))
    assert outbox.ring() == 2
    assert set(announced(broker)) == {late, paused}


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_broker_that_comes_back_gets_what_was_queued_meanwhile(
    database: str, broker: Broker, running: Outbox, fault: str
) -> None:
    getattr(broker, fault)()
    started = time.monotonic()
    ids = submit(3)
    running.wake()
    assert time.monotonic() - started < 5  # who submits notices nothing; to wait for it would take 30
    time.sleep(1.5)
    assert undispatched() == 3
    if fault == "kill":
        broker.start()
    else:
        broker.thaw()
    eventually(lambda: set(announced(broker)) == set(ids))
    eventually(lambda: undispatched() == 0)


def test_a_dead_broker_does_not_stop_the_sweep(
    database: str, broker: Broker, running: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.kill()
    monkeypatch.setattr(settings(), "lease_seconds", 0.2)
    [job_id] = submit()
    with db.transaction() as session:
        assert jobs.claim(session, job_id, worker="w")
        jobs.cancel(session, job_id)

    def is_cancelled() -> bool:
        with db.reading() as session:
            return session.scalars(select(Job.state)).one() == CANCELLED

    eventually(is_cancelled)


def test_a_database_that_comes_back_is_used_again(
    sqlite_database: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    db.configure("postgresql://nobody@127.0.0.1:1/nothing")
    thread = Outbox()
    thread.start()
    eventually(lambda: "outbox: ring failed" in caplog.text)
    db.configure(sqlite_database)
    ids = submit(2)
    eventually(lambda: announced(broker) == ids)
    thread.stop()


def test_a_bug_is_logged_and_the_thread_goes_on(
    sqlite_database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    due = jobs.due
    monkeypatch.setattr(jobs, "due", lambda session, **options: 1 / 0)
    thread = Outbox()
    thread.start()
    eventually(lambda: "ZeroDivisionError" in caplog.text)
    monkeypatch.setattr(jobs, "due", due)
    ids = submit(1)
    eventually(lambda: announced(broker) == ids)
    thread.stop()


def test_two_outboxes_at_once_leave_every_row_announced(database: str, broker: Broker) -> None:
    threads = [Outbox(), Outbox()]
    for thread in threads:
        thread.start()
    ids = submit(40)
    for thread in threads:
        thread.wake()
    eventually(lambda: undispatched() == 0)
    for thread in threads:
        thread.stop()
    assert set(announced(broker)) == set(ids)
