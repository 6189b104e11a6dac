"""The verbs of a job. Every transition is one compare-and-set; every worker's write is fenced by its attempt.

    queued ──claim──▶ running ──finish──▶ succeeded
       │                 │ ├────fail────▶ failed
       ├──reuse──▶ succeeded └─release──▶ queued     (handed back, or lost with tries left; else failed)
       └──cancel──┐      └──cancel──▶ cancelling ──finish_cancel──▶ cancelled
                  └───────────────────────────────────────────────▶ cancelled

`paused` is a flag beside these states: nobody claims a job that has it, and a running one is handed back. Nor does anybody
claim a job of a sweep that `waits_for` others (`app.sweeps`); of those, queued ones may also become failed, unclaimed.

Every function takes an open session inside `app.db.transaction()`; the caller commits by leaving that block.
Every attempt ends with one of `OUTCOMES` and a sentence; `app.retries` says what follows from it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app import moves, retries, sweeps
from app.access import audit, quotas
from app.access.tenancy import tenant_of
from app.canonical import fingerprint
from app.db import db_now, new_id, storable_text
from app.errors import Problem, not_found
from app.moves import FRESH, NO_SYNC, num_changed, upserting
from app.moves import NewArtifact as NewArtifact
from app.retries import OUTCOMES
from app.settings import settings
from app.tables import (
    CANCELLED,
    CANCELLING,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TERMINAL,
    Attempt,
    Job,
    Metric,
)

ID_PREFIXES = {"compress": "job", "inspect": "ins"}
IDEMPOTENCY = ("tenant_id", "idempotency_key")
SUBMITTED = ("state", {"state": QUEUED, "attempt": 0, "reason": "submitted"})
"""The first event of a job."""
METRIC_KEY = ("job_id", "seed", "step", "epoch", "split", "name")
DEVICE_CHARACTERS = 80

# What a heartbeat says of a running job that somebody paused; no state of the row.
PAUSING = "pausing"


class Fenced(Exception):
    """This attempt is no longer the one that counts: stop at once, write nothing more."""


@dataclass(frozen=True)
class Claim:
    """What a worker holds: the job and the attempt that fences its writes."""

    job_id: str
    attempt: int
    kind: str
    spec: dict[str, Any]
    worker: str


def submit(
    session: Session,
    *,
    kind: str,
    spec: dict[str, Any],
    name: str | None = None,
    labels: dict[str, str] | None = None,
    idempotency_key: str | None = None,
    result_key: str | None = None,
    estimated_macs: float | None = None,
) -> tuple[Job, bool]:
    """Insert a queued job (kind "compress" or "inspect") of the session's tenant.

    `result_key`: equal for jobs that do the same work on the same bytes. What the spec says of `device`, `priority` and
    `memory_bytes` decides who claims it, and when; `estimated_macs` (multiply-adds of all seeds) how long it is expected
    to take. The outbox rings.

    Returns the job and whether it is a replay of the same idempotency key. Problem 422 IDEMPOTENCY_KEY_REUSED when the
    key came with another body; 429 TOO_MANY_JOBS, 403 QUOTA_EXCEEDED.
    """
    assert kind in ID_PREFIXES, kind
    tenant_id = tenant_of(session)
    quotas.lock_for_queueing(session, tenant_id)
    job_id = new_id(ID_PREFIXES[kind])
    row = {
        **decided(kind, spec),
        "id": job_id,
        "tenant_id": tenant_id,
        "estimated_macs": estimated_macs,
        "name": name,
        "labels": labels or {},
        "idempotency_key": idempotency_key,
        "result_key": result_key,
        "state": QUEUED,
        "last_seq": 1,
        "created_at": db_now(),
    }
    # A key that another transaction is just inserting makes this wait for it, then insert nothing.
    statement = upserting(session, Job).values(row).on_conflict_do_nothing(index_elements=IDEMPOTENCY)
    if session.scalar(statement.returning(Job.id)) is None:
        return _replayed(session, row), True
    quotas.check_queue(session, tenant_id)
    moves.append(session, job_id, 1, [SUBMITTED])
    if kind == "compress":  # an inspection is part of registering what it inspects
        audit.record(session, "job.submit", job_id)
    return _get(session, job_id), False


def decided(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The columns of a job's row that its spec decides."""
    return {
        "kind": kind,
        "queue": queue_of(kind, spec),
        "priority": spec.get("priority", 0),
        "memory_bytes": spec.get("memory_bytes"),
        "spec": spec,
        "fingerprint": fingerprint(spec),
    }


