"""Deleting jobs: their rows. The bytes of their artifacts are collected once no other row names them.

The order is the foreign keys': what belongs to a job goes before it.
"""

from collections.abc import Sequence

from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import Session

from app import audit
from app.db import db_now
from app.errors import Problem, not_found
from app.tables import TERMINAL, Artifact, Attempt, Dataset, Event, Job, Metric, Teacher

_DAY_SECONDS = 86400.0
_AT_ONCE = 50


def remove(session: Session, job_id: str) -> None:
    """Delete an ended job with its events, metrics, attempts and artifacts.

    Problem 404; 409 JOB_NOT_FINISHED while it may still run, IN_USE for the inspection of a teacher or data set.
    """
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None:
        raise not_found("job", job_id)
    if job.state not in TERMINAL:
        raise Problem(
            409,
            "JOB_NOT_FINISHED",
            f"Job {job_id} is {job.state}: only one that has ended can be deleted. Cancel it first.",
        )
    inspected = [
        session.scalar(select(table.id).where(table.job_id == job_id)) for table in (Teacher, Dataset)
    ]
    for ident in filter(None, inspected):
        raise Problem(
            409, "IN_USE", f"Job {job_id} is the inspection of {ident}, which needs it: delete that."
        )
    _delete(session, [job_id])
    audit.record(session, "job.delete", job_id)


def old_jobs(session: Session, keep_days: float, limit: int = _AT_ONCE) -> Sequence[str]:
    """Ids of jobs, whosever, that ended longer ago than that; no inspection that a teacher or data set refers to."""
    needed = or_(exists().where(Teacher.job_id == Job.id), exists().where(Dataset.job_id == Job.id))
    return session.scalars(
        select(Job.id)
        .where(Job.state.in_(TERMINAL), Job.finished_at < db_now() - keep_days * _DAY_SECONDS, ~needed)
        .order_by(Job.finished_at, Job.id)
        .limit(limit)
    ).all()


def remove_old(session: Session, keep_days: float, limit: int = _AT_ONCE) -> list[str]:
    """Delete them; the ids. In a session of the service itself. One that is tried again just now is left alone."""
    found = old_jobs(session, keep_days, limit)
    ids = session.scalars(
        select(Job.id)
        .where(Job.id.in_(found), Job.state.in_(TERMINAL))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    _delete(session, ids)
    return list(ids)


def _delete(session: Session, job_ids: Sequence[str]) -> None:
    for table in (Metric, Event, Attempt, Artifact):
        session.execute(
            delete(table).where(table.job_id.in_(job_ids)), execution_options={"synchronize_session": False}
        )
    session.execute(delete(Job).where(Job.id.in_(job_ids)), execution_options={"synchronize_session": False})
