"""Questions about sweeps; nothing here changes a row. What a sweep is doing is what its jobs are doing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, defer

from app.access.tenancy import EVERY_TENANT
from app.errors import not_found
from app.scheduling import durations, workers
from app.spec.sweep import SweepSpec
from app.sweeps.infeasible import infeasible, is_infeasible
from app.sweeps.points import grid
from app.tables import CANCELLED, CANCELLING, FAILED, QUEUED, RUNNING, SUCCEEDED, TERMINAL, Job, Sweep

INFEASIBLE_STATE = "infeasible"
PAUSED_STATE = "paused"
COUNTED = (QUEUED, RUNNING, SUCCEEDED, FAILED, INFEASIBLE_STATE, CANCELLED)
"""Of a sweep's jobs, one a point and seed; those that are being cancelled count as running."""


@dataclass
class Child:
    """A job of a sweep's grid. `params`: axis -> value, or the name of a setting. `state`: the job's, or "infeasible"."""

    job: Job
    point: int
    params: dict[str, Any]
    seed: int
    state: str


@dataclass(frozen=True)
class Tally:
    """`counts`: of the grid's jobs, by COUNTED. The rest counts shared stages too."""

    counts: dict[str, int]
    num_waiting: int
    num_running: int
    num_cancelling: int
    num_ended: int
    version: int

    @property
    def is_over(self) -> bool:
        return self.num_waiting + self.num_running + self.num_cancelling == 0


@dataclass(frozen=True)
class Progress:
    """`fraction` of the estimated work, from 0 to 1; `eta_seconds`: None: nobody can tell."""

    fraction: float
    eta_seconds: float | None


@dataclass(frozen=True)
class SweepSnapshot:
    """A sweep with what its jobs are doing, at one moment. `progress`: only where a single sweep was asked for."""

    sweep: Sweep
    tally: Tally
    progress: Progress | None = None

    @property
    def id(self) -> str:
        return self.sweep.id

    @property
    def created_at(self) -> float:
        return self.sweep.created_at

    @property
    def version(self) -> int:
        return self.sweep.version + self.tally.version

    @property
    def etag(self) -> str:
        return f'"{self.version}"'

    @property
    def state(self) -> str:
        """queued: nothing has begun. When all has ended: cancelled if a job was, else failed if one failed or none
        succeeded."""
        tally, counts = self.tally, self.tally.counts
        if tally.is_over:
            if counts[CANCELLED]:
                return CANCELLED
            return FAILED if counts[FAILED] or not counts[SUCCEEDED] else SUCCEEDED
        if tally.num_running:
            return RUNNING
        if tally.num_cancelling:
            return RUNNING if tally.num_waiting else CANCELLING
        if self.sweep.paused:
            return PAUSED_STATE
        return RUNNING if tally.num_ended > counts[INFEASIBLE_STATE] else QUEUED


def find(session: Session, sweep_id: str) -> Sweep:
    """Raises Problem 404."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise not_found("sweep", sweep_id)
    return sweep


def children(session: Session, sweep_id: str) -> list[Child]:
    """The jobs of the grid in order of point and seed. Problem 404.

    Their results, which may be megabytes together, are read when one is asked for, in this session.
    """
    points = grid(SweepSpec.model_validate(find(session, sweep_id).spec))
    found = select(Job).options(defer(Job.result)).where(Job.sweep_id == sweep_id, Job.point.is_not(None))
    made = [_child(job, points[job.point].params) for job in session.scalars(found) if job.point is not None]
    return sorted(made, key=lambda child: (child.point, child.seed))


def _child(job: Job, params: dict[str, Any]) -> Child:
    assert job.point is not None
    return Child(job, job.point, params, job.spec["seed"], state_of(job))


def state_of(job: Job) -> str:
    """The job's state, or "infeasible"."""
    return INFEASIBLE_STATE if is_infeasible(job.state, job.error) else job.state


def snapshot(session: Session, sweep_id: str) -> SweepSnapshot:
    """Raises Problem 404."""
    sweep = find(session, sweep_id)
    [found] = with_tallies(session, [sweep])
    return SweepSnapshot(sweep, found.tally, _progress(session, sweep, found.tally))


