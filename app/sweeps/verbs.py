"""What callers do with a sweep as a whole: one statement for many jobs, each change told in each job's events.

Every function locks the sweep's row first; the caller commits by leaving its transaction.
"""

from typing import Any

from sqlalchemy import ColumnElement, false, select, true, update
from sqlalchemy.orm import Session

from app import moves, sweeps
from app.access import audit, quotas
from app.access.tenancy import tenant_of
from app.errors import Problem, not_found
from app.moves import NO_SYNC
from app.storage import removal
from app.sweeps.infeasible import infeasible
from app.tables import CANCELLED, CANCELLING, FAILED, QUEUED, RUNNING, TERMINAL, Job, Sweep


def cancel(session: Session, sweep_id: str) -> None:
    """What waits is cancelled, what runs stops and keeps its best student. Problem 409 SWEEP_FINISHED, 404."""
    sweep = _unfinished(session, sweep_id, "cancel")
    stopped = moves.move_all(session, CANCELLED, "cancel_requested", *_of(sweep), Job.state == QUEUED)
    stopped += moves.move_all(session, CANCELLING, "cancel_requested", *_of(sweep), Job.state == RUNNING)
    if stopped:
        sweeps.advance(session, sweep_id)
        _changed(session, sweep, "sweep.cancel", jobs=len(stopped))


def pause(session: Session, sweep_id: str) -> None:
    """Hold all that waits; have what runs saved and handed back. Problem 409 SWEEP_FINISHED, 404."""
    sweep = _unfinished(session, sweep_id, "pause")
    held = moves.note_all(
        session, "paused", *_of(sweep), Job.state.in_((QUEUED, RUNNING)), Job.paused == false(), paused=True
    )
    if held or not sweep.paused:
        _changed(session, sweep, "sweep.pause", paused=True)


def resume(session: Session, sweep_id: str) -> None:
    """Let workers take its jobs again, those paused by themselves included. Problem 409 SWEEP_FINISHED, 404."""
    sweep = _unfinished(session, sweep_id, "resume")
    freed = moves.note_all(
        session, "resumed", *_of(sweep), Job.paused == true(), paused=False, dispatched_at=None
    )
    if freed or sweep.paused:
        _changed(session, sweep, "sweep.resume", paused=False)


def retry(session: Session, sweep_id: str) -> None:
    """Queue again what failed or was cancelled, not what is infeasible. Problem 409 NOTHING_TO_RETRY, 404; 429
    TOO_MANY_JOBS."""
    quotas.lock_for_queueing(session, tenant_of(session))
    sweep = _locked(session, sweep_id)
    again = moves.move_all(
        session,
        QUEUED,
        "retry",
        *_of(sweep),
        Job.state.in_((FAILED, CANCELLED)),
        ~infeasible(),
        **moves.QUEUED_AGAIN,
        waits_for=sweeps.HELD,
        paused=sweep.paused,
    )
    if not again:
        raise Problem(
            409,
            "NOTHING_TO_RETRY",
            f"No job of sweep {sweep_id} failed or was cancelled. What is infeasible stays so however often it is tried.",
        )
    sweeps.advance(session, sweep_id)
    quotas.check_queue(session, sweep.tenant_id)
    _changed(session, sweep, "sweep.retry", jobs=len(again))


def delete(session: Session, sweep_id: str) -> None:
    """Delete the sweep and all its jobs. Problem 409 SWEEP_NOT_FINISHED while one of them has not ended, 404."""
    sweep = _locked(session, sweep_id)
    open_ones = session.scalars(select(Job.id).where(*_of(sweep), Job.state.not_in(TERMINAL))).all()
    if open_ones:
        raise Problem(
            409,
            "SWEEP_NOT_FINISHED",
            f"{len(open_ones)} jobs of sweep {sweep_id} have not ended: only one that is over can be deleted. "
            "Cancel it first.",
        )
    removal.delete_sweep(session, sweep_id)
    audit.record(session, "sweep.delete", sweep_id)


def _of(sweep: Sweep) -> tuple[ColumnElement[bool], ...]:
    return (Job.sweep_id == sweep.id,)


def _locked(session: Session, sweep_id: str) -> Sweep:
    """Problem 404."""
    sweep = sweeps.lock(session, sweep_id)
    if sweep is None:
        raise not_found("sweep", sweep_id)
    return sweep


def _unfinished(session: Session, sweep_id: str, verb: str) -> Sweep:
    sweep = _locked(session, sweep_id)
    if sweep.finished_at is not None:
        raise Problem(
            409,
            "SWEEP_FINISHED",
            f"All jobs of sweep {sweep_id} have ended: there is nothing left to {verb}.",
        )
    return sweep


def _changed(
    session: Session, sweep: Sweep, action: str, *, paused: bool | None = None, **detail: Any
) -> None:
    changes: dict[str, Any] = {} if paused is None else {"paused": paused}
    session.execute(
        update(Sweep).where(Sweep.id == sweep.id).values(version=Sweep.version + 1, **changes),
        execution_options=NO_SYNC,
    )
    audit.record(session, action, sweep.id, **detail)
