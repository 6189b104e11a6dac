"""Where a queued job stands: how many come before it, for how long, and what it waits for.

Others' arrival is not foreseen, and of other tenants nothing is told but how many jobs of theirs come first.
"""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.access import tenants
from app.db import db_now
from app.scheduling import durations, shares, turns, workers
from app.scheduling.turns import Share
from app.tables import QUEUED, STAGE, Job, Sweep, Worker

Reason = Literal[
    "next",
    "behind_others",
    "paused",
    "tenant_limit",
    "no_worker",
    "too_little_memory",
    "waits_before_retry",
    "shared_stage",
    "sweep_limit",
    "worker_trouble",
]
_A_JOBS_SECONDS = 60.0
"""What a job is taken for where none has succeeded yet, when what is to come is weighed against what was done."""


@dataclass(frozen=True)
class Place:
    """`position`: 1 is next; None while it is paused, or waits for others of its sweep. `eta_seconds`: until it starts;
    None: nobody can tell."""

    position: int | None
    eta_seconds: float | None
    reason: Reason
    detail: str


def place(session: Session, job: Job) -> Place:
    """Of a queued job, under the very order in which `app.scheduling.schedule.claim_next` takes them."""
    assert job.state == QUEUED, job.state
    if job.paused:
        detail = f"It is paused: POST /v1/jobs/{job.id}/resume lets workers take it again."
        return Place(None, None, "paused", detail)
    if job.waits_for is not None:
        return _behind_its_sweep(session, job)
    line = _Line(session, job)
    return _before_retry(session, job, line) or _without_worker(job, line) or _in_line(session, job, line)


class _Line:
    """A queue's line as one of its jobs sees it: who works at it, and how many come first."""

    def __init__(self, session: Session, job: Job) -> None:
        self.listening = [worker for worker in workers.alive(session) if job.queue in worker.queues]
        self.suited = [worker for worker in self.listening if _has_room(worker, job)]
        self.able = [worker for worker in self.suited if worker.trouble is None]
        busy = shares.busy_workers(session)
        self.num_busy = sum(worker.id in busy for worker in self.able)
        # What no worker could take does not come first either.
        memory_bytes = max([job.memory_bytes or 0, *(worker.memory_bytes or 0 for worker in self.able)])
        self.pace = durations.pace(session, job.queue)
        self.left = durations.seconds_left(session, job.queue, self.pace)
        self.waiting = shares.waiting(session, job.queue, memory_bytes)
        self.own_ahead = _own_ahead(session, job, memory_bytes)
        self.mine, others = self._shares(session, job, memory_bytes)
        self.others_ahead = turns.ahead_of(
            self.mine,
            self.own_ahead.number,
            others,
            num_workers=len(self.able),
            job_seconds=self.pace.mean_seconds or _A_JOBS_SECONDS,
        )
        self.position = self.own_ahead.number + sum(self.others_ahead.values()) + 1

    def _shares(self, session: Session, job: Job, memory_bytes: int) -> tuple[Share, list[Share]]:
        kind = shares.kind_of(job.queue)
        running = shares.running(session, kind)
        heads = {head.tenant_id: head for head in shares.heads(session, [job.queue], memory_bytes)}
        tenant_ids = {job.tenant_id, *heads}
        work = shares.work_seconds(session, kind, tenant_ids) if len(tenant_ids) > 1 else {}
        for tenant_id, seconds in self.left:
            work[tenant_id] = work.get(tenant_id, 0.0) + (seconds or 0.0)

        def share(tenant_id: str) -> Share:
            head = heads.get(tenant_id)
            return Share(
                tenant_id=tenant_id,
                weight=head.weight if head else tenants.find(session, tenant_id).weight,
                num_waiting=self.waiting[tenant_id].number if tenant_id in self.waiting else 0,
                num_running=running.get(tenant_id, 0),
                work_seconds=work.get(tenant_id, 0.0),
                head=(head.created_at, head.job_id) if head else (job.created_at, job.id),
            )

        return share(job.tenant_id), [share(tenant_id) for tenant_id in heads if tenant_id != job.tenant_id]

    def eta_seconds(self) -> float | None:
        """Until a worker is free for it: what runs and what comes first, divided among the workers."""
        if self.position <= len(self.able) - self.num_busy:
            return 0.0
        total = sum(seconds for _, seconds in self.left if seconds is not None)
        if any(seconds is None for _, seconds in self.left):
            return None
        for amount in [self.own_ahead, *(self.waiting[t].first(n) for t, n in self.others_ahead.items())]:
            seconds = self.pace.seconds(amount.number, amount.macs, amount.number_estimated)
            if seconds is None:
                return None
            total += seconds
        return total / len(self.able)


