"""The worker looks for work by itself and when it is told, does one job at a time, and ends in order."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app import db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.jobs import Claim
from app.scheduling.schedule import Offer
from app.settings import settings
from app.starting import gpu
from app.tables import Job, Worker
from tests.servers import Broker
from worker import main
from worker.hands import Hands

OFFER = Offer(worker="host:1", queues=("compress", "inspect"), memory_bytes=1 << 40)


class Work:
    """What the hands do with a claim: finish it, when it may; it notices two jobs at once."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.may_finish = threading.Event()
        self.may_finish.set()
        self._one_at_a_time = threading.Lock()

    def do(self, claim: Claim) -> str:
        assert self._one_at_a_time.acquire(blocking=False), "two jobs at once"
        self.may_finish.wait(20)
        with db.transaction() as session:
            jobs.finish(session, claim, {})
        self.done.append(claim.job_id)
        self._one_at_a_time.release()
        return "succeeded"


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def ending() -> threading.Event:
    return threading.Event()


@pytest.fixture
def hands(sqlite_database: str, work: Work, ending: threading.Event) -> Iterator[Hands]:
    made = Hands(OFFER, work.do, ending=ending)
    yield made
    work.may_finish.set()
    made.stop()
    assert not made._thread.is_alive()


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """So rarely that a test would notice if it waited for that."""
    monkeypatch.setattr(settings(), "poll_seconds", 60.0)


def submit(number: int = 1, **spec: Any) -> list[str]:
    with tenancy.transaction(DEFAULT) as session:
        return [jobs.submit(session, kind="compress", spec=spec)[0].id for _ in range(number)]


