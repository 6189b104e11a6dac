"""The verbs of a job. Every transition is one compare-and-set; every write of a worker is fenced by its attempt.

    queued ──claim──▶ running ──finish──▶ succeeded
       │                 │ ├────fail────▶ failed
       │                 │ └──release──▶ queued          (handed back, crashed with tries left, or lease lapsed)
       └──cancel──┐      └──cancel──▶ cancelling ──finish_cancel──▶ cancelled
                  └───────────────────────────────────────────────▶ cancelled

Every function takes an open session inside `app.db.transaction()`; the caller commits by leaving that block.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.errors import Problem
from app.tables import Job


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


@dataclass(frozen=True)
class NewArtifact:
    """A file already in the storage, to be committed with the job."""

    step: int
    kind: str
    name: str
    sha256: str
    size_bytes: int
    metrics: dict[str, Any]


def submit(
    session: Session,
    *,
    kind: str,
    spec: dict[str, Any],
    name: str | None = None,
    labels: dict[str, str] | None = None,
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Insert a queued job (kind "compress" or "inspect"; the queue has the same name). The doorbell is rung by the outbox.

    Returns the job and whether it is a replay of the same idempotency key. Raises Problem 422 IDEMPOTENCY_KEY_REUSED
    when the key came with another body.
    """
    raise NotImplementedError


def claim(session: Session, job_id: str, *, worker: str, device: str | None = None) -> Claim | None:
    """queued → running, attempt + 1, a fresh lease. None when the row is not claimable: the message is stale, drop it."""
    raise NotImplementedError


def heartbeat(session: Session, claim: Claim) -> str:
    """Renew the lease; returns the state ("running", or "cancelling" once a cancel was asked). Raises Fenced."""
    raise NotImplementedError


def record(
    session: Session,
    claim: Claim,
    *,
    events: list[tuple[str, dict[str, Any]]] = (),  # type: ignore[assignment]
    metrics: list[dict[str, Any]] = (),  # type: ignore[assignment]
    phase: str | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Append events (type, data), upsert metrics (columns of Metric less job_id), set phase and progress. Raises Fenced."""
    raise NotImplementedError


def finish(session: Session, claim: Claim, result: dict[str, Any], artifacts: list[NewArtifact] = ()) -> None:  # type: ignore[assignment]
    """running or cancelling → succeeded, with its artifacts in the same transaction. Raises Fenced.

    A job that finished before it noticed the cancel has succeeded: its result is whole.
    """
    raise NotImplementedError


def fail(session: Session, claim: Claim, problem: Problem, outcome: str = "failed") -> None:
    """running or cancelling → failed with the problem as `error`. Raises Fenced."""
    raise NotImplementedError


def release(session: Session, claim: Claim, *, outcome: str, counts: bool) -> str:
    """running → queued (ring again now). `counts`: the attempt was lost (crash), so failures + 1; at `max_failures`
    the job fails with code WORKER_LOST instead. cancelling → cancelled. Returns the new state. Raises Fenced."""
    raise NotImplementedError


def finish_cancel(session: Session, claim: Claim, result: dict[str, Any] | None, artifacts: list[NewArtifact] = ()) -> None:  # type: ignore[assignment]
    """cancelling → cancelled, with the best student so far if there was one. Raises Fenced."""
    raise NotImplementedError


def cancel(session: Session, job_id: str) -> Job:
    """queued → cancelled; running → cancelling; cancelling stays. Problem 409 JOB_FINISHED when terminal, 404 unknown."""
    raise NotImplementedError


def retry(session: Session, job_id: str) -> Job:
    """failed or cancelled → queued, same id, next attempt. Problem 409 JOB_NOT_RETRYABLE otherwise, 404 unknown."""
    raise NotImplementedError


def due(session: Session, limit: int = 200) -> list[tuple[str, str]]:
    """(job id, queue) of queued rows never announced, or announced longer than `redispatch_seconds` ago."""
    raise NotImplementedError


def mark_dispatched(session: Session, job_ids: list[str]) -> None:
    raise NotImplementedError


def sweep(session: Session) -> int:
    """Mend what was lost: running rows with a lapsed lease → release(worker_lost), cancelling ones → cancelled. Returns how many."""
    raise NotImplementedError
