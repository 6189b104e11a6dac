"""How many jobs of other tenants come before one's own, when all take their turns: arithmetic on counts alone."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One tenant in a line. `work_seconds`: done lately, and what its running jobs still have to do."""

    tenant_id: str
    weight: float
    num_waiting: int
    num_running: int
    work_seconds: float
    head: tuple[float, str]
    """When its next job was made, and that job's id: the older goes first where all else is equal."""


def ahead_of(
    mine: Share, own_ahead: int, others: Sequence[Share], *, num_workers: int, job_seconds: float
) -> dict[str, int]:
    """By tenant, the jobs of `others` that are claimed before the one of `mine` that has `own_ahead` before it.

    With a worker for each tenant or more, the tenants' numbers of running jobs decide, each claim being one more. With
    fewer, hardly a tenant has any running when a worker gets free: then what was done lately decides, each claim being
    `job_seconds` more.
    """
    tenants = 1 + len(others)
    enough = num_workers == 0 or num_workers >= tenants

    def key(share: Share, turn: int) -> tuple[float, float, tuple[float, str]]:
        """Smaller goes first; of the claim that follows `turn` others of this tenant."""
        if enough:
            running = (share.num_running + turn) / share.weight
            return running, share.work_seconds / share.weight, share.head
        return (share.work_seconds + turn * job_seconds) / share.weight, 0.0, share.head

    limit = key(mine, own_ahead)
    return {
        share.tenant_id: bisect_left(range(share.num_waiting), limit, key=lambda turn: key(share, turn))
        for share in others
    }