def _own_ahead(session: Session, job: Job, memory_bytes: int) -> shares.Amount:
    older = or_(Job.created_at < job.created_at, and_(Job.created_at == job.created_at, Job.id < job.id))
    sooner = or_(Job.priority > job.priority, and_(Job.priority == job.priority, older))
    found = shares.waiting(session, job.queue, memory_bytes, Job.tenant_id == job.tenant_id, sooner)
    return found.get(job.tenant_id, shares.NOTHING)


def _has_room(worker: Worker, job: Job) -> bool:
    return job.memory_bytes is None or job.memory_bytes <= (worker.memory_bytes or 0)


def _behind_its_sweep(session: Session, job: Job) -> Place:
    """It stands in no line yet, and delays nobody."""
    if job.waits_for == STAGE:
        stage = session.get(Job, job.after_job_id)
        state = stage.state if stage is not None else "gone"
        steps = "its first step" if job.begun_steps == 1 else f"its first {job.begun_steps} steps"
        detail = f"Job {job.after_job_id}, which is {state}, does {steps}, once for several: it goes on from there."
        return Place(None, None, "shared_stage", detail)
    sweep = session.get(Sweep, job.sweep_id)
    most = sweep.spec.get("max_concurrent") if sweep is not None else None
    detail = (
        f"The sweep {job.sweep_id} has max_concurrent {most}: it starts when another of its jobs has ended."
    )
    return Place(None, None, "sweep_limit", detail)


def _before_retry(session: Session, job: Job, line: _Line) -> Place | None:
    if job.next_attempt_at is None:
        return None
    left = job.next_attempt_at - session.scalars(select(db_now())).one()
    if left <= 0:
        return None
    detail = f"{job.failures} attempts at it were lost: the next may start in {left:.0f} s, by itself."
    return Place(line.position, left, "waits_before_retry", detail)


def _without_worker(job: Job, line: _Line) -> Place | None:
    """What keeps every worker from it, if that is so."""
    if not line.listening:
        start = f"`fewbytes worker --queues {job.queue}`" + (
            " on a machine with a GPU" * (job.queue == "gpu")
        )
        detail = f'No worker takes jobs of the queue "{job.queue}": {start} starts one.'
        return Place(line.position, None, "no_worker", detail)
    if not line.suited:
        most = max(worker.memory_bytes or 0 for worker in line.listening)
        detail = (
            f"Its memory_bytes is {job.memory_bytes}, and the most that any of {len(line.listening)} workers has is "
            f"{most}: start a larger worker, or cancel the job and POST it again with less."
        )
        return Place(line.position, None, "too_little_memory", detail)
    if not line.able:
        detail = f"{len(line.suited)} workers could take it, but take nothing now: {line.suited[0].trouble}"
        return Place(line.position, None, "worker_trouble", detail)
    return None


def _in_line(session: Session, job: Job, line: _Line) -> Place:
    ahead, running = line.own_ahead.number, line.mine.num_running
    most = tenants.limits(session, job.tenant_id).max_running_jobs if job.kind == "compress" else 0
    if most and running + ahead >= most:
        detail = (
            f"Of the {most} jobs that you may have running, {running} run, and {ahead} more come before this one: it "
            "starts when enough of them have ended. The operator can raise the limit."
        )
        return Place(line.position, None, "tenant_limit", detail)
    who = f"Of {len(line.able)} workers that may take it, {line.num_busy} are busy."
    if line.position == 1:
        return Place(1, line.eta_seconds(), "next", f"It is next. {who}")
    detail = (
        f"{ahead} jobs of yours and {sum(line.others_ahead.values())} of others come first. {who} A higher priority "
        "puts a job before others of yours."
    )
    return Place(line.position, line.eta_seconds(), "behind_others", detail)
