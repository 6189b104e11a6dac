"""Who of a sweep may go now. Jobs of a sweep wait for two things before workers see them:

    stage   the job that does their first steps has not succeeded yet
    room    as many jobs of the sweep as may (`max_concurrent`) wait for a worker or run

`advance` is called wherever one of them ends, in that transaction. Whoever changes jobs of a sweep holds the sweep's row:
it is locked before any of its jobs', and after the tenant's, so that nobody waits in a circle.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from app import moves
from app.db import db_now
from app.errors import Problem
from app.moves import FRESH, NO_SYNC
from app.sweeps.infeasible import INFEASIBLE, SHARED_STAGE_FAILED
from app.tables import CANCELLED, FAILED, QUEUED, ROOM, STAGE, SUCCEEDED, TERMINAL, Job, Sweep

HELD: ColumnElement[str | None] = case(
    (Job.after_job_id.is_not(None), STAGE), (Job.sweep_id.is_not(None), ROOM), else_=None
)
"""What a row waits for until `advance` has looked at it."""

_Stage = aliased(Job, name="stage")


def advance(session: Session, sweep_id: str) -> None:
    """Free whoever may go, end whoever never will, note whether all is over. May be called at any time, by anybody."""
    sweep = lock(session, sweep_id)
    if sweep is None:  # it is being deleted, with its jobs
        return
    _end_followers(session, sweep_id)
    _let_begin(session, sweep_id)
    _make_room(session, sweep)
    _note_end(session, sweep)


def lock(session: Session, sweep_id: str) -> Sweep | None:
    """The sweep, locked until the transaction ends; None where there is none."""
    found = select(Sweep).where(Sweep.id == sweep_id).with_for_update()
    return session.scalar(found, execution_options=FRESH)


def lock_of(session: Session, job_id: str) -> None:
    """Before the job's own row: that of its sweep, if it has one."""
    sweep_id = session.scalar(select(Job.sweep_id).where(Job.id == job_id))
    if sweep_id is not None:
        lock(session, sweep_id)


def lock_free(session: Session, sweep_ids: Collection[str]) -> set[str]:
    """Those of these sweeps that nobody else holds just now, locked."""
    if not sweep_ids:
        return set()
    found = select(Sweep.id).where(Sweep.id.in_(sweep_ids)).order_by(Sweep.id)
    return set(session.scalars(found.with_for_update(skip_locked=True)))


def tried_together(session: Session, job: Job) -> list[str]:
    """Who is tried again with this job: those before it that did not succeed, and who failed only because of them."""
    if job.sweep_id is None:
        return []
    before, earlier = [job.id], job
    while earlier.after_job_id is not None:
        stage = session.scalar(select(Job).where(Job.id == earlier.after_job_id), execution_options=FRESH)
        if stage is None or stage.state not in (FAILED, CANCELLED):
            break
        before.append(stage.id)
        earlier = stage
    found, newest = set(before), set(before)
    while newest:
        followers = select(Job.id).where(
            Job.sweep_id == job.sweep_id,
            Job.state == FAILED,
            Job.after_job_id.in_(newest),
            Job.error["code"].as_string() == SHARED_STAGE_FAILED,
        )
        newest = set(session.scalars(followers)) - found
        found |= newest
    return sorted(found - {job.id})


def _end_followers(session: Session, sweep_id: str) -> None:
    """Those that wait for a job which failed or was cancelled end as it did; then those that wait for them."""
    while ended := _ended_stages(session, sweep_id):
        for stage in ended:
            waiting = _waiting(sweep_id, STAGE, Job.after_job_id == stage.id)
            if stage.state == CANCELLED:
                moves.move_all(session, CANCELLED, "shared_stage", *waiting)
            else:
                moves.move_all(session, FAILED, "shared_stage", *waiting, error=_because_of(stage))


def _ended_stages(session: Session, sweep_id: str) -> list[Any]:
    found = (
        select(_Stage.id, _Stage.state, _Stage.error)
        .where(_Stage.state.in_((FAILED, CANCELLED)))
        .where(_Stage.id.in_(select(Job.after_job_id).where(*_waiting(sweep_id, STAGE))))
    )
    return list(session.execute(found))


def _waiting(sweep_id: str, what: str, *where: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
    return Job.sweep_id == sweep_id, Job.state == QUEUED, Job.waits_for == what, *where


def _because_of(stage: Any) -> dict[str, Any]:
    """The error of a job whose first steps were another one's. What is infeasible there is infeasible here."""
    error: dict[str, Any] = stage.error or {}
    if error.get("code") in INFEASIBLE:
        return error
    return Problem(
        424,
        SHARED_STAGE_FAILED,
        f"Its first steps were to be done by job {stage.id}, once for several, and that failed with "
        f"{error.get('code')}: {error.get('detail')} POST …/retry of this job tries both again.",
        retryable=bool(error.get("retryable")),
    ).body()


def _let_begin(session: Session, sweep_id: str) -> None:
    """Nobody waits any longer for a job that succeeded, nor for one that is gone: its steps are then done anew."""
    unfinished = exists().where(_Stage.id == Job.after_job_id, _Stage.state != SUCCEEDED)
    session.execute(
        update(Job).where(*_waiting(sweep_id, STAGE, ~unfinished)).values(waits_for=ROOM),
        execution_options=NO_SYNC,
    )


def _make_room(session: Session, sweep: Sweep) -> None:
    most: int | None = sweep.spec.get("max_concurrent")
    waiting = _waiting(sweep.id, ROOM)
    if most is not None:
        taken = select(func.count(Job.id)).where(*_free(sweep.id))
        room = most - (session.scalar(taken) or 0)
        if room <= 0:
            return
        # What others wait for comes first.
        order = (Job.point.is_not(None), Job.priority.desc(), Job.created_at, Job.id)
        next_ones = session.scalars(select(Job.id).where(*waiting).order_by(*order).limit(room)).all()
        waiting = (*waiting, Job.id.in_(next_ones))
    session.execute(
        update(Job).where(*waiting).values(waits_for=None, dispatched_at=None), execution_options=NO_SYNC
    )


def _free(sweep_id: Any) -> tuple[ColumnElement[bool], ...]:
    """Jobs that run, or that workers may take."""
    return Job.sweep_id == sweep_id, Job.state.not_in(TERMINAL), Job.waits_for.is_(None)


def _note_end(session: Session, sweep: Sweep) -> None:
    going_on = select(Job.id).where(Job.sweep_id == sweep.id, Job.state.not_in(TERMINAL)).limit(1)
    is_over = session.scalar(going_on) is None
    if is_over == (sweep.finished_at is not None):
        return
    changes: dict[str, Any] = {"finished_at": None}
    if is_over:
        changes = {"finished_at": db_now(), "paused": False}  # there is nothing left to hold
    session.execute(
        update(Sweep).where(Sweep.id == sweep.id).values(version=Sweep.version + 1, **changes),
        execution_options=NO_SYNC,
    )


def stuck(session: Session, limit: int = 20) -> list[str]:
    """Sweeps that are not over, and of which nothing runs nor may be taken: a process of a version that knows no sweeps
    ended the last one."""
    moving = exists().where(*_free(Sweep.id))
    found = select(Sweep.id).where(Sweep.finished_at.is_(None), ~moving).order_by(Sweep.id).limit(limit)
    return list(session.scalars(found))
