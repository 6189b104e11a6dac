"""Workers and trainers that are frozen (SIGSTOP) past their lease and thawed when another attempt counts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from app import db, jobs
from app.settings import settings
from app.storage.objects import storage
from app.tables import Artifact, Attempt, Event
from tests.worker.supervised import Running, claim, is_alive, job, logs, rows, submit, wait_for
from worker import work_folder

pytestmark = pytest.mark.usefixtures("sqlite_database", "short_lease", "plain_orders")

LEASE_SECONDS = 1.0

WORKER = """
import sys, threading
from app import jobs
from tests.worker.supervised import FAKE, plain_order
from worker import orders, supervisor
orders.build = plain_order
claim = jobs.Claim(sys.argv[1], int(sys.argv[2]), "compress", {"name": "write_on"}, "frozen")
print(supervisor.run(claim, command=FAKE, preempt=threading.Event()))
"""


@pytest.fixture
def short_lease(short_grace: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBYTES_LEASE_SECONDS", str(LEASE_SECONDS))
    settings.cache_clear()


class Worker:
    """A supervisor in a process of its own, and its trainer."""

    def __init__(self, job_id: str, database: str) -> None:
        held = claim(job_id, worker="frozen")
        command = [sys.executable, "-c", WORKER, held.job_id, str(held.attempt)]
        environment = {**os.environ, "DATABASE_URL": database}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: job(job_id).phase == "writing")
        self.trainer = int(logs(job_id)[0].split()[1])

    def pids(self, who: str) -> list[int]:
        return {
            "both": [self.process.pid, self.trainer],
            "supervisor": [self.process.pid],
            "trainer": [self.trainer],
        }[who]

    def outcome(self) -> str:
        said, _ = self.process.communicate(timeout=20)
        return str(said).strip()


@pytest.fixture
def worker(sqlite_database: str) -> Iterator[Worker]:
    started = Worker(submit("write_on"), sqlite_database)
    yield started
    for pid in started.pids("both"):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    started.process.communicate()


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def only_job() -> str:
    with db.reading() as session:
        return str(session.query(jobs.Job.id).scalar())


def sweep() -> int:
    with db.transaction() as session:
        return jobs.sweep(session)


@pytest.mark.parametrize("who", ["both", "supervisor"])
def test_a_worker_thawed_after_its_lease_changes_nothing(worker: Worker, who: str) -> None:
    """Frozen together or without its trainer, which then goes on writing while another attempt works."""
    job_id = only_job()
    send(worker.pids(who), signal.SIGSTOP)
    wait_for(lambda: sweep() == 1, 10)
    other = Running(job_id)
    wait_for(lambda: job(job_id).phase == "writing")
    (work_folder.of_job(job_id) / "finish").touch()
    assert other.join() == "succeeded"
    before = (job(job_id).version, len(rows(Event, job_id)))
    send(worker.pids(who), signal.SIGCONT)
    assert worker.outcome() == "fenced"
    assert not is_alive(worker.trainer)
    assert (job(job_id).version, len(rows(Event, job_id))) == before
    (artifact,) = rows(Artifact, job_id)
    assert storage().path(artifact.sha256).read_bytes() == b"the network of attempt 2"
    assert [attempt.outcome for attempt in rows(Attempt, job_id)] == ["worker_lost", "succeeded"]
    assert "The worker frozen was silent for" in rows(Attempt, job_id)[0].detail


def test_a_worker_thawed_while_another_attempt_works_ends_its_trainer(worker: Worker) -> None:
    """Neither the other attempt nor its folder notices."""
    job_id = only_job()
    send(worker.pids("both"), signal.SIGSTOP)
    wait_for(lambda: sweep() == 1, 10)
    other = Running(job_id)
    wait_for(lambda: job(job_id).phase == "writing")
    send(worker.pids("both"), signal.SIGCONT)
    assert worker.outcome() == "fenced"
    assert not is_alive(worker.trainer)
    assert (job(job_id).state, job(job_id).lease_owner) == ("running", "test")
    (work_folder.of_job(job_id) / "finish").touch()
    assert other.join() == "succeeded"
    (artifact,) = rows(Artifact, job_id)
    assert storage().path(artifact.sha256).read_bytes() == b"the network of attempt 2"


def test_a_frozen_trainer_keeps_its_job_and_goes_on_when_it_is_thawed(worker: Worker) -> None:
    job_id = only_job()
    send([worker.trainer], signal.SIGSTOP)
    time.sleep(1.5 * LEASE_SECONDS)
    assert sweep() == 0
    assert job(job_id).state == "running"
    (work_folder.of_job(job_id) / "finish").touch()
    send([worker.trainer], signal.SIGCONT)
    assert worker.outcome() == "succeeded"


def test_a_frozen_trainer_is_cancelled_within_the_grace(worker: Worker) -> None:
    job_id = only_job()
    send([worker.trainer], signal.SIGSTOP)
    with db.transaction() as session:
        jobs.cancel(session, job_id)
    asked_at = time.monotonic()
    assert worker.outcome() == "cancelled"
    assert time.monotonic() - asked_at < settings().cancel_grace_seconds + 5
    assert not is_alive(worker.trainer)
    (attempt,) = rows(Attempt, job_id)
    assert attempt.detail == "It was cancelled. The trainer did not stop within 1 s and was killed."


def test_a_frozen_trainer_dies_with_its_worker(worker: Worker) -> None:
    send([worker.trainer], signal.SIGSTOP)
    worker.process.kill()
    wait_for(lambda: not is_alive(worker.trainer), 5)
