"""Between tenants: who waits with what, who has how much running, who had how much done lately.

Inspections and jobs that compress are two lines: a tenant's share of the one says nothing about the other.
Counts of all tenants are read here whoever asks; what is told to a caller is `app.scheduling.places`' business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from app.access.tenancy import EVERY_TENANT
from app.db import db_now
from app.jobs import ready
from app.settings import settings
from app.tables import CANCELLING, RUNNING, Attempt, Job, Tenant

TURN = (Job.priority.desc(), Job.created_at, Job.id)
"""The order of one tenant's jobs."""


@dataclass(frozen=True)
class Head:
    """A tenant's next job, in this line. `most`: how many it may have running; 0: any number."""

    tenant_id: str
    weight: float
    most: int
    job_id: str
    created_at: float


def kind_of(queue: str) -> str:
    """The kind of job that a queue holds."""
    return "inspect" if queue == "inspect" else "compress"


def fits(memory_bytes: int | None) -> ColumnElement[bool]:
    """Whether a job is content with so much memory. None: nothing is known of the worker, so only jobs that ask for
    none fit."""
    if memory_bytes is None:
        return Job.memory_bytes.is_(None)
    return or_(Job.memory_bytes.is_(None), Job.memory_bytes <= memory_bytes)


def heads(session: Session, queues: Sequence[str], memory_bytes: int | None) -> list[Head]:
    """Each tenant's next job of these queues (of one kind) that may be claimed now and needs no more memory."""
    # One look into the index for each tenant and queue; a query over all waiting rows would read all of them.
    nexts = [
        select(Job.id)
        .where(Job.tenant_id == Tenant.id, Job.queue == queue, *ready(db_now()), fits(memory_bytes))
        .order_by(*TURN)
        .limit(1)
        .correlate(Tenant)
        .scalar_subquery()
        for queue in queues
    ]
    rows = session.execute(
        select(Tenant.id, Tenant.weight, Tenant.max_running_jobs, *nexts), execution_options=EVERY_TENANT
    )
    tenants = {row[0]: row for row in rows if any(row[3:])}
    ids = [job_id for row in tenants.values() for job_id in row[3:] if job_id]
    in_turn = select(Job.tenant_id, Job.id, Job.created_at).where(Job.id.in_(ids)).order_by(*TURN)
    found: dict[str, Head] = {}
    for tenant_id, job_id, created_at in session.execute(in_turn, execution_options=EVERY_TENANT):
        _, weight, most, *_ = tenants[tenant_id]
        limit = _limit(kind_of(queues[0]), most)
        found.setdefault(tenant_id, Head(tenant_id, weight, limit, job_id, created_at))
    return list(found.values())


def _limit(kind: str, own: int | None) -> int:
    if kind == "inspect":
        return 0
    return settings().tenant_max_running_jobs if own is None else own


def running(session: Session, kind: str) -> dict[str, int]:
    """How many jobs of this kind each tenant has running; those with none are left out."""
    counted = (
        select(Job.tenant_id, func.count(Job.id))
        .where(Job.kind == kind, Job.state.in_((RUNNING, CANCELLING)))
        .group_by(Job.tenant_id)
    )
    rows = session.execute(counted, execution_options=EVERY_TENANT)
    return {row[0]: row[1] for row in rows}


def busy_workers(session: Session) -> set[str | None]:
    """The names of those that have a job, of whatever kind."""
    held = select(Job.lease_owner).where(Job.state.in_((RUNNING, CANCELLING)))
    return set(session.scalars(held, execution_options=EVERY_TENANT))


def work_seconds(session: Session, kind: str, tenant_ids: Iterable[str]) -> dict[str, float]:
    """Seconds of attempts that these tenants had within the last `fair_share_hours`, what runs included."""
    # As a number: PostgreSQL reads the clock anew for each row, and so uses no index for what it is compared with.
    now = session.scalars(select(db_now())).one()
    since = now - 3600 * settings().fair_share_hours
    ended = func.coalesce(Attempt.ended_at, now)
    started = case((Attempt.started_at < since, since), else_=Attempt.started_at)
    asked = set(tenant_ids)
    summed = (
        select(Job.tenant_id, func.sum(ended - started))
        .join(Job, Job.id == Attempt.job_id)
        .where(
            or_(Attempt.ended_at.is_(None), Attempt.ended_at > since),
            Job.kind == kind,
            Job.tenant_id.in_(asked),
        )
        .group_by(Job.tenant_id)
    )
    found = {row[0]: row[1] for row in session.execute(summed, execution_options=EVERY_TENANT)}
    return {tenant_id: max(0.0, float(found.get(tenant_id) or 0.0)) for tenant_id in asked}


@dataclass(frozen=True)
class Amount:
    """So many jobs; `macs`: the estimated multiply-adds of the `number_estimated` among them that have an estimate."""

    number: int
    macs: float
    number_estimated: int

    def first(self, number: int) -> "Amount":
        """So many of them, taken as average ones."""
        share = number / self.number if self.number else 0.0
        return Amount(number, share * self.macs, round(share * self.number_estimated))


NOTHING = Amount(0, 0.0, 0)


def waiting(
    session: Session, queue: str, memory_bytes: int | None, *where: ColumnElement[bool]
) -> dict[str, Amount]:
    """By tenant, the jobs of this queue that may be claimed now and need no more memory."""
    counted = (
        select(
            Job.tenant_id,
            func.count(Job.id),
            func.sum(Job.estimated_macs),
            func.count(Job.estimated_macs),
        )
        .where(Job.queue == queue, *ready(db_now()), fits(memory_bytes), *where)
        .group_by(Job.tenant_id)
    )
    rows = session.execute(counted, execution_options=EVERY_TENANT)
    return {row[0]: Amount(row[1], row[2] or 0.0, row[3]) for row in rows}
