"""Who is next. A worker says what it offers and gets a job, or none: no message decides, only the rows.

Between tenants: fewest running jobs per weight, then the least work done lately per weight, then the one whose next job
waits longest. Within a tenant: the higher priority, then the older. A worker that takes inspections as well takes those
first: they are short, and somebody waits for the verdict.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app import jobs, shares
from app.jobs import Claim
from app.places import Place, Reason, place
from app.shares import Head

__all__ = ["Claim", "Offer", "Place", "Reason", "claim_next", "place", "waits"]


@dataclass(frozen=True)
class Offer:
    """What a worker can do: jobs of these queues that need no more memory. `worker` is its name, host:pid."""

    worker: str
    queues: tuple[str, ...]
    memory_bytes: int | None = None
    device: str | None = None


def claim_next(session: Session, offer: Offer) -> Claim | None:
    """Claim the job whose turn it is, of those that fit the offer; None when there is none.

    In a transaction (`app.db.transaction`). A job that another worker takes just now is left to it.
    """
    while (job_id := _next(session, offer)) is not None:
        # Undone when the race was lost: the tenant's row, locked to count its running jobs, is free again before the
        # next one's is locked. Two workers that go through tenants in different orders would wait for each other.
        with session.begin_nested() as attempt:
            claim = jobs.claim(session, job_id, worker=offer.worker, device=offer.device)
            if claim is not None:
                return claim
            attempt.rollback()
    return None


def waits(session: Session, offer: Offer) -> bool:
    """Whether `claim_next` has something. Ask it in `reading()`: an idle worker then never takes SQLite's write lock."""
    return _next(session, offer) is not None


def _next(session: Session, offer: Offer) -> str | None:
    for kind in ("inspect", "compress"):
        queues = [queue for queue in offer.queues if shares.kind_of(queue) == kind]
        if queues and (job_id := _next_of(session, kind, queues, offer.memory_bytes)):
            return job_id
    return None


def _next_of(session: Session, kind: str, queues: list[str], memory_bytes: int | None) -> str | None:
    heads = shares.heads(session, queues, memory_bytes)
    if not heads:
        return None
    running = shares.running(session, kind)
    in_play = [head for head in heads if not head.most or running.get(head.tenant_id, 0) < head.most]
    if not in_play:
        return None

    def load(head: Head) -> float:
        return running.get(head.tenant_id, 0) / head.weight

    least = min(map(load, in_play))
    level = [head for head in in_play if load(head) == least]
    # Summing up what was done is asked for only where it decides.
    work = shares.work_seconds(session, kind, [head.tenant_id for head in level]) if len(level) > 1 else {}
    first = min(
        level, key=lambda head: (work.get(head.tenant_id, 0.0) / head.weight, head.created_at, head.job_id)
    )
    return first.job_id
