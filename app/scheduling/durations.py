"""How long jobs take, judged by the last ones of their queue that succeeded."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.tenancy import EVERY_TENANT
from app.db import db_now
from app.tables import CANCELLING, RUNNING, SUCCEEDED, Attempt, Job

_LAST = 20


@dataclass(frozen=True)
class Pace:
    """None: no job of this queue that would tell has succeeded yet."""

    macs_per_second: float | None
    mean_seconds: float | None

    def seconds(self, number: int, macs: float, number_estimated: int) -> float | None:
        """What so many jobs take one after the other: `macs` are those of the `number_estimated` among them."""
        by_macs = 0.0
        if self.macs_per_second is not None:
            by_macs = macs / self.macs_per_second
            number -= number_estimated
        if number <= 0:
            return by_macs
        return None if self.mean_seconds is None else by_macs + number * self.mean_seconds


def pace(session: Session, queue: str) -> Pace:
    """Of the workers that took this queue's last jobs. Attempts that were lost count: they took their time."""
    spent = (
        select(func.sum(Attempt.ended_at - Attempt.started_at))
        .where(Attempt.job_id == Job.id)
        .correlate(Job)
        .scalar_subquery()
    )
    last = (
        select(Job.estimated_macs, spent)
        .where(Job.state == SUCCEEDED, Job.queue == queue)
        .order_by(Job.finished_at.desc())
        .limit(_LAST)
    )
    rows = session.execute(last, execution_options=EVERY_TENANT).all()
    took = [(macs, seconds) for macs, seconds in rows if seconds]  # without attempts it came from the cache
    estimated = [(macs, seconds) for macs, seconds in took if macs]
    all_seconds = sum(seconds for _, seconds in took)
    speed = (
        sum(macs for macs, _ in estimated) / sum(seconds for _, seconds in estimated) if estimated else None
    )
    return Pace(speed, all_seconds / len(took) if took else None)


def seconds_left(session: Session, queue: str, known: Pace) -> list[tuple[str, float | None]]:
    """(tenant id, seconds) of every running job of this queue: what it says itself, else what is usual."""
    query = select(Job.tenant_id, Job.progress, Job.estimated_macs, db_now() - Job.started_at).where(
        Job.state.in_((RUNNING, CANCELLING)), Job.queue == queue
    )
    found: list[tuple[str, float | None]] = []
    for tenant_id, progress, macs, elapsed in session.execute(query, execution_options=EVERY_TENANT):
        left: float | None = (progress or {}).get("eta_seconds")
        if left is None:
            usual = known.seconds(1, macs or 0.0, int(macs is not None))
            left = None if usual is None else max(0.0, usual - elapsed)
        found.append((tenant_id, left))
    return found
