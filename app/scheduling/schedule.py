"""Who is next. A worker says what it offers and gets a job, or none: no message decides, only the rows.

Between tenants: fewest running jobs per weight, then the least work done lately per weight, then the one whose next job
waits longest. Within a tenant: the higher priority, then the older. A worker that takes inspections as well takes those
first: they are short, and somebody waits for the verdict.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app import jobs
from app.jobs import Claim
from app.scheduling import shares
from app.scheduling.places import Place, Reason, place
from app.scheduling.shares import Head

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
    return any(_in_play(session, line, offer) for line in _lines(offer))


def _next(session: Session, offer: Offer) -> str | None:
    for line in _lines(offer):
        if heads := _in_play(session, line, offer):
            return _first(session, line, heads)
    return None


@dataclass(frozen=True)
class _Line:
    kind: str
    queues: list[str]


def _lines(offer: Offer) -> list[_Line]:
    lines = [
        _Line(kind, [queue for queue in offer.queues if shares.kind_of(queue) == kind])
        for kind in ("inspect", "compress")
    ]
    return [line for line in lines if line.queues]


def _in_play(session: Session, line: _Line, offer: Offer) -> list[Head]:
    """The next job of each tenant that may have one more running, those with the fewest running per weight."""
    heads = shares.heads(session, line.queues, offer.memory_bytes)
    if not heads:
        return []
    running = shares.running(session, line.kind)
    allowed = [head for head in heads if not head.most or running.get(head.tenant_id, 0) < head.most]

    def load(head: Head) -> float:
        return running.get(head.tenant_id, 0) / head.weight

    least = min(map(load, allowed), default=0.0)
    return [head for head in allowed if load(head) == least]


def _first(session: Session, line: _Line, heads: list[Head]) -> str:
    """Of tenants with as many running: whose did least lately. That is summed up only where it decides."""
    if len(heads) == 1:
        return heads[0].job_id
    work = shares.work_seconds(session, line.kind, [head.tenant_id for head in heads])
    first = min(heads, key=lambda head: (work[head.tenant_id] / head.weight, head.created_at, head.job_id))
    return first.job_id
