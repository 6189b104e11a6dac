"""The supervisor against children that crash, hang, shout and lie. Each ends in exactly one verb."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import db, jobs, tenancy, tenants
from app.settings import settings
from app.storage import storage
from app.tables import Artifact, Attempt, Event, Job, Metric
from worker import orders, supervisor
from worker.notebook import MAX_LOG_LINES

FAKE = [sys.executable, "-m", "tests.worker.fake_child"]


@pytest.fixture
def short_grace(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage of this test's own; a grace short enough to wait for."""
    monkeypatch.setenv("FEWBYTES_CANCEL_GRACE_SECONDS", "1")
    settings.cache_clear()


@pytest.fixture
def plain_orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Orders for the fake child: a work folder and what to do, with no teachers and data of no files."""

    def build(claim: jobs.Claim) -> dict[str, Any]:
        work_dir = tmp_path / "jobs" / claim.job_id
        work_dir.mkdir(parents=True, exist_ok=True)
        deadline = claim.spec.get("deadline_seconds")
        return {
            "do": "compress",
            "spec": claim.spec,
            "teachers": [],
            "data": {"id": "dst_1", "index_sha256": None, "pack_sha256": None},
            "work_dir": str(work_dir),
            "num_threads": 1,
            "deadline_seconds": deadline,
            "asked_seconds": deadline,
        }

    monkeypatch.setattr(orders, "build", build)


pytestmark = pytest.mark.usefixtures("sqlite_database", "short_grace", "plain_orders")


def submit(do: str, kind: str = "compress", **spec: Any) -> str:
    with tenancy.transaction(tenants.DEFAULT) as session:
        job, _ = jobs.submit(session, kind=kind, spec={"name": do, **spec})
    return job.id


def claim(job_id: str, worker: str = "test") -> jobs.Claim:
    with db.transaction() as session:
        made = jobs.claim(session, job_id, worker=worker)
    assert made is not None
    return made


def rows(table: Any, job_id: str) -> list[Any]:
    with db.reading() as session:
        return list(session.scalars(select(table).where(table.job_id == job_id)))


def job(job_id: str) -> Job:
    with db.reading() as session:
        found = session.get(Job, job_id)
    assert found is not None
    return found


def logs(job_id: str) -> list[str]:
    return [event.data["message"] for event in rows(Event, job_id) if event.type == "log"]


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Running:
    """A supervisor in a thread of this test."""

    def __init__(self, job_id: str) -> None:
        self.preempt = threading.Event()
        self.claim = claim(job_id)
        self.outcome = ""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.outcome = supervisor.run(self.claim, command=FAKE, preempt=self.preempt)

    def join(self, seconds: float = 20.0) -> str:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self.outcome


def run(job_id: str) -> str:
    return supervisor.run(claim(job_id), command=FAKE, preempt=threading.Event())


def test_a_result_becomes_a_succeeded_job_with_its_artifact() -> None:
    job_id = submit("artifacts")
    assert run(job_id) == "succeeded"
    (artifact,) = rows(Artifact, job_id)
    assert storage().path(artifact.sha256).read_bytes() == b"a network"
    assert (artifact.kind, artifact.size_bytes, artifact.metrics) == ("final", 9, {"accuracy": 1.0})
    done = job(job_id)
    assert done.state == "succeeded"
    assert done.result == {
        "stages": [],
        "artifact": {"step": 1, "sha256": artifact.sha256, "size_bytes": 9},
        "gates": [],
        "passed": None,
        "warnings": [],
    }
    assert "stage" in [event.type for event in rows(Event, job_id)]


def test_a_killed_trainer_is_tried_again_and_the_log_names_the_signal() -> None:
    job_id = submit("crash")
    assert run(job_id) == "trainer_lost"
    assert (job(job_id).state, job(job_id).failures) == ("queued", 1)
    assert any("SIGKILL" in message and "memory" in message for message in logs(job_id))
    assert [attempt.outcome for attempt in rows(Attempt, job_id)] == ["trainer_lost"]


def test_a_poison_job_fails_after_three_attempts() -> None:
    job_id = submit("crash")
    for _ in range(3):
        run(job_id)
    assert job(job_id).state == "failed"
    assert job(job_id).error["code"] == "WORKER_LOST"  # type: ignore[index]
    assert job(job_id).attempt == 3


def test_an_exit_without_a_result_is_no_success() -> None:
    job_id = submit("exit_without_result")
    assert run(job_id) == "trainer_lost"
    assert any("without a result" in message for message in logs(job_id))


@pytest.mark.parametrize(("do", "code"), [("problem", "CLASSES_DIFFER"), ("out_of_memory", "OUT_OF_MEMORY")])
def test_a_problem_fails_the_job_at_once(do: str, code: str) -> None:
    job_id = submit(do)
    assert run(job_id) == "failed"
    assert job(job_id).state == "failed"
    assert job(job_id).error["code"] == code  # type: ignore[index]


def test_a_flood_of_output_is_bounded_and_breaks_no_message() -> None:
    job_id = submit("flood")
    assert run(job_id) == "succeeded"
    messages = logs(job_id)
    assert "noise 0" in messages
    assert MAX_LOG_LINES <= len(messages) <= MAX_LOG_LINES + 2
    assert max(map(len, messages)) < 3_000
    assert [(metric.name, metric.value) for metric in rows(Metric, job_id)] == [("accuracy", 0.5)]


def test_a_message_without_end_ends_the_child() -> None:
    job_id = submit("huge_message")
    assert run(job_id) == "trainer_lost"
    assert any("bytes" in message for message in logs(job_id))


def test_cancel_keeps_the_best_so_far() -> None:
    job_id = submit("obey")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "waiting")
    with db.transaction() as session:
        jobs.cancel(session, job_id)
    assert running.join() == "cancelled"
    assert job(job_id).state == "cancelled"
    (artifact,) = rows(Artifact, job_id)
    assert artifact.kind == "best_so_far"
    assert storage().path(artifact.sha256).read_bytes() == b"best so far"


def test_cancel_ends_a_child_that_ignores_it_within_the_grace_and_two_seconds() -> None:
    job_id = submit("hang")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "hanging")
    pids = [int(pid) for pid in logs(job_id)[0].split()[1:]]
    with db.transaction() as session:
        jobs.cancel(session, job_id)
    asked_at = time.monotonic()
    assert running.join() == "cancelled"
    assert time.monotonic() - asked_at < settings().cancel_grace_seconds + 2
    assert job(job_id).state == "cancelled"
    wait_for(lambda: not any(map(is_alive, pids)), 2)


def test_preempt_hands_the_job_back_without_using_up_an_attempt() -> None:
    job_id = submit("obey")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "waiting")
    running.preempt.set()
    assert running.join() == "preempted"
    back = job(job_id)
    assert (back.state, back.failures, back.dispatched_at) == ("queued", 0, None)
    assert not rows(Artifact, job_id)


def test_a_fenced_supervisor_kills_its_child_and_writes_nothing() -> None:
    job_id = submit("hang")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "hanging")
    pids = [int(pid) for pid in logs(job_id)[0].split()[1:]]
    with db.transaction() as session:  # as the sweeper does when a lease lapsed
        jobs.release(session, running.claim, outcome="worker_lost", counts=True)
    other = claim(job_id, worker="other")
    before = len(rows(Event, job_id))
    assert running.join() == "fenced"
    wait_for(lambda: not any(map(is_alive, pids)), 5)
    assert len(rows(Event, job_id)) == before
    assert (job(job_id).attempt, job(job_id).state, job(job_id).lease_owner) == (
        other.attempt,
        "running",
        "other",
    )


def no_database(*_: Any) -> str:
    raise OperationalError("UPDATE jobs", {}, Exception("the server went away"))


def test_a_short_outage_of_the_database_stops_no_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit("obey")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "waiting")
    with monkeypatch.context() as outage:
        outage.setattr(jobs, "heartbeat", no_database)
        outage.setattr(jobs, "record", no_database)
        time.sleep(2.5)  # a beat a second: at least two of them fail
        assert running.thread.is_alive()
    with db.transaction() as session:
        jobs.cancel(session, job_id)
    assert running.join() == "cancelled"


def test_an_outage_of_a_whole_lease_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then another worker may have the job: two trainers must not run."""
    monkeypatch.setenv("FEWBYTES_LEASE_SECONDS", "1")
    settings.cache_clear()
    job_id = submit("hang")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "hanging")
    pids = [int(pid) for pid in logs(job_id)[0].split()[1:]]
    monkeypatch.setattr(jobs, "heartbeat", no_database)
    assert running.join(10) == "fenced"
    wait_for(lambda: not any(map(is_alive, pids)), 2)
    assert job(job_id).state == "running", "for the sweeper to find"


