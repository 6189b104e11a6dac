"""The supervisor against children that crash, hang, shout and lie. Each ends in exactly one verb."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DataError, OperationalError

from app import db, jobs
from app.errors import Problem
from app.settings import settings
from app.storage.objects import Storage, storage
from app.tables import Artifact, Attempt, Event, Metric
from tests.worker.supervised import FAKE, Running, claim, is_alive, job, logs, rows, run, submit, wait_for
from worker import orders, work_folder
from worker.notebook import MAX_LOG_LINES

pytestmark = pytest.mark.usefixtures("sqlite_database", "short_grace", "plain_orders")


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
    error = job(job_id).error
    assert error["code"] == "WORKER_LOST"  # type: ignore[index]
    assert error["detail"].count("SIGKILL") == 3  # type: ignore[index]
    assert job(job_id).attempt == 3


def test_an_exit_without_a_result_is_no_success() -> None:
    job_id = submit("exit_without_result")
    assert run(job_id) == "trainer_lost"
    assert any("without a result" in message for message in logs(job_id))


@pytest.mark.parametrize(
    ("do", "outcome", "code"),
    [
        ("problem", "user_error", "CLASSES_DIFFER"),
        ("out_of_memory", "out_of_memory", "OUT_OF_MEMORY"),
        ("internal_error", "service_error", "INTERNAL_ERROR"),
    ],
)
def test_a_problem_fails_the_job_at_once(do: str, outcome: str, code: str) -> None:
    job_id = submit(do)
    assert run(job_id) == outcome
    assert job(job_id).state == "failed"
    assert job(job_id).error["code"] == code  # type: ignore[index]
    (attempt,) = rows(Attempt, job_id)
    assert (attempt.outcome, attempt.detail) == (outcome, job(job_id).error["detail"])  # type: ignore[index]


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


def test_pause_hands_the_job_back_until_it_is_resumed() -> None:
    """Within a second, without using up an attempt; then it goes on."""
    job_id = submit("obey")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "waiting")
    with db.transaction() as session:
        jobs.pause(session, job_id)
    asked_at = time.monotonic()
    assert running.join() == "paused"
    assert time.monotonic() - asked_at < 2.5
    held = job(job_id)
    assert (held.state, held.paused, held.failures) == ("queued", True, 0)
    assert [attempt.outcome for attempt in rows(Attempt, job_id)] == ["paused"]
    with db.transaction() as session:
        assert jobs.claim(session, job_id, worker="test") is None
        jobs.resume(session, job_id)
    assert claim(job_id).attempt == 2


def test_a_cancel_outranks_the_pause_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "cancel_grace_seconds", 3.0)
    job_id = submit("hang")
    running = Running(job_id)
    wait_for(lambda: job(job_id).phase == "hanging")
    with db.transaction() as session:
        jobs.pause(session, job_id)
    time.sleep(1.5)  # the pause was seen, and the child has been asked to stop
    with db.transaction() as session:
        jobs.cancel(session, job_id)
    assert running.join() == "cancelled"
    assert (job(job_id).state, job(job_id).paused) == ("cancelled", False)


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
        jobs.release(session, running.claim, outcome="worker_lost")
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


@pytest.mark.parametrize(
    ("do", "kept", "told"),
    [
        ("obey", ["best_so_far"], "Its 0.5 s were over. The best student so far was kept."),
        ("hang", [], "Its 0.5 s were over. The trainer did not stop within 1 s and was killed."),
    ],
)
def test_a_deadline_fails_the_job_and_keeps_the_best_so_far(do: str, kept: list[str], told: str) -> None:
    job_id = submit(do, deadline_seconds=0.5)
    assert run(job_id) == "deadline"
    failed = job(job_id)
    assert (failed.state, failed.error["code"]) == ("failed", "DEADLINE_EXCEEDED")  # type: ignore[index]
    artifacts = rows(Artifact, job_id)
    assert [artifact.kind for artifact in artifacts] == kept
    if kept:
        assert storage().path(artifacts[0].sha256).read_bytes() == b"best so far"
        assert failed.result["artifact"]["sha256"] == artifacts[0].sha256  # type: ignore[index]
    assert [attempt.detail for attempt in rows(Attempt, job_id)] == [told]


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


# ---- whatever ends an attempt, it ends at once and says why


def fails_with(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "outcome", "state", "told"),
    [
        (Problem(404, "NOT_FOUND", "There is no teacher."), "user_error", "failed", "There is no teacher."),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", "queued", "No space left"),
        (OSError(errno.EMFILE, "Too many open files"), "worker_lost", "queued", "Too many open files"),
        (MemoryError(), "worker_lost", "queued", "MemoryError"),
        (KeyError("teachers"), "service_error", "failed", "KeyError: 'teachers'"),
    ],
)
def test_an_order_that_cannot_be_made_ends_the_attempt_at_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str, state: str, told: str
) -> None:
    """Not when its lease lapses."""
    monkeypatch.setattr(orders, "build", fails_with(error))
    job_id = submit("artifacts")
    assert run(job_id) == outcome
    assert job(job_id).state == state
    (attempt,) = rows(Attempt, job_id)
    assert attempt.outcome == outcome
    assert told in attempt.detail
    assert job(job_id).failures == (1 if state == "queued" else 0)


def test_a_short_outage_before_the_start_uses_up_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, calls = orders.build, []

    def build(claim: jobs.Claim) -> dict[str, Any]:
        calls.append(claim)
        return no_database() if len(calls) == 1 else honest(claim)  # type: ignore[return-value]

    monkeypatch.setattr(orders, "build", build)
    job_id = submit("artifacts")
    assert run(job_id) == "succeeded"
    assert (len(calls), job(job_id).attempt, job(job_id).failures) == (2, 1, 0)


def test_a_disk_that_is_full_at_the_end_costs_the_attempt_and_not_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the trainer left is there for the next one."""
    job_id = submit("artifacts")
    with monkeypatch.context() as full:
        full.setattr(Storage, "put_file", fails_with(OSError(errno.ENOSPC, "No space left on device")))
        assert run(job_id) == "disk_full"
    assert (job(job_id).state, job(job_id).failures) == ("queued", 1)
    assert (work_folder.of_job(job_id) / "attempt-1" / "final.pt").exists()
    assert run(job_id) == "succeeded"
    assert not work_folder.of_job(job_id).exists()


