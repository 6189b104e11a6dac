"""One process does it for all; when it dies, another."""

import os
import signal
import subprocess
import sys
import threading
import time

from sqlalchemy import select, update

from app import jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.db import db_now, reading, transaction
from app.scheduling import duties, outbox
from app.scheduling.outbox import Outbox
from app.tables import QUEUED, Duty, Job


def hold(owner: str, seconds: float = 60.0) -> bool:
    with transaction() as session:
        return duties.hold(session, "sweep", owner, seconds)


def holder() -> str | None:
    with reading() as session:
        return session.scalar(select(Duty.owner).where(Duty.name == "sweep", Duty.until >= db_now()))


def test_the_first_has_it_and_keeps_it(database: str) -> None:
    assert hold("a")
    assert hold("a")
    assert not hold("b")
    with reading() as session:
        assert duties.is_anothers(session, "sweep", "b")
        assert not duties.is_anothers(session, "sweep", "a")
        assert not duties.is_anothers(session, "collect", "b")


def test_a_holder_that_is_silent_loses_it_and_is_told(database: str) -> None:
    assert hold("a", seconds=0.2)
    time.sleep(0.25)
    assert hold("b")
    assert not hold("a")


def test_a_duty_given_up_is_free_at_once(database: str) -> None:
    assert hold("a")
    with transaction() as session:
        duties.give_up(session, "b")
    assert not hold("b")
    with transaction() as session:
        duties.give_up(session, "a")
    assert hold("b")


def test_of_many_at_once_one_gets_it(database: str) -> None:
    names = [f"owner {n}" for n in range(8)]
    winners: list[str] = []
    start = threading.Barrier(len(names))

    def run(name: str) -> None:
        start.wait()
        if hold(name):
            winners.append(name)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [holder()]


def lapsed_job() -> str:
    with tenancy.transaction(DEFAULT) as session:
        job_id = jobs.submit(session, kind="compress", spec={})[0].id
    with transaction() as session:
        assert jobs.claim(session, job_id, worker="dead:1")
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=1.0))
    return job_id


def state_of(job_id: str) -> str:
    with reading() as session:
        return session.scalars(select(Job.state).where(Job.id == job_id)).one()


def test_only_the_holder_sweeps(database: str) -> None:
    job_id = lapsed_job()
    assert hold("other")
    assert outbox.sweep("me") == 0
    assert state_of(job_id) == "running"
    with transaction() as session:
        duties.give_up(session, "other")
    assert outbox.sweep("me") == 1
    assert state_of(job_id) == QUEUED
    assert holder() == "me"


def test_who_does_not_sweep_takes_no_write_lock(sqlite_database: str) -> None:
    assert hold("other")
    with transaction() as session:  # it has the one write lock of SQLite
        session.execute(update(Job).values(name="x"))
        began = time.monotonic()
        assert outbox.sweep("me") == 0
        assert time.monotonic() - began < 1.0


_HOLD_FOR_EVER = """
import sys, time
from app import db
from app.scheduling import outbox
db.configure(sys.argv[1])
thread = outbox.Outbox()
thread.start()
time.sleep(600)
"""


def wait_until_held() -> None:
    give_up = time.monotonic() + 30
    while holder() is None:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_sweeper_that_is_killed_is_replaced_within_its_lease_and_a_second(sqlite_database: str) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLD_FOR_EVER, sqlite_database], env=os.environ | {"BROKER_URL": ""}
    )
    wait_until_held()
    second = Outbox()
    second.start()
    job_id = lapsed_job()
    time.sleep(0.6)
    first.send_signal(signal.SIGSTOP)  # from now on it can mend nothing
    killed_at = time.monotonic()
    first.kill()
    first.wait()
    with transaction() as session:  # it may have been quick
        session.execute(update(Job).where(Job.id == job_id).values(state="running", lease_until=1.0))
    while state_of(job_id) != QUEUED:
        assert time.monotonic() - killed_at < outbox.SWEEPER_SECONDS + 1.0
        time.sleep(0.02)
    second.stop()


def test_a_process_that_ends_well_leaves_the_duty_to_the_next(database: str) -> None:
    thread = Outbox()
    thread.start()
    wait_until_held()
    thread.stop()
    assert hold("next")
