"""Deleting jobs: their rows. The bytes of their artifacts are collected once no other row names them.

The order is the foreign keys': what belongs to a job goes before it.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from app import sweeps
from app.access import audit
from app.db import db_now
from app.errors import Problem, not_found
from app.moves import NO_SYNC
from app.tables import TERMINAL, Artifact, Attempt, Dataset, Event, Job, Metric, Sweep, Teacher

_DAY_SECONDS = 86400.0
_AT_ONCE = 50
_IDS_AT_ONCE = 500


def remove(session: Session, job_id: str) -> None:
    """Delete an ended job with its events, metrics, attempts and artifacts.

    Problem 404; 409 JOB_NOT_FINISHED while it may still run, IN_USE for the inspection of a teacher or data set.
    """
    sweeps.lock_of(session, job_id)
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
    if job.sweep_id is not None:
        # A caller's version of the sweep is its own and its jobs'; it never becomes smaller.
        version = Sweep.version + job.version + 1
        session.execute(
            update(Sweep).where(Sweep.id == job.sweep_id).values(version=version), execution_options=NO_SYNC
        )
    audit.record(session, "job.delete", job_id)


def delete_sweep(session: Session, sweep_id: str) -> None:
    """The sweep with all its jobs, all of which have ended. It is locked."""
    ids = session.scalars(select(Job.id).where(Job.sweep_id == sweep_id)).all()
    for first in range(0, len(ids), _IDS_AT_ONCE):
        _delete(session, ids[first : first + _IDS_AT_ONCE])
    session.execute(delete(Sweep).where(Sweep.id == sweep_id), execution_options=NO_SYNC)


def old_jobs(session: Session, keep_days: float, limit: int = _AT_ONCE) -> Sequence[str]:
    """Ids of jobs, whosever, that ended longer ago than that; no inspection that a teacher or data set refers to, and none
    of a sweep that is not over as long: its other jobs may go on from it, and are compared with it."""
    needed = or_(exists().where(Teacher.job_id == Job.id), exists().where(Dataset.job_id == Job.id))
    apart = or_(Job.sweep_id.is_(None), Job.sweep_id.in_(select(Sweep.id).where(_is_old(keep_days))))
    return session.scalars(
        select(Job.id)
        .where(Job.state.in_(TERMINAL), Job.finished_at < _before(keep_days), ~needed, apart)
        .order_by(Job.finished_at, Job.id)
        .limit(limit)
    ).all()


def _is_old(keep_days: float) -> ColumnElement[bool]:
    return and_(Sweep.finished_at.is_not(None), Sweep.finished_at < _before(keep_days))


def _before(keep_days: float) -> ColumnElement[float]:
    return db_now() - keep_days * _DAY_SECONDS


def remove_old(session: Session, keep_days: float, limit: int = _AT_ONCE) -> list[str]:
    """Delete them, and sweeps of which nothing is left; the ids. In a session of the service itself. One that is tried
    again just now is left alone."""
    found = old_jobs(session, keep_days, limit)
    of_sweeps = session.scalars(select(Job.sweep_id).where(Job.id.in_(found), Job.sweep_id.is_not(None)))
    locked = sweeps.lock_free(session, {sweep_id for sweep_id in of_sweeps if sweep_id is not None})
    still_old = set(session.scalars(select(Sweep.id).where(Sweep.id.in_(locked), _is_old(keep_days))))
    ids = session.scalars(
        select(Job.id)
        .where(Job.id.in_(found), Job.state.in_(TERMINAL))
        .where(or_(Job.sweep_id.is_(None), Job.sweep_id.in_(still_old)))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    _delete(session, ids)
    emptied = delete(Sweep).where(_is_old(keep_days), ~exists().where(Job.sweep_id == Sweep.id))
    session.execute(emptied, execution_options=NO_SYNC)
    return list(ids)


def _delete(session: Session, job_ids: Sequence[str]) -> None:
    for table in (Metric, Event, Attempt, Artifact):
        session.execute(
            delete(table).where(table.job_id.in_(job_ids)), execution_options={"synchronize_session": False}
        )
    session.execute(delete(Job).where(Job.id.in_(job_ids)), execution_options={"synchronize_session": False})