def test_a_trainer_that_met_a_full_disk_is_tried_again_and_counted() -> None:
    job_id = submit("disk_full")
    assert [run(job_id) for _ in range(3)] == ["disk_full"] * 3
    failed = job(job_id)
    assert (failed.state, failed.error["code"], failed.error["retryable"]) == ("failed", "DISK_FULL", True)  # type: ignore[index]


def test_notes_that_the_database_cannot_store_end_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """They never could; waiting for it would be for ever."""
    monkeypatch.setattr(jobs, "record", fails_with(DataError("INSERT", {}, Exception("out of range"))))
    job_id = submit("hang")
    assert run(job_id) == "service_error"
    assert job(job_id).error["code"] == "INTERNAL_ERROR"  # type: ignore[index]
    assert "out of range" in job(job_id).error["detail"]  # type: ignore[index]


def test_ten_preemptions_in_a_row_use_up_no_attempt_and_lose_no_work() -> None:
    job_id = submit("count_up", until=10)
    for _ in range(10):
        running = Running(job_id)
        wait_for(lambda: job(job_id).phase == "waiting")
        running.preempt.set()
        assert running.join() == "preempted"
    assert run(job_id) == "succeeded"
    assert (job(job_id).attempt, job(job_id).failures) == (11, 0)
    told = [attempt.detail for attempt in rows(Attempt, job_id)]
    assert set(told[:10]) == {"The worker test was told to end. Its checkpoint was saved."}


REAL_CHILD = """
import worker.child
worker.child.DO["compress"] = ("tests.worker.fake_child", "until_stopped")
worker.child.main()
"""


def test_a_trainer_that_is_sent_sigterm_hands_its_job_back() -> None:
    """A supervisor such as systemd ends all processes of a service at once, before their worker can speak to them."""
    job_id = submit("until_stopped")
    running = Running(job_id, command=[sys.executable, "-c", REAL_CHILD])
    wait_for(lambda: job(job_id).phase == "waiting")
    os.kill(int(logs(job_id)[0].split()[1]), signal.SIGTERM)
    assert running.join() == "preempted"
    assert (job(job_id).state, job(job_id).failures) == ("queued", 0)
    assert rows(Attempt, job_id)[0].detail == "The trainer was sent SIGTERM. Its checkpoint was saved."


def test_a_poison_job_ends_after_three_attempts_and_hardly_delays_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One worker takes what is due, the oldest first: that is the poison, each time it may be tried again."""
    monkeypatch.setenv("FEWBYTES_RETRY_PAUSE_SECONDS", "0.5")
    settings.cache_clear()
    poison = submit("crash")
    good = [submit("artifacts") for _ in range(5)]
    order = []
    while unfinished := [each for each in (poison, *good) if job(each).finished_at is None]:
        with db.reading() as session:
            due = [job_id for job_id, _ in jobs.due(session)]
        if due:
            order.append(due[0])
            run(due[0])
        assert len(order) < 20, unfinished
    assert (job(poison).state, order.count(poison)) == ("failed", 3)
    assert [(job(each).state, job(each).attempt) for each in good] == [("succeeded", 1)] * 5
    assert order[:3] == [poison, poison, good[0]], (
        "the third attempt waits, and the others do not wait for it"
    )
    lost = sum(attempt.ended_at - attempt.started_at for attempt in rows(Attempt, poison))
    assert lost < settings().lease_seconds