def queue_of(kind: str, spec: dict[str, Any]) -> str:
    """Inspections have a queue of their own, and so has what asks for a GPU by name."""
    return "gpu" if kind == "compress" and spec.get("device") == "cuda" else kind


def claim(session: Session, job_id: str, *, worker: str, device: str | None = None) -> Claim | None:
    """queued → running, attempt + 1, a fresh lease. None: somebody else has it, it is paused, waits for its time or
    for others of its sweep, or its tenant has as many running as it may.

    Workers go through `app.scheduling.schedule.claim_next`, which chooses the job.
    """
    if not _has_a_turn(session, job_id):
        return None
    now = db_now()
    statement = (
        update(Job)
        .where(
            Job.id == job_id,
            *ready(now),
        )
        .values(
            state=RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=worker,
            lease_until=now + settings().lease_seconds,
            next_attempt_at=None,
            started_at=func.coalesce(Job.started_at, now),
            version=Job.version + 1,
            last_seq=Job.last_seq + 1,
        )
    )
    if num_changed(session, statement) != 1:
        return None
    job = _get(session, job_id)
    session.execute(
        insert(Attempt).values(
            job_id=job_id,
            n=job.attempt,
            worker=worker,
            device=device[:DEVICE_CHARACTERS] if device else None,
            started_at=db_now(),
        )
    )
    moves.append(
        session,
        job_id,
        job.last_seq,
        [("state", {"state": RUNNING, "attempt": job.attempt, "reason": "claimed"})],
    )
    return Claim(job_id=job_id, attempt=job.attempt, kind=job.kind, spec=job.spec, worker=worker)


def ready(now: ColumnElement[float]) -> tuple[ColumnElement[bool], ...]:
    """Conditions of a row that may be claimed at `now`, as far as the row itself tells."""
    its_time = or_(Job.next_attempt_at.is_(None), Job.next_attempt_at <= now)
    return Job.state == QUEUED, Job.paused == false(), Job.waits_for.is_(None), its_time


def _has_a_turn(session: Session, job_id: str) -> bool:
    found = session.execute(
        select(Job.kind, Job.tenant_id).where(Job.id == job_id, Job.state == QUEUED)
    ).first()
    return found is None or found.kind != "compress" or quotas.may_run_another(session, found.tenant_id)


def heartbeat(session: Session, claim: Claim) -> str:
    """Renew the lease; returns "running", "cancelling" once a cancel was asked, "pausing" once a pause was.

    Raises Fenced.

    A lease that lapsed unnoticed is renewed too: until somebody takes the row away, it is this attempt's.
    """
    statement = update(Job).where(*_held_by(claim)).values(lease_until=db_now() + settings().lease_seconds)
    found = session.execute(statement.returning(Job.state, Job.paused), execution_options=NO_SYNC).first()
    if found is None:
        raise _fenced(claim)
    return PAUSING if found.paused and found.state == RUNNING else str(found.state)


