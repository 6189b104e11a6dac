"""What the database has about a job, read at one moment: plain values, so that a report is made without a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import reads
from app.reads import Snapshot
from app.tables import Artifact, Attempt, Dataset, Event, Job, Metric, Teacher

MOST_SEEDS = 20
"""So many seeds have their own learning curves in a report."""
_CURVES = ("accuracy", "cross_entropy", "train_loss")
_MOST_LOG_LINES = 30


@dataclass(frozen=True)
class Point:
    """A number of an epoch. `seed`: 1-based position; 0 in a job with one seed."""

    seed: int
    step: int
    epoch: int
    name: str
    value: float


@dataclass(frozen=True)
class JobFacts:
    """`stages`: the records of the answer's seed, or of the seed under way; stage 0 first. Empty before the teacher was
    measured."""

    job: Job
    snapshot: Snapshot
    attempts: Sequence[Attempt]
    stages: list[dict[str, Any]]
    points: list[Point] = field(default_factory=list)
    artifacts: Sequence[Artifact] = ()
    teachers: dict[str, str | None] = field(default_factory=dict)
    """id -> name, of those that are still there."""
    dataset_name: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    """Warnings and errors, the last ones."""

    @property
    def result(self) -> dict[str, Any]:
        return self.job.result or {}

    @property
    def class_names(self) -> list[str]:
        """In the order of the networks' outputs; empty for a job of before this was kept."""
        return list(self.stages[0].get("class_names") or []) if self.stages else []

    @property
    def last(self) -> dict[str, Any] | None:
        """The record of the answer, or of the last finished step; None before there is one."""
        return self.stages[-1] if len(self.stages) > 1 else None

    @property
    def teacher(self) -> dict[str, Any] | None:
        return self.stages[0] if self.stages else None

    @property
    def answer(self) -> Artifact | None:
        """The newest file of the kind that answers the job."""
        for kind in ("final", "best_so_far"):
            found = [artifact for artifact in self.artifacts if artifact.kind == kind]
            if found:
                return found[-1]
        return None


def read_job(session: Session, job_id: str) -> JobFacts:
    """Raises Problem 404."""
    found = reads.snapshot(session, job_id)
    spec, stages = found.job.spec, _stages(session, found.job)
    return JobFacts(
        job=found.job,
        snapshot=found,
        attempts=found.attempts,
        stages=stages,
        points=_points(session, found.job, stages),
        artifacts=reads.artifacts(session, job_id),
        teachers=_teacher_names(session, spec.get("teachers") or []),
        dataset_name=session.scalar(select(Dataset.name).where(Dataset.id == spec.get("dataset"))),
        log=_log(session, job_id),
    )


def _stages(session: Session, job: Job) -> list[dict[str, Any]]:
    """Of the result; while there is none, what was said on the way."""
    stages: list[dict[str, Any]] = (job.result or {}).get("stages") or []
    if stages:
        return stages
    said = select(Event.data).where(Event.job_id == job.id, Event.type == "stage").order_by(Event.seq)
    records: dict[int, dict[str, Any]] = {}
    seed = None
    for record in session.scalars(said):
        if record["step"] and record.get("seed") != seed:
            # The next seed begins: of the one before, only the teacher is its too.
            seed = record.get("seed")
            records = {step: kept for step, kept in records.items() if step == 0}
        # An attempt that was repeated said some of it twice; the last one counts.
        records[record["step"]] = record
    return [records[step] for step in sorted(records)] if 0 in records else []


def _points(session: Session, job: Job, stages: Sequence[dict[str, Any]]) -> list[Point]:
    """Also of steps that were done by another job: its epochs are where it noted them."""
    found = _points_of(session, (job.result or {}).get("reused_from") or job.id)
    for record in stages:
        if source := record.get("shared_from"):
            found = [point for point in found if point.step != record["step"]]
            found += [point for point in _points_of(session, source) if point.step == record["step"]]
    return sorted(found, key=lambda point: (point.seed, point.step, point.epoch, point.name))


def _points_of(session: Session, job_id: str) -> list[Point]:
    wanted = (Metric.job_id == job_id, Metric.epoch >= 0, Metric.name.in_(_CURVES), Metric.seed <= MOST_SEEDS)
    columns = (Metric.seed, Metric.step, Metric.epoch, Metric.name, Metric.value)
    return [Point(*row) for row in session.execute(select(*columns).where(*wanted))]


def _teacher_names(session: Session, idents: Sequence[str]) -> dict[str, str | None]:
    rows = session.execute(select(Teacher.id, Teacher.name).where(Teacher.id.in_(idents)))
    return {row.id: row.name for row in rows}


def _log(session: Session, job_id: str) -> list[dict[str, Any]]:
    said = select(Event.data).where(Event.job_id == job_id, Event.type == "log").order_by(Event.seq.desc())
    found = []
    for data in session.scalars(said.limit(500)):
        if data.get("level") in ("warning", "error", "stderr"):
            found.append(data)
        if len(found) == _MOST_LOG_LINES:
            break
    return found[::-1]