def test_a_deadline_fails_the_job() -> None:
    job_id = submit("hang", deadline_seconds=0.5)
    assert run(job_id) == "failed"
    assert job(job_id).error["code"] == "DEADLINE_EXCEEDED"  # type: ignore[index]


def test_a_child_dies_with_its_supervisor(tmp_path: Path, sqlite_database: str) -> None:
    """kill -9 of the supervising process leaves no trainer behind."""
    job_id = submit("hang")
    held = claim(job_id)
    code = (
        "import threading, sys\n"
        "from app import jobs\nfrom worker import orders, supervisor\n"
        f"claim = jobs.Claim({held.job_id!r}, {held.attempt}, 'compress', {held.spec!r}, 'test')\n"
        f"order = {{'do': 'compress', 'spec': claim.spec, 'work_dir': {str(tmp_path)!r}, 'num_threads': 1}}\n"
        "orders.build = lambda claim: order\n"
        f"supervisor.run(claim, command={FAKE!r}, preempt=threading.Event())\n"
    )
    environment = {**os.environ, "DATABASE_URL": sqlite_database}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_for(lambda: job(job_id).phase == "hanging")
    pid = int(logs(job_id)[0].split()[1])
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(pid), 5)


def test_the_worker_holds_no_torch() -> None:
    """A supervisor that cannot hold a GPU cannot lose one, and starts in a second."""
    code = "import sys; import worker.main; print('torch' in sys.modules, 'fastapi' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