def eventually(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it never came to hold"
        time.sleep(0.02)


def test_without_any_message_it_finds_what_waits(hands: Hands, work: Work) -> None:
    """Both what was there before it and what comes later; one job after the other, without a pause between them."""
    before = submit(20)
    hands.start()
    eventually(lambda: work.done == before, seconds=5)  # far less than twenty looks a second apart
    later = submit()
    eventually(lambda: work.done == before + later, seconds=5)


@pytest.mark.usefixtures("rarely")
def test_a_message_makes_it_look_at_once(hands: Hands, work: Work) -> None:
    """Whichever job it names; it is answered when what was found is done."""
    hands.start()
    time.sleep(0.2)
    ids = submit(1)
    hands.look()
    assert work.done == ids
    hands.look()  # a stale one: nothing waits
    assert work.done == ids


@pytest.mark.usefixtures("rarely")
def test_messages_that_come_while_it_works_wait_and_find_their_job(hands: Hands, work: Work) -> None:
    """So the broker gives a busy worker no more of them; they are for others."""
    hands.start()
    work.may_finish.clear()
    submit(1)
    talks = [threading.Thread(target=hands.look) for _ in range(3)]
    talks[0].start()
    eventually(lambda: hands.job_id is not None)
    submit(2)
    for talk in talks[1:]:
        talk.start()
    time.sleep(0.2)
    assert all(talk.is_alive() for talk in talks)
    work.may_finish.set()
    for talk in talks:
        talk.join(10)
        assert not talk.is_alive()
    eventually(lambda: len(work.done) == 3, seconds=5)


def test_the_end_waits_for_the_running_job_and_begins_no_other(
    hands: Hands, work: Work, ending: threading.Event
) -> None:
    work.may_finish.clear()
    first, _ = submit(2)
    hands.start()
    eventually(lambda: hands.job_id == first)
    caller = threading.Thread(target=hands.look)
    caller.start()
    ending.set()
    threading.Timer(0.3, work.may_finish.set).start()
    hands.stop()
    assert work.done == [first]
    caller.join(5)
    assert not caller.is_alive()
    hands.look()  # too late: it answers all the same


def test_in_trouble_it_takes_nothing_and_says_why(
    sqlite_database: str, work: Work, ending: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "poll_seconds", 0.05)
    troubles = ["Only 3 MB are free."]
    hands = Hands(OFFER, work.do, ending=ending, trouble=lambda: troubles[0] if troubles else None)
    ids = submit()
    hands.start()
    time.sleep(0.3)
    assert (work.done, hands.trouble) == ([], "Only 3 MB are free.")
    troubles.clear()
    eventually(lambda: work.done == ids)
    hands.stop()
    assert hands.trouble is None


def test_a_database_that_is_away_and_a_bug_are_outlived(
    hands: Hands,
    work: Work,
    sqlite_database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(settings(), "poll_seconds", 0.05)
    db.configure("postgresql://nobody@127.0.0.1:1/nothing")
    hands.start()
    eventually(lambda: "cannot look for jobs" in caplog.text)
    hands.look()  # answered, though nothing could be looked at
    do = work.do
    monkeypatch.setattr(hands, "_do", lambda claim: 1 / 0)
    db.configure(sqlite_database)
    submit()
    eventually(lambda: "ZeroDivisionError" in caplog.text)
    monkeypatch.setattr(hands, "_do", do)
    ids = submit()
    eventually(lambda: work.done == ids)


# ---- the process


def start(*arguments: str, database: str, broker: str, folder: Path) -> "subprocess.Popen[str]":
    environment = {
        "PATH": "",
        "DATABASE_URL": database,
        "BROKER_URL": broker,
        "FEWBYTES_DATA_DIR": str(folder),
        "FEWBYTES_LEASE_SECONDS": "4",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "worker.main", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def state(job_id: str) -> str:
    with db.reading() as session:
        return session.get_one(Job, job_id).state


def workers() -> list[Worker]:
    with db.reading() as session:
        return list(session.scalars(select(Worker)))


def gone(**changes: Any) -> str:
    """A job that ends as soon as somebody takes it: its teacher is gone."""
    steps = [{"method": "distill", "student": "student_net"}]
    [job_id] = submit(1, teachers=["tch_0"], dataset="dst_0", steps=steps, **changes)
    return job_id


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_worker_works_with_a_broker_that_is_dead_or_frozen_from_the_start(
    sqlite_database: str, broker: Broker, tmp_path: Path, fault: str
) -> None:
    """It does what waits, tells that it is there, hears of its broker once that is back, and ends when told to."""
    getattr(broker, fault)()
    first = gone()
    process = start("--queues", "compress", database=sqlite_database, broker=broker.url, folder=tmp_path)
    try:
        eventually(lambda: state(first) == "failed")
        [seen] = workers()
        assert (seen.queues, seen.memory_bytes) == (
            ["compress"],
            settings().worker_memory_bytes or seen.memory_bytes,
        )
        assert (seen.memory_bytes or 0) > 1 << 28
        second = gone()
        eventually(lambda: state(second) == "failed", seconds=4)
    finally:
        broker.thaw()  # else the goodbye takes the ten seconds that an answer of the broker's may take
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert workers() == []


def test_a_machine_without_a_gpu_leaves_such_jobs_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said only to somebody who asked for them by name."""
    monkeypatch.setattr(gpu, "present", lambda: False)
    assert main._queues([]) == ["compress", "inspect"]
    assert caplog.text == ""
    assert main._queues(["--queues", "compress,gpu"]) == ["compress"]
    assert "no GPU" in caplog.text
    with pytest.raises(SystemExit):
        main._queues(["--queues", "gpu"])
    assert "no GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main._queues(["--queues", "compress,misspelt"])
    monkeypatch.setattr(gpu, "present", lambda: True)
    assert main._queues([]) == ["compress", "gpu", "inspect"]


def test_a_worker_offers_its_gpus_memory_or_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "present", lambda: True)
    monkeypatch.setattr(gpu, "memory_bytes", lambda: 24 << 30)
    assert (main.offer(["gpu"]).memory_bytes, main.offer(["gpu"]).device) == (24 << 30, "cuda")
    monkeypatch.setattr(gpu, "memory_bytes", lambda: None)
    monkeypatch.setattr(main, "machine_bytes", lambda: 7)
    assert main.offer(["gpu"]).memory_bytes == 7
    monkeypatch.setattr(settings(), "worker_memory_bytes", 5)
    assert main.offer(["gpu"]).memory_bytes == 5


NVIDIA_SMI = """#!/bin/sh
echo "0, GPU-aaaa, 81559"
echo "1, GPU-bbbb, 24564"
echo "2, GPU-cccc, [N/A]"
"""


@pytest.mark.parametrize(
    ("visible", "mib"),
    [(None, 81559), ("0", 81559), ("1,0", 24564), ("GPU-bbbb", 24564), ("2", None), ("7", None)],
)
def test_a_gpus_memory_is_what_nvidia_smi_says_of_the_first_visible_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, mib: int | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.memory_bytes() == (None if mib is None else mib << 20)
    program.unlink()
    assert gpu.memory_bytes() is None
