"""Jobs under a real supervisor, whose children are the fake one."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app import db, jobs
from app.access import tenancy, tenants
from app.tables import Event, Job
from worker import supervisor, work_folder

FAKE = [sys.executable, "-m", "tests.worker.fake_child"]


def plain_order(claim: jobs.Claim) -> dict[str, Any]:
    """An order for the fake child: a work folder and what to do, without teachers and data."""
    deadline = claim.spec.get("deadline_seconds")
    return {
        "do": "compress",
        "spec": claim.spec,
        "work_dir": str(work_folder.prepare(claim)),
        "num_threads": 1,
        "deadline_seconds": deadline,
        "asked_seconds": deadline,
        "teachers": [],
        "data": {"id": "dst_1", "index_sha256": "0" * 64, "pack_sha256": None},
    }


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

    def __init__(self, job_id: str, command: list[str] = FAKE) -> None:
        self.command = command
        self.preempt = threading.Event()
        self.claim = claim(job_id)
        self.outcome = ""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.outcome = supervisor.run(self.claim, command=self.command, preempt=self.preempt)

    def join(self, seconds: float = 20.0) -> str:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self.outcome


def run(job_id: str) -> str:
    return supervisor.run(claim(job_id), command=FAKE, preempt=threading.Event())
