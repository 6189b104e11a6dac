"""Workers that were gone and do not know it: stopped until their lease is over, then waked while another has the job.

Real ones: a worker with its trainer, its supervisor alone (the trainer works on, unseen), the trainer alone. And many
in the database alone, whose every verb is tried when the job is another's and again when it is done.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import jobs
from app.access import tenancy, tenants
from app.db import db_now, reading, transaction
from app.errors import Problem
from app.storage.objects import Storage
from app.tables import Artifact, Job
from tests.faults import processes
from tests.faults.kills import SPARED, running
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import LEASE_SECONDS, NUM_WORKERS, Rig, parts_rig, up_rig
from tests.faults.work import PATIENCE_SECONDS, Work, until

WHO = ("the worker and its trainer", "the supervisor alone", "the trainer alone")


def run(options: Options) -> list[Row]:
    rows = []
    for opened in (up_rig(**SPARED), parts_rig(options.database_url, options.broker_url, **SPARED)):
        with opened as rig, Work(rig, random.Random(options.seed)) as work:
            work.undisturbed()
            rows += [campaign(rig, work, who, options) for who in WHO]
            rows.append(stale_verbs(rig.storage, rig.setup, max(50, options.rounds)))
    return rows


def campaign(rig: Rig, work: Work, who: str, options: Options, *, kind: str = "distilled") -> Row:
    """Stop and wake `options.rounds` of them, one a job."""
    row = Row(f"SIGSTOP of {who} past the lease", rig.setup)
    before = list(work.jobs)
    for number in range(options.rounds):
        job_id = work.submit(kind)
        worker, attempt = until(lambda job_id=job_id: _held(rig, job_id), PATIENCE_SECONDS, rig)
        frozen = _frozen(rig, worker, who)
        for pid in frozen:
            processes.freeze(pid)
        began = time.monotonic()
        if who != WHO[2]:
            until(lambda job_id=job_id, n=attempt: _is_past(job_id, n), PATIENCE_SECONDS, rig)
            row.recoveries.append(time.monotonic() - began)
        else:  # its supervisor keeps the lease: nobody takes the job away
            time.sleep(1.5 * LEASE_SECONDS)
        time.sleep(work.chance.uniform(0.0, 2.0))
        for pid in frozen:
            processes.thaw(pid)
        row.tried += 1
        work.wait()
        options.say(f"{number + 1}: {who} waked {time.monotonic() - began:.1f} s ago, job ended")
    ids = {job_id: digest for job_id, digest in work.expected().items() if job_id not in before}
    return judge(row, ids, rig.storage)


def _held(rig: Rig, job_id: str) -> tuple[str, int] | None:
    """Which worker has the job and as which attempt, once its trainer reported an epoch."""
    for held in running(rig):
        if held.job_id == job_id and _has_progress(job_id):
            for name in (f"worker-{n}" for n in range(1, NUM_WORKERS + 1)):
                if held.worker.endswith(f":{rig.pid(name)}"):
                    return name, held.attempt
    return None


def _has_progress(job_id: str) -> bool:
    with reading() as session:
        return session.scalar(select(Job.progress).where(Job.id == job_id)) is not None


def _frozen(rig: Rig, worker: str, who: str) -> list[int]:
    supervisor = rig.pid(worker)
    assert supervisor is not None
    return {WHO[0]: [supervisor, *rig.trainers(worker)], WHO[1]: [supervisor], WHO[2]: rig.trainers(worker)}[
        who
    ]


def _is_past(job_id: str, attempt: int) -> bool:
    with reading() as session:
        job = session.get_one(Job, job_id)
        return job.attempt > attempt or job.finished_at is not None


# ---- in the database alone


def stale_verbs(storage: Storage, setup: str, num_zombies: int) -> Row:
    """Each zombie's commit is tried while another attempt runs and after it won: it must raise Fenced."""
    row = Row("stale commits, verb by verb", setup)
    ids: dict[str, str | None] = {}
    for number in range(num_zombies):
        job_id, stale, current = _taken_over(number)
        mine, theirs = _artifact(storage, b"zombie"), _artifact(storage, f"winner {number}".encode())
        row.violations += _refused(stale, mine)
        with transaction() as session:
            jobs.finish(session, current, {"stages": []}, [theirs])
        row.violations += _refused(stale, mine)
        row.tried += 2 * len(_commits(stale, mine))
        ids[job_id] = theirs.sha256
    with reading() as session:
        stolen = session.scalars(select(Artifact.job_id).where(Artifact.sha256 == mine.sha256)).all()
    row.doubled += stolen
    return judge(row, ids, storage)


def _taken_over(number: int) -> tuple[str, jobs.Claim, jobs.Claim]:
    with tenancy.transaction(tenants.DEFAULT) as session:
        # Of its own kind of queue: the workers that run meanwhile must not take it.
        job, _ = jobs.submit(session, kind="compress", spec={"name": f"zombie {number}"})
        session.execute(
            update(Job).where(Job.id == job.id).values(queue="nobody", dispatched_at=db_now() + 1e6)
        )
        stale = jobs.claim(session, job.id, worker="zombie")
    assert stale is not None
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(lease_until=db_now() - 1))
    until(lambda: _swept(job.id), 30)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(next_attempt_at=None))
        current = jobs.claim(session, job.id, worker="another")
    assert current is not None
    return job.id, stale, current


def _swept(job_id: str) -> bool:
    """By this process or by one of the service."""
    with transaction() as session:
        jobs.sweep(session)
        return session.get_one(Job, job_id).state == "queued"


def _commits(claim: jobs.Claim, file: jobs.NewArtifact) -> dict[str, Callable[[Session], Any]]:
    problem = Problem(422, "NO", "It is not possible.")
    return {
        "finish": lambda session: jobs.finish(session, claim, {"stages": []}, [file]),
        "finish_cancel": lambda session: jobs.finish_cancel(session, claim, None, [file]),
        "fail": lambda session: jobs.fail(session, claim, problem),
        "release": lambda session: jobs.release(session, claim, outcome="preempted"),
        "record": lambda session: jobs.record(session, claim, events=[("log", {"message": "boo"})]),
        "heartbeat": lambda session: jobs.heartbeat(session, claim),
    }


def _refused(claim: jobs.Claim, file: jobs.NewArtifact) -> list[str]:
    """The commits that were let in."""
    let_in = []
    for name, commit in _commits(claim, file).items():
        try:
            with transaction() as session:
                commit(session)
        except jobs.Fenced:
            continue
        let_in.append(f"{name} of attempt {claim.attempt} of {claim.job_id} was let in")
    return let_in


def _artifact(storage: Storage, content: bytes) -> jobs.NewArtifact:
    with storage.writer() as writer:
        writer.write(content)
        sha256, size_bytes = writer.commit()
    return jobs.NewArtifact(1, "final", "final.pt", sha256, size_bytes, {})
