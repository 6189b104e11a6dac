"""SIGKILL at random: API, workers, trainers and what forks them, broker, database, `fewbytes up` itself.

After each the time is taken until every job that ran is being worked on again. At the end each job must have
succeeded, once, with the bytes of the undisturbed run.
"""

import random
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx
import psycopg
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app.db import reading
from app.tables import CANCELLING, RUNNING, Job
from tests.faults import processes
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import NUM_WORKERS, PartsRig, Rig, UpRig, parts_rig, up_rig
from tests.faults.work import PATIENCE_SECONDS, Work, until

NUM_JOBS = NUM_WORKERS
"""Under way at any time: a job that lost its worker finds a place as soon as there is one."""
# A random kill may hit the same job any number of times; that three losses are the most is another campaign's.
SPARED = {"FEWBYTES_MAX_FAILURES": "1000", "FEWBYTES_RETRY_PAUSE_SECONDS": "0"}


@dataclass(frozen=True)
class Holding:
    """A job that ran when the fault came."""

    job_id: str
    attempt: int
    worker: str
    lease_until: float


def run(options: Options) -> list[Row]:
    rigs: list[AbstractContextManager[Rig]] = [
        up_rig(**SPARED),
        parts_rig(options.database_url, options.broker_url, **SPARED),
    ]
    return [campaign(rig, options) for rig in rigs]


def campaign(opened: AbstractContextManager[Rig], options: Options) -> Row:
    with opened as rig, Work(rig, random.Random(options.seed)) as work:
        work.undisturbed()
        row = Row("SIGKILL at random", rig.setup)
        some(work, row, options)
        work.wait()
        return judge(row, work.expected(), rig.storage)


def some(work: Work, row: Row, options: Options) -> None:
    """`options.rounds` of them, with jobs under way all the time."""
    for number in range(options.rounds):
        work.keep(NUM_JOBS)
        name = work.chance.choice(targets(work.rig))
        struck = strike(work.rig, name, work.chance)
        if struck is not None:
            name, seconds = struck
            row.tried += 1
            row.recoveries.append(seconds)
            options.say(f"{number + 1}: killed {name}, at work again after {seconds:.1f} s")
        time.sleep(work.chance.uniform(0.0, 1.0))


def targets(rig: Rig) -> list[str]:
    """What can be killed here."""
    everywhere = ["api", "worker", "trainer", "trainer", "inspector"]
    if isinstance(rig, UpRig):
        return [*everywhere, "broker", "up"]
    assert isinstance(rig, PartsRig)
    servers = {"broker": rig.broker, "database": rig.postgres, "one connection's server": rig.postgres}
    return everywhere + [name for name, server in servers.items() if server is not None]


def strike(rig: Rig, name: str, chance: random.Random) -> tuple[str, float] | None:
    """Kill it once a job runs. What it was, and the seconds until all that ran is at work again.

    None: it was gone before.
    """
    before = until(lambda: running(rig), PATIENCE_SECONDS, rig)
    worker = f"worker-{chance.randint(1, NUM_WORKERS)}"
    supervisor = rig.pid(worker)
    victim = _victim(rig, name, worker, chance)
    if victim is None:
        return None
    if name == "trainer" and processes.forks_trainers(victim):
        name = "warm parent"  # what it forked goes on without it
    what = f"{name} ({processes.name(victim)})"
    if not processes.kill(victim):
        return None
    at = time.monotonic()
    orphaned = [
        held
        for held in before
        if name == "up" or (name in ("worker", "trainer") and held.worker.endswith(f":{supervisor}"))
    ]
    until(lambda: _answers(rig) and all_at_work(before, orphaned), PATIENCE_SECONDS, rig)
    return what, time.monotonic() - at


def _victim(rig: Rig, name: str, worker: str, chance: random.Random) -> int | None:
    """The id of a process that is what `name` says."""
    if name == "trainer":
        found = rig.trainers(worker)
    elif name == "one connection's server":
        assert isinstance(rig, PartsRig)
        found = _backends(rig)
    else:
        pid = rig.pid(worker if name == "worker" else name)
        found = [pid] if pid is not None else []
    return chance.choice(found) if found else None


def running(rig: Rig) -> list[Holding]:
    try:
        with reading() as session:
            rows = session.execute(
                select(Job.id, Job.attempt, Job.lease_owner, Job.lease_until).where(
                    Job.state.in_((RUNNING, CANCELLING)), Job.kind == "compress"
                )
            )
            return [Holding(*row) for row in rows]
    except DBAPIError:
        return []


def all_at_work(before: Iterable[Holding], orphaned: Iterable[Holding]) -> bool:
    """Each job ended, or has a later attempt, or (where its worker lives) a lease that was renewed since."""
    try:
        with reading() as session:
            for held in before:
                job = session.get_one(Job, held.job_id)
                again = job.attempt > held.attempt or job.state not in ("running", "cancelling", "queued")
                renewed = (
                    job.state != "queued"
                    and job.lease_until is not None
                    and job.lease_until > held.lease_until
                )
                if not (again or (renewed and held not in orphaned)):
                    return False
    except DBAPIError:  # the database is what was killed
        return False
    return True


def _backends(rig: PartsRig) -> list[int]:
    """When one of them is killed, PostgreSQL ends all its connections and recovers from its log."""
    with psycopg.connect(rig.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    return [pid for (pid,) in rows]


def _answers(rig: Rig) -> bool:
    try:
        return httpx.get(f"{rig.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
