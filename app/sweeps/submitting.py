"""A planned sweep becomes rows: the sweep, the jobs that several begin with, and one job a point and seed."""

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app import jobs, moves, reuse, sweeps
from app.access import audit, quotas
from app.access.tenancy import tenant_of
from app.canonical import fingerprint
from app.db import db_now, new_id
from app.errors import Problem
from app.moves import FRESH, NO_SYNC
from app.spec.job import JobSpec
from app.storage.objects import Storage
from app.sweeps.planning import PlannedJob, PlannedSweep, spec_of_stage
from app.tables import FAILED, QUEUED, ROOM, STAGE, Dataset, Job, Sweep, Teacher

_KEY = ("tenant_id", "idempotency_key")


def submit(
    session: Session,
    planned: PlannedSweep,
    storage: Storage,
    *,
    request: dict[str, Any],
    preset: str | None = None,
    idempotency_key: str | None = None,
) -> tuple[Sweep, bool]:
    """Store the sweep and its jobs; the outbox rings. `request`: its body, with which the same key is the same sweep.

    Returns it and whether it is a replay. Problem 422 IDEMPOTENCY_KEY_REUSED; 429 TOO_MANY_JOBS, 403 QUOTA_EXCEEDED.
    """
    tenant_id = tenant_of(session)
    quotas.lock_for_queueing(session, tenant_id)
    sweep_id = new_id("swp")
    row = {
        "id": sweep_id,
        "tenant_id": tenant_id,
        "name": planned.spec.name,
        "preset": preset,
        "labels": planned.spec.labels,
        "spec": planned.spec.model_dump(mode="json"),
        "fingerprint": fingerprint(request),
        "idempotency_key": idempotency_key,
        "shared": shared_of(planned),
        "estimated_macs": planned.estimated_macs,
        "created_at": db_now(),
    }
    statement = moves.upserting(session, Sweep).values(row).on_conflict_do_nothing(index_elements=_KEY)
    if session.scalar(statement.returning(Sweep.id)) is None:
        assert idempotency_key is not None
        found = replay(session, idempotency_key, request)
        assert found is not None
        return found, True
    add_jobs(session, sweep_id, planned, storage, paused=False)
    audit.record(session, "sweep.submit", sweep_id, jobs=len(planned.jobs))
    return _get(session, sweep_id), False


def replay(session: Session, idempotency_key: str, request: dict[str, Any]) -> Sweep | None:
    """The sweep that has this key; None if there is none. Problem 422 when it was another request."""
    sweep = session.scalar(select(Sweep).where(Sweep.idempotency_key == idempotency_key))
    if sweep is not None and sweep.fingerprint != fingerprint(request):
        raise Problem(
            422,
            "IDEMPOTENCY_KEY_REUSED",
            f"This Idempotency-Key came before, with another body (sweep {sweep.id}). "
            "Send the same body again, or use a new key.",
        )
    return sweep


def extend(session: Session, sweep: Sweep, planned: PlannedSweep, storage: Storage) -> None:
    """Add the jobs of further seeds. `planned`: made from the sweep as the caller read it, with more seeds.

    The tenant is locked for queueing. Problem 409 SWEEP_CHANGED when somebody else extended it meanwhile.
    """
    now = sweeps.lock(session, sweep.id)
    if now is None or now.spec != sweep.spec:
        raise Problem(
            409, "SWEEP_CHANGED", f"Sweep {sweep.id} was changed meanwhile: look at it again.", retryable=True
        )
    added = shared_of(planned)
    session.execute(
        update(Sweep)
        .where(Sweep.id == sweep.id)
        .values(
            spec=planned.spec.model_dump(mode="json"),
            shared={name: now.shared[name] + number for name, number in added.items()},
            estimated_macs=Sweep.estimated_macs + planned.estimated_macs,
            version=Sweep.version + 1,
        ),
        execution_options=NO_SYNC,
    )
    add_jobs(session, sweep.id, planned, storage, paused=now.paused)
    audit.record(session, "sweep.extend", sweep.id, seeds=planned.spec.seeds)


def shared_of(planned: PlannedSweep) -> dict[str, int]:
    shared = planned.shared
    return {
        "stage_jobs": len(shared.stages),
        "children_served": shared.num_served,
        "steps_saved": shared.steps_saved,
    }


