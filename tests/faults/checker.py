"""What must be true of every job, read from its rows alone: `check(session)` names whatever is not.

It trusts no verb of `app.jobs`. A job's story is told three times, by its events, its attempts and its row; the three
are written in one transaction each time, so at any moment they must tell the same.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.storage.objects import Storage
from app.tables import (
    CANCELLED,
    CANCELLING,
    FAILED,
    QUEUED,
    ROOM,
    RUNNING,
    STAGE,
    SUCCEEDED,
    TERMINAL,
    Artifact,
    Attempt,
    Event,
    Job,
    Sweep,
)

LEGAL = {
    None: (QUEUED,),
    QUEUED: (RUNNING, CANCELLED, SUCCEEDED, FAILED),  # the last two: without a worker, `_illegal_moves`
    RUNNING: (SUCCEEDED, FAILED, QUEUED, CANCELLING),
    CANCELLING: (CANCELLED, SUCCEEDED, FAILED),
    FAILED: (QUEUED,),
    CANCELLED: (QUEUED,),
    SUCCEEDED: (),
}
UNCLAIMED = ("infeasible", "shared_stage")
"""Why a job of a sweep fails that no worker has seen."""
OF_CALLERS = ("paused", "resumed", "artifact")
"""Events that need no attempt to write them; artifacts are looked at by themselves."""
LOST = ("worker_lost", "trainer_lost", "disk_full")
"""Outcomes that use up an attempt."""


def check(session: Session, storage: Storage | None = None, *, max_failures: int | None = None) -> list[str]:
    """Violations over all jobs, one sentence each; empty when all is well.

    `storage`: also read every artifact's object and compare its digest. `max_failures`: the most attempts of one
    job that may be lost.
    """
    events, attempts, artifacts = (_by_job(session, table) for table in (Event, Attempt, Artifact))
    found: list[str] = []
    for job in session.scalars(select(Job).order_by(Job.id)).all():
        told = sorted(events.pop(job.id, []), key=lambda event: event.seq)
        tries = sorted(attempts.pop(job.id, []), key=lambda attempt: attempt.n)
        files = artifacts.pop(job.id, [])
        found += [f"{job.id}: {fault}" for fault in _faults(job, told, tries, files, max_failures)]
        if storage is not None:
            found += [f"{job.id}: {fault}" for fault in _missing_bytes(files, storage)]
    for sweep in session.scalars(select(Sweep).order_by(Sweep.id)).all():
        found += [f"{sweep.id}: {fault}" for fault in _wrong_sweep(session, sweep)]
    orphans = {"events": events, "attempts": attempts, "artifacts": artifacts}
    return found + [f"{job_id}: {what} of no job" for what, rows in orphans.items() for job_id in rows]


def _by_job(session: Session, table: Any) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = defaultdict(list)
    for row in session.scalars(select(table)):
        rows[row.job_id].append(row)
    return dict(rows)


def _faults(
    job: Job,
    events: Sequence[Event],
    attempts: Sequence[Attempt],
    artifacts: Sequence[Artifact],
    max_failures: int | None,
) -> Iterator[str]:
    states = [(event.data["state"], event.data["attempt"]) for event in events if event.type == "state"]
    yield from _gaps(job, events)
    yield from _illegal_moves(job, [event.data for event in events if event.type == "state"])
    yield from _wrong_winners(job, states, attempts)
    yield from _disagreeing_attempts(job, states, attempts)
    yield from _writes_of_the_dead(events)
    yield from _wrong_lease(job)
    yield from _wrong_artifacts(job, events, artifacts)
    if max_failures is not None:
        yield from _too_many_losses(job, events, attempts, max_failures)


def _gaps(job: Job, events: Sequence[Event]) -> Iterator[str]:
    numbers = [event.seq for event in events]
    if numbers != list(range(1, job.last_seq + 1)):
        missing = sorted(set(range(1, job.last_seq + 1)) - set(numbers))
        extra = sorted(set(numbers) - set(range(1, job.last_seq + 1)))
        yield f"events are not 1..{job.last_seq}: missing {missing[:5]}, beyond {extra[:5]}"
    times = [event.at for event in events]
    if any(later < earlier - 0.002 for earlier, later in pairwise(times)):
        yield "events go back in time"


def _illegal_moves(job: Job, moves: Sequence[dict[str, Any]]) -> Iterator[str]:
    before: str | None = None
    for move in moves:
        state = move["state"]
        reused = before == QUEUED and state == SUCCEEDED and not job.attempt
        ended_unseen = before == QUEUED and state == FAILED and move["reason"] in UNCLAIMED
        needs_a_worker = before == QUEUED and state in (SUCCEEDED, FAILED)
        if state not in LEGAL[before] or (needs_a_worker and not (reused or ended_unseen)):
            yield f"moved from {before} to {state}"
        before = state
    if before != job.state:
        yield f"is {job.state}, its events say {before}"


def _wrong_winners(job: Job, states: Sequence[tuple[str, int]], attempts: Sequence[Attempt]) -> Iterator[str]:
    winners = [attempt.n for attempt in attempts if attempt.outcome == SUCCEEDED]
    successes = [attempt for state, attempt in states if state == SUCCEEDED]
    if len(winners) > 1 or len(successes) > 1:
        yield f"was won more than once: by attempts {winners}, in events {successes}"
    if job.state == SUCCEEDED and successes[-1:] != [job.attempt]:
        yield f"succeeded with attempt {successes}, its row says {job.attempt}"
    # An answer taken over from another job needed no attempt.
    if job.attempt and (job.state == SUCCEEDED) != bool(winners):
        yield f"is {job.state}, and the attempts that won are {winners}"
    if job.state == SUCCEEDED and job.result is None:
        yield "succeeded without a result"


def _disagreeing_attempts(
    job: Job, states: Sequence[tuple[str, int]], attempts: Sequence[Attempt]
) -> Iterator[str]:
    claims = [attempt for state, attempt in states if state == RUNNING]
    if claims != list(range(1, job.attempt + 1)):
        yield f"was claimed as attempts {claims}, its row says {job.attempt}"
    if [attempt.n for attempt in attempts] != claims:
        yield f"has attempts {[attempt.n for attempt in attempts]}, its events tell {claims}"
    open_ = [attempt.n for attempt in attempts if attempt.ended_at is None]
    held = [job.attempt] if job.state in (RUNNING, CANCELLING) else []
    if open_ != held:
        yield f"is {job.state}, and the attempts without an end are {open_}"
    if nameless := [a.n for a in attempts if (a.ended_at is None) != (a.outcome is None)]:
        yield f"attempts {nameless} have an end or an outcome, not both"


def _writes_of_the_dead(events: Sequence[Event]) -> Iterator[str]:
    """Between the end of one attempt and the claim of the next, nobody may write."""
    held = False
    for event in events:
        if event.type == "state":
            held = event.data["state"] in (RUNNING, CANCELLING)
        elif event.type not in OF_CALLERS and not held:
            yield f"event {event.seq} ({event.type}) was written while nobody held the job"


def _wrong_lease(job: Job) -> Iterator[str]:
    held = job.state in (RUNNING, CANCELLING)
    if held != (job.lease_owner is not None) or held != (job.lease_until is not None):
        yield f"is {job.state}, and its lease is {job.lease_owner} until {job.lease_until}"
    if (job.state in TERMINAL) != (job.finished_at is not None):
        yield f"is {job.state}, and finished at {job.finished_at}"


def _wrong_sweep(session: Session, sweep: Sweep) -> Iterator[str]:
    """Nobody waits for what has happened, no more than may are free, and it is over when its jobs are."""
    jobs = {job.id: job for job in session.scalars(select(Job).where(Job.sweep_id == sweep.id))}
    open_ones = [job for job in jobs.values() if job.state not in TERMINAL]
    if bool(open_ones) == (sweep.finished_at is not None):
        yield f"finished at {sweep.finished_at} with {len(open_ones)} open jobs"
    for job in jobs.values():
        stage = jobs.get(job.after_job_id or "")
        if job.waits_for is not None and job.state != QUEUED:
            yield f"{job.id} is {job.state} and waits for {job.waits_for}"
        if job.waits_for == STAGE and (stage is None or stage.state in TERMINAL):
            yield f"{job.id} waits for a stage that is {stage.state if stage else 'gone'}"
        if job.waits_for is None and job in open_ones and stage is not None and stage.state != SUCCEEDED:
            yield f"{job.id} may go, and its stage is {stage.state}"
    free = sum(job.waits_for is None for job in open_ones)
    room = sum(job.waits_for == ROOM for job in open_ones)
    most = sweep.spec.get("max_concurrent")
    if most is not None and free > most:
        yield f"{free} of its jobs are free, {most} may be"
    if room and (most is None or free < most):
        yield f"{room} of its jobs wait for room, and {free} of {most} are free"


def _wrong_artifacts(job: Job, events: Sequence[Event], artifacts: Sequence[Artifact]) -> Iterator[str]:
    named = sorted(event.data["id"] for event in events if event.type == "artifact")
    stored = sorted(artifact.id for artifact in artifacts)
    if named != stored:
        yield f"events name artifacts {named}, stored are {stored}"
    finals = [artifact.name for artifact in artifacts if artifact.kind == "final"]
    if len(finals) > 1:
        yield f"has {len(finals)} final artifacts"
    if finals and job.state != SUCCEEDED:
        yield f"is {job.state} and has a final artifact"


def _too_many_losses(
    job: Job, events: Sequence[Event], attempts: Sequence[Attempt], most: int
) -> Iterator[str]:
    """In a row: whoever asks for a retry gives the job all its attempts again."""
    retried_after = {event.data["attempt"] for event in events if event.data.get("reason") == "retry"}
    lost = 0
    for attempt in attempts:
        lost += attempt.outcome in LOST
        if lost > most:
            yield f"lost {lost} attempts, {most} are the most"
            return
        if attempt.n in retried_after:
            lost = 0


def _missing_bytes(artifacts: Iterable[Artifact], storage: Storage) -> Iterator[str]:
    for artifact in artifacts:
        if not storage.exists(artifact.sha256):
            yield f"artifact {artifact.name} has no bytes"
            continue
        content = storage.path(artifact.sha256).read_bytes()
        if hashlib.sha256(content).hexdigest() != artifact.sha256 or len(content) != artifact.size_bytes:
            yield f"artifact {artifact.name} has other bytes than its digest says"