def record(
    session: Session,
    claim: Claim,
    *,
    events: Sequence[tuple[str, dict[str, Any]]] = (),
    metrics: Sequence[dict[str, Any]] = (),
    phase: str | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Append events (type, data), upsert metrics (columns of Metric less job_id), set phase and progress.

    A metric that is NaN or infinite is no number: it becomes a log event of level warning. Raises Fenced.
    """
    numbers = [metric for metric in metrics if math.isfinite(metric["value"])]
    all_events = [
        *events,
        *(_not_a_number(metric) for metric in metrics if not math.isfinite(metric["value"])),
    ]
    changes: dict[str, Any] = {"version": Job.version + 1, "last_seq": Job.last_seq + len(all_events)}
    if phase is not None:
        changes["phase"] = phase
    if progress is not None:
        changes["progress"] = progress
    statement = update(Job).where(*_held_by(claim)).values(changes)
    last_seq: int | None = session.scalar(statement.returning(Job.last_seq).execution_options(**NO_SYNC))
    if last_seq is None:
        raise _fenced(claim)
    moves.append(session, claim.job_id, last_seq - len(all_events) + 1, all_events)
    _upsert_metrics(session, claim.job_id, numbers)


def finish(
    session: Session, claim: Claim, result: dict[str, Any], artifacts: Sequence[NewArtifact] = ()
) -> None:
    """running or cancelling → succeeded, with its artifacts in the same transaction. Raises Fenced.

    `passed` of the result, whether it met the job's own limits, becomes the job's.

    A job that finished before it noticed the cancel has succeeded: its result is whole.
    """
    job = _held(session, claim)
    _end_attempt(session, claim, SUCCEEDED, "The work was done to its end.")
    _move(
        session, job, SUCCEEDED, "finished", artifacts=artifacts, result=result, passed=result.get("passed")
    )


def reuse(session: Session, job: Job, result: dict[str, Any], artifacts: Sequence[NewArtifact]) -> None:
    """queued → succeeded, with the result and the files of another job: no worker has seen this one.

    In the transaction that submitted the job, so nobody has claimed it.
    """
    assert job.state == QUEUED, job.state
    _move(session, job, SUCCEEDED, "reused", artifacts=artifacts, result=result, passed=result.get("passed"))


def fail(
    session: Session,
    claim: Claim,
    problem: Problem,
    *,
    outcome: str | None = None,
    detail: str | None = None,
    result: dict[str, Any] | None = None,
    artifacts: Sequence[NewArtifact] = (),
) -> None:
    """running or cancelling → failed with the problem as `error`. Raises Fenced.

    `outcome` and `detail` of the attempt are the problem's where they are not given. `result` and `artifacts`: what
    there was by then, in the same transaction.
    """
    job = _held(session, claim)
    outcome = outcome or retries.outcome_of(problem)
    _end_attempt(session, claim, outcome, detail or problem.detail)
    changes: dict[str, Any] = {"error": problem.body()}
    if result is not None:
        changes["result"] = result
    _move(session, job, FAILED, outcome, artifacts=artifacts, **changes)


def release(session: Session, claim: Claim, *, outcome: str, detail: str | None = None) -> str:
    """running → queued, or failed when attempts were lost too often; cancelling → cancelled. Returns the new state.

    `outcome`: one of `retries.HANDED_BACK` or `retries.LOST`; `detail`: how it ended, in a sentence. Raises Fenced.
    """
    job = _held(session, claim)
    _end_attempt(session, claim, outcome, detail)
    decision = retries.decide(
        outcome,
        failures=job.failures,
        max_failures=settings().max_failures,
        pause_seconds=settings().retry_pause_seconds,
        reasons=_losses(session, claim, job.failures + 1) if outcome in retries.LOST else (),
    )
    if job.state == CANCELLING:
        _move(session, job, CANCELLED, outcome, failures=decision.failures)
        return CANCELLED
    if decision.error is not None:
        error = decision.error.body()
        _move(session, job, FAILED, outcome, failures=decision.failures, error=error)
        return FAILED
    pause = decision.after_seconds
    next_attempt_at = db_now() + pause if pause else None
    again: dict[str, Any] = {"dispatched_at": None, "next_attempt_at": next_attempt_at}
    _move(session, job, QUEUED, outcome, failures=decision.failures, **again)
    return QUEUED


def finish_cancel(
    session: Session,
    claim: Claim,
    result: dict[str, Any] | None,
    artifacts: Sequence[NewArtifact] = (),
    *,
    detail: str | None = None,
) -> None:
    """cancelling → cancelled, with the best student so far if there was one. Raises Fenced."""
    job = _held(session, claim)
    if job.state != CANCELLING:
        raise _fenced(claim)
    _end_attempt(session, claim, CANCELLED, detail)
    _move(session, job, CANCELLED, "cancelled", artifacts=artifacts, result=result)


def cancel(session: Session, job_id: str) -> Job:
    """queued → cancelled; running → cancelling; cancelling stays. Problem 409 JOB_FINISHED, 404."""
    job = _locked(session, job_id)
    _refuse_ended(job, "cancel")
    if job.state != CANCELLING:
        _move(session, job, CANCELLED if job.state == QUEUED else CANCELLING, "cancel_requested")
        audit.record(session, "job.cancel", job_id)
    return _get(session, job_id)


def pause(session: Session, job_id: str) -> Job:
    """Hold a queued job; have a running one saved and handed back, to be held then. Again: changes nothing.

    Problem 409 JOB_FINISHED, JOB_CANCELLING; 404.
    """
    job = _locked(session, job_id)
    _refuse_ended(job, "pause")
    if job.state == CANCELLING:
        raise Problem(
            409,
            "JOB_CANCELLING",
            f"Job {job_id} is being cancelled: it cannot be paused any more. When it is cancelled, POST …/retry "
            "queues it again, from its last checkpoint.",
        )
    if not job.paused:
        _note(session, job, "paused", paused=True)
        audit.record(session, "job.pause", job_id)
    return _get(session, job_id)


def resume(session: Session, job_id: str) -> Job:
    """Let workers take a paused job again, or leave it running if it still does. Of another: changes nothing.

    Problem 409 JOB_FINISHED, 404.
    """
    job = _locked(session, job_id)
    _refuse_ended(job, "resume")
    if job.paused:
        _note(session, job, "resumed", paused=False, dispatched_at=None)
        audit.record(session, "job.resume", job_id)
    return _get(session, job_id)


def _refuse_ended(job: Job, verb: str) -> None:
    if job.state in TERMINAL:
        raise Problem(
            409, "JOB_FINISHED", f"Job {job.id} is already {job.state}: there is nothing left to {verb}."
        )


def _note(session: Session, job: Job, event: str, **changes: Any) -> None:
    """Change a locked row beside its state, and tell it as an event."""
    statement = update(Job).where(Job.id == job.id)
    session.execute(
        statement.values(version=Job.version + 1, last_seq=Job.last_seq + 1, **changes),
        execution_options=NO_SYNC,
    )
    data = {"state": job.state, "attempt": job.attempt}
    moves.append(session, job.id, job.last_seq + 1, [(event, data)])


def retry(session: Session, job_id: str) -> Job:
    """failed or cancelled → queued, same id, next attempt. Problem 409 JOB_NOT_RETRYABLE otherwise, 404.

    Where a job that does its first steps did not succeed either, that is tried again too, and so is what failed only
    because of it.
    """
    quotas.lock_for_queueing(session, _owner(session, job_id))
    job = _locked(session, job_id)
    if job.state not in (FAILED, CANCELLED):
        raise Problem(
            409,
            "JOB_NOT_RETRYABLE",
            f"Job {job_id} is {job.state}: only a failed or cancelled job can be tried again. "
            "To run it once more, POST it as a new job.",
        )
    again = [job_id, *sweeps.tried_together(session, job)]
    sweep = None if job.sweep_id is None else sweeps.lock(session, job.sweep_id)
    moves.move_all(
        session,
        QUEUED,
        "retry",
        Job.id.in_(again),
        **moves.QUEUED_AGAIN,
        waits_for=sweeps.HELD,
        paused=sweep is not None and sweep.paused,
    )
    if sweep is not None:
        sweeps.advance(session, sweep.id)
    quotas.check_queue(session, job.tenant_id)
    audit.record(session, "job.retry", job_id)
    return _get(session, job_id)


def due(session: Session, limit: int = 200) -> list[tuple[str, str]]:
    """(job id, queue), oldest first, of rows that may be claimed and were never announced.

    Once is enough: whoever has nothing to do looks by itself, so a lost message costs a second.
    """
    rows = session.execute(
        select(Job.id, Job.queue)
        .where(Job.dispatched_at.is_(None), *ready(db_now()))
        .order_by(Job.created_at, Job.id)
        .limit(limit)
    )
    return [(job_id, queue) for job_id, queue in rows]


def mark_dispatched(session: Session, job_ids: Sequence[str]) -> None:
    """Stamp queued rows as announced now. A row that is locked just now is left out: it is being claimed."""
    # Locked in one order, so two outboxes that stamp the same rows cannot deadlock.
    free = (
        select(Job.id)
        .where(Job.id.in_(job_ids), Job.state == QUEUED)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(Job).where(Job.id.in_(session.scalars(free).all())).values(dispatched_at=db_now()),
        execution_options=NO_SYNC,
    )


def has_lapsed(session: Session) -> bool:
    """Whether `sweep` has work. Ask it in `reading()`: idle processes then never take SQLite's write lock."""
    return session.scalar(select(Job.id).where(*_lapsed()).limit(1)) is not None


def sweep(session: Session, limit: int = 200) -> int:
    """Mend what was lost: running rows with a lapsed lease → release(worker_lost), cancelling → cancelled.

    Returns how many. Rows that another sweeper or their own worker holds just now are skipped.
    """
    found = session.execute(
        select(Job.id, Job.sweep_id).where(*_lapsed()).order_by(Job.id).limit(limit)
    ).all()
    free = sweeps.lock_free(session, {sweep_id for _, sweep_id in found if sweep_id is not None})
    ids = [job_id for job_id, sweep_id in found if sweep_id is None or sweep_id in free]
    overdue_seconds = (db_now() - Job.lease_until).label("overdue_seconds")
    lapsed = select(Job, overdue_seconds).where(*_lapsed(), Job.id.in_(ids)).order_by(Job.id)
    lapsed = lapsed.with_for_update(skip_locked=True)
    rows = session.execute(lapsed, execution_options=FRESH).all()
    for job, overdue in rows:
        owner = job.lease_owner or ""
        silent = settings().lease_seconds + overdue
        lost = Claim(job.id, job.attempt, job.kind, job.spec, owner)
        release(
            session, lost, outcome="worker_lost", detail=f"The worker {owner} was silent for {silent:.0f} s."
        )
    return len(rows)


def _held_by(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return Job.id == claim.job_id, Job.attempt == claim.attempt, Job.state.in_((RUNNING, CANCELLING))


def _lapsed() -> tuple[ColumnElement[bool], ...]:
    return Job.state.in_((RUNNING, CANCELLING)), Job.lease_until < db_now()


def _fenced(claim: Claim) -> Fenced:
    return Fenced(f"attempt {claim.attempt} of {claim.job_id} is over")


def _held(session: Session, claim: Claim) -> Job:
    """The claim's row, locked until the transaction ends. Raises Fenced."""
    sweeps.lock_of(session, claim.job_id)
    row = session.scalar(select(Job).where(*_held_by(claim)).with_for_update(), execution_options=FRESH)
    if row is None:
        raise _fenced(claim)
    return row


def _locked(session: Session, job_id: str) -> Job:
    """The row, locked until the transaction ends (on SQLite everything is). Problem 404."""
    sweeps.lock_of(session, job_id)
    row = session.scalar(select(Job).where(Job.id == job_id).with_for_update(), execution_options=FRESH)
    if row is None:
        raise not_found("job", job_id)
    return row


def _owner(session: Session, job_id: str) -> str:
    """The id of the job's tenant. Problem 404."""
    tenant_id: str | None = session.scalar(select(Job.tenant_id).where(Job.id == job_id))
    if tenant_id is None:
        raise not_found("job", job_id)
    return tenant_id


def _get(session: Session, job_id: str) -> Job:
    return session.scalars(select(Job).where(Job.id == job_id), execution_options=FRESH).one()


def _move(
    session: Session,
    job: Job,
    state: str,
    reason: str,
    *,
    artifacts: Sequence[NewArtifact] = (),
    **changes: Any,
) -> None:
    """Every transition but the claim. When a job of a sweep ends, others of it may go, in the same transaction."""
    moves.move(session, job, state, reason, artifacts=artifacts, **changes)
    if state in TERMINAL and job.sweep_id is not None:
        sweeps.advance(session, job.sweep_id)


def _end_attempt(session: Session, claim: Claim, outcome: str, detail: str | None) -> None:
    assert outcome in OUTCOMES, outcome
    detail = storable_text(detail) if detail is not None else None
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == claim.job_id, Attempt.n == claim.attempt)
        .values(ended_at=db_now(), outcome=outcome, detail=detail),
        execution_options=NO_SYNC,
    )