def add_jobs(
    session: Session, sweep_id: str, planned: PlannedSweep, storage: Storage, *, paused: bool
) -> None:
    """All rows at once, in the order in which they are claimed: shared stages, then points with their seeds.

    Problem 422 when a teacher or data set was deleted meanwhile; 429 TOO_MANY_JOBS, 403 QUOTA_EXCEEDED.
    """
    _check_still_there(session, planned)
    if rows := _rows(sweep_id, tenant_of(session), planned, paused=paused):
        now = session.scalars(select(db_now())).one()
        for row in rows:
            row["created_at"] = now
            row["finished_at"] = now if row["state"] == FAILED else None
        session.execute(insert(Job), rows)
        moves.append_rows(session, [event for row in rows for event in _first_events(row)])
    _reuse(session, sweep_id, planned, storage)
    sweeps.advance(session, sweep_id)
    quotas.check_queue(session, tenant_of(session))


def _reuse(session: Session, sweep_id: str, planned: PlannedSweep, storage: Storage) -> None:
    """Earlier results for those that asked for them; one whose files are gone is done anew."""
    keys = {job.result_key for job in planned.jobs if job.reuses}
    if not keys:
        return
    asking = select(Job).where(Job.sweep_id == sweep_id, Job.state == QUEUED).order_by(Job.result_key, Job.id)
    for job in session.scalars(asking, execution_options=FRESH).all():
        if job.result_key in keys:
            reuse.reuse(session, job, storage)


def _rows(sweep_id: str, tenant_id: str, planned: PlannedSweep, *, paused: bool) -> list[dict[str, Any]]:
    stages = planned.shared.stages
    # Ids of one millisecond sort at random; the order of claims is theirs, so they are put in order.
    ids = sorted(new_id("job") for _ in range(len(stages) + len(planned.jobs)))

    def after(stage: int | None) -> dict[str, Any]:
        if stage is None:
            return {}
        return {"after_job_id": ids[stage], "begun_steps": stages[stage].num_steps, "waits_for": STAGE}

    rows = [
        _row(spec_of_stage(planned, position), macs)
        | after(stage.after)
        | {"snapshot_epochs": stage.snapshot_epochs or None}
        for position, (stage, macs) in enumerate(zip(stages, planned.stage_macs(), strict=True))
    ]
    begun = iter(zip(planned.shared.after, planned.own_macs(), strict=True))
    for job in planned.jobs:
        stage, macs = next(begun) if job.problem is None else (None, None)
        rows.append(_row(job.spec, macs) | after(stage) | _as_planned(job))
    common = {"tenant_id": tenant_id, "sweep_id": sweep_id}
    rows = [common | {"paused": paused} | row | {"id": ident} for ident, row in zip(ids, rows, strict=True)]
    return [row | {"last_seq": len(_first_events(row))} for row in rows]


def _row(spec: JobSpec, estimated_macs: float | None) -> dict[str, Any]:
    """What a job's row begins as; every column that one of them sets, so that they go in one statement."""
    return {
        **jobs.decided("compress", spec.model_dump(mode="json")),
        "name": spec.name,
        "labels": dict(spec.labels),
        "estimated_macs": estimated_macs,
        "result_key": None,
        "state": QUEUED,
        "error": None,
        "point": None,
        "after_job_id": None,
        "begun_steps": None,
        "snapshot_epochs": None,
        "waits_for": ROOM,
    }


def _as_planned(job: PlannedJob) -> dict[str, Any]:
    found: dict[str, Any] = {"point": job.point.number, "result_key": job.result_key}
    if job.problem is not None:  # nobody will ever look at it
        found |= {"state": FAILED, "error": job.problem.body(), "waits_for": None, "paused": False}
    return found


def _first_events(row: dict[str, Any]) -> list[tuple[str, int, str, dict[str, Any]]]:
    events = [jobs.SUBMITTED]
    if row["state"] == FAILED:
        events.append(("state", {"state": FAILED, "attempt": 0, "reason": "infeasible"}))
    elif row["paused"]:
        events.append(("paused", {"state": QUEUED, "attempt": 0}))
    return [(row["id"], seq, type_, data) for seq, (type_, data) in enumerate(events, start=1)]


def _check_still_there(session: Session, planned: PlannedSweep) -> None:
    """The plan was made before this transaction."""
    for kind, table, wanted in (
        ("teacher", Teacher, {ident for job in planned.jobs for ident in job.spec.teachers}),
        ("data set", Dataset, {job.spec.dataset for job in planned.jobs}),
    ):
        missing = wanted - set(session.scalars(select(table.id).where(table.id.in_(wanted))))
        if missing:
            raise Problem(422, "INVALID_SPEC", f"The {kind} {min(missing)} was deleted just now.")


def _get(session: Session, sweep_id: str) -> Sweep:
    return session.scalars(select(Sweep).where(Sweep.id == sweep_id), execution_options=FRESH).one()