def with_tallies(session: Session, sweeps: Sequence[Sweep]) -> list[SweepSnapshot]:
    """Each with what its jobs are doing; a few statements for all.

    The sweeps are the caller's, and so are their jobs: to look at each job's tenant too would be to read its row, which
    has the whole result in it, where the index has all that is counted.
    """
    ids = [sweep.id for sweep in sweeps]
    in_grid = Job.point.is_not(None).label("in_grid")
    counted = select(Job.sweep_id, Job.state, in_grid, func.count()).where(Job.sweep_id.in_(ids))
    states = session.execute(
        counted.group_by(Job.sweep_id, Job.state, in_grid), execution_options=EVERY_TENANT
    ).all()
    impossible = select(Job.sweep_id, func.count(Job.id)).where(
        Job.sweep_id.in_(ids), Job.point.is_not(None), infeasible()
    )
    num_infeasible = _numbers(session, impossible.group_by(Job.sweep_id))
    summed = select(Job.sweep_id, func.sum(Job.version)).where(Job.sweep_id.in_(ids)).group_by(Job.sweep_id)
    versions = _numbers(session, summed)
    return [
        SweepSnapshot(
            sweep,
            _tally(
                [row for row in states if row[0] == sweep.id],
                num_infeasible.get(sweep.id, 0),
                versions.get(sweep.id, 0),
            ),
        )
        for sweep in sweeps
    ]


def _numbers(session: Session, statement: Select[Any, Any]) -> dict[str, int]:
    rows = session.execute(statement, execution_options=EVERY_TENANT)
    return {sweep_id: int(number) for sweep_id, number in rows}


def _tally(rows: Sequence[Any], num_infeasible: int, version: int) -> Tally:
    counts = dict.fromkeys(COUNTED, 0)
    everything = dict.fromkeys((QUEUED, RUNNING, CANCELLING, *TERMINAL), 0)
    for _, state, in_grid, number in rows:
        everything[state] += number
        if in_grid:
            counts[RUNNING if state == CANCELLING else state] += number
    counts[FAILED] -= num_infeasible
    counts[INFEASIBLE_STATE] += num_infeasible
    return Tally(
        counts,
        num_waiting=everything[QUEUED],
        num_running=everything[RUNNING],
        num_cancelling=everything[CANCELLING],
        num_ended=sum(everything[state] for state in TERMINAL),
        version=version,
    )


def _progress(session: Session, sweep: Sweep, tally: Tally) -> Progress:
    """Weighed by what the jobs are estimated to cost, where that is known of all; else each counts as one."""
    left = session.execute(
        select(Job.queue, Job.estimated_macs, Job.progress).where(
            Job.sweep_id == sweep.id, Job.state.not_in(TERMINAL)
        )
    ).all()
    if not left:
        return Progress(1.0, 0.0)
    shares = [1.0 - ((progress or {}).get("fraction") or 0.0) for _, _, progress in left]
    if sweep.estimated_macs and all(macs is not None for _, macs, _ in left):
        open_macs = sum(macs * share for (_, macs, _), share in zip(left, shares, strict=True))
        fraction = 1.0 - open_macs / sweep.estimated_macs
    else:
        fraction = 1.0 - sum(shares) / (tally.num_ended + len(left))
    return Progress(min(max(fraction, 0.0), 1.0), _eta_seconds(session, sweep, left, shares))


def _eta_seconds(
    session: Session, sweep: Sweep, left: Sequence[Any], shares: Sequence[float]
) -> float | None:
    """What is left, at the pace of the last jobs, divided among the workers that could take it; as if nobody else had
    any."""
    total = 0.0
    for queue in {queue for queue, _, _ in left}:
        known = durations.pace(session, queue)
        for (of_queue, macs, _), share in zip(left, shares, strict=True):
            if of_queue != queue:
                continue
            seconds = known.seconds(1, macs or 0.0, int(macs is not None))
            if seconds is None:
                return None
            total += share * seconds
    queues = {queue for queue, _, _ in left}
    able = sum(bool(queues & set(worker.queues)) and not worker.trouble for worker in workers.alive(session))
    at_once = min(able, sweep.spec.get("max_concurrent") or able, len(left))
    return total / at_once if at_once and not sweep.paused else None