def _losses(session: Session, claim: Claim, num_attempts: int) -> list[str]:
    """How the last lost attempts ended, in order; as many as are counted since the job was queued by its owner."""
    lost = select(Attempt.n, Attempt.outcome, Attempt.detail).where(
        Attempt.job_id == claim.job_id, Attempt.outcome.in_(retries.LOST)
    )
    rows = session.execute(lost.order_by(Attempt.n.desc()).limit(num_attempts)).all()
    return [detail or f"It ended as {outcome}." for _, outcome, detail in reversed(rows)]


def _upsert_metrics(session: Session, job_id: str, metrics: Sequence[dict[str, Any]]) -> None:
    defaults = {"job_id": job_id, "seed": 0, "epoch": -1, "split": "", "unit": "1", "device": None}
    # PostgreSQL refuses one statement that touches a row twice; the last number of a batch counts.
    rows = {tuple((defaults | metric)[key] for key in METRIC_KEY): defaults | metric for metric in metrics}
    if not rows:
        return
    statement = upserting(session, Metric).values(list(rows.values()))
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=METRIC_KEY, set_={"value": new.value, "unit": new.unit, "device": new.device}
        )
    )


def _not_a_number(metric: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    where = ", ".join(
        f"{key} {metric[key]}" for key in ("step", "epoch", "split") if metric.get(key) not in (None, "", -1)
    )
    message = f"metric {metric['name']} is {metric['value']} ({where}); not stored"
    return "log", {"level": "warning", "message": message}


def _replayed(session: Session, row: dict[str, Any]) -> Job:
    """The job that has this row's idempotency key. Problem 422 when it was another request."""
    job = session.scalars(
        select(Job).where(Job.idempotency_key == row["idempotency_key"]), execution_options=FRESH
    ).one()
    if any(getattr(job, key) != row[key] for key in ("kind", "fingerprint", "name", "labels")):
        raise Problem(
            422,
            "IDEMPOTENCY_KEY_REUSED",
            f"This Idempotency-Key came before, with another body (job {job.id}). "
            "Send the same body again, or use a new key.",
        )
    return job
