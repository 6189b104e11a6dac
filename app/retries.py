"""How an attempt may end, and what follows for its job: the one place that decides on another attempt.

What was lost (a process, a machine, room on a disk) may go better next time and is tried again, a few times. What was
handed back on purpose goes on whenever there is a worker. What the request, or a fault in this service, is to blame
for would come again, and ends the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import Problem

# Lost: counts as a failure. The code is the job's when it happened too often.
LOST = {"worker_lost": "WORKER_LOST", "trainer_lost": "WORKER_LOST", "disk_full": "DISK_FULL"}
# Handed back: as if the attempt had never been.
HANDED_BACK = ("paused", "preempted")
# The job has ended.
FINAL = ("succeeded", "cancelled", "out_of_memory", "deadline", "user_error", "service_error")

OUTCOMES = (*FINAL, *HANDED_BACK, *LOST)

_OUTCOME_OF_CODE = {
    "OUT_OF_MEMORY": "out_of_memory",
    "DEADLINE_EXCEEDED": "deadline",
    "DISK_FULL": "disk_full",
    "WORKER_LOST": "worker_lost",
}


@dataclass(frozen=True)
class Decision:
    """`error` None: try again in `after_seconds`; otherwise the job fails with it. `failures`: of the job, by now."""

    failures: int
    after_seconds: float = 0.0
    error: Problem | None = None


def decide(
    outcome: str,
    *,
    failures: int,
    max_failures: int,
    pause_seconds: float,
    reasons: Sequence[str] = (),
) -> Decision:
    """What becomes of a job whose attempt was lost or handed back.

    `failures`: those before this attempt. `reasons`: a sentence on each lost attempt, in order, this one included.
    After the first loss there is no pause, after the second `pause_seconds`, then twice as much each time; a full
    disk is given the pause at once, for nothing but time empties it.
    """
    if outcome in HANDED_BACK:
        return Decision(failures)
    assert outcome in LOST, f"after {outcome!r} there is no other attempt"
    failures += 1
    if failures >= max_failures:
        return Decision(failures, error=_given_up(outcome, failures, reasons))
    pauses_before = failures - 1 if outcome == "disk_full" else failures - 2
    return Decision(failures, after_seconds=pause_seconds * 2.0**pauses_before if pauses_before >= 0 else 0.0)


def outcome_of(problem: Problem) -> str:
    """What an attempt that met this problem ended as: the caller's fault below status 500, else the service's."""
    by_status = "user_error" if problem.status < 500 else "service_error"
    return _OUTCOME_OF_CODE.get(problem.code, by_status)


def _given_up(outcome: str, failures: int, reasons: Sequence[str]) -> Problem:
    code = LOST[outcome]
    times = "once" if failures == 1 else f"{failures} times"
    told = " ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))
    way_out = (
        "Make room on the worker's disk, then POST …/retry: it goes on from its checkpoint."
        if code == "DISK_FULL"
        else "Often it needs more memory than the worker has: try a smaller batch_size. If the machine was at fault, "
        "POST …/retry: it goes on from its checkpoint."
    )
    status = 507 if code == "DISK_FULL" else 500
    detail = f"The job was lost {times} while it ran. {told + ' ' if told else ''}{way_out}"
    return Problem(status, code, detail, retryable=True)
