"""Questions about jobs. Verbs are in `app.jobs`; nothing here changes a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, select
from sqlalchemy.orm import Session

from app.access.tenancy import EVERY_TENANT
from app.db import db_now
from app.errors import not_found
from app.scheduling import workers
from app.scheduling.places import Place, place
from app.scheduling.queue import QUEUES
from app.tables import QUEUED, RUNNING, Artifact, Attempt, Event, Job, Metric


@dataclass(frozen=True)
class Snapshot:
    """A job with what belongs to it, at one moment; its place in the line while it is queued."""

    job: Job
    attempts: Sequence[Attempt]
    place: Place | None

    @property
    def etag(self) -> str:
        """The version; while queued also position and reason, which change without the job."""
        if self.place is None:
            return f'"{self.job.version}"'
        return f'"{self.job.version}-{self.place.position or 0}-{self.place.reason}"'


def find_job(session: Session, job_id: str) -> Job:
    """Raises Problem 404."""
    job = session.get(Job, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def own_jobs(session: Session, job_ids: Sequence[str]) -> set[str]:
    """Those of these jobs that the session may see."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids))))


def snapshot(session: Session, job_id: str) -> Snapshot:
    """Raises Problem 404."""
    job = find_job(session, job_id)
    attempts = session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.n)).all()
    return Snapshot(job, attempts, place(session, job) if job.state == QUEUED else None)


def job_filters(
    state: str | None,
    labels: dict[str, str],
    created_after: float | None,
    *,
    passed: bool | None = None,
    paused: bool | None = None,
    sweep: str | None = None,
) -> list[ColumnElement[bool]]:
    """Conditions for a list of jobs that compress; inspections belong to their teacher or data set."""
    where: list[ColumnElement[bool]] = [Job.kind == "compress"]
    if state is not None:
        where.append(Job.state == state)
    if passed is not None:
        where.append(Job.passed.is_(passed))
    if paused is not None:
        where.append(Job.paused == paused)
    if sweep is not None:
        where.append(Job.sweep_id == sweep)
    if created_after is not None:
        where.append(Job.created_at > created_after)
    where += [Job.labels[key].as_string() == value for key, value in labels.items()]
    return where


def events(
    session: Session, job_id: str, *, after: int, limit: int, type: str | None = None
) -> Sequence[Event]:
    """In order, from the one after `after` on."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return session.scalars(query.where(Event.type == type) if type else query).all()


def metrics(session: Session, job_id: str, *, seed: int | None = None) -> Sequence[Metric]:
    """By seed, step and epoch. `seed`: only those of the seed at this 1-based position, or (0) the job's own."""
    order = (Metric.seed, Metric.step, Metric.epoch, Metric.split, Metric.name)
    query = select(Metric).where(Metric.job_id == job_id).order_by(*order)
    return session.scalars(query if seed is None else query.where(Metric.seed == seed)).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    query = (
        select(Artifact)
        .where(Artifact.job_id == job_id)
        .order_by(Artifact.step, Artifact.created_at, Artifact.id)
    )
    return session.scalars(query).all()


def final_artifact(session: Session, job_id: str) -> Artifact | None:
    """The answer of a job; the newest, should it have been tried again."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.kind == "final")
    return session.scalars(query.order_by(Artifact.created_at.desc(), Artifact.id.desc()).limit(1)).first()


def find_artifact(session: Session, artifact_id: str) -> Artifact:
    """Raises Problem 404."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise not_found("artifact", artifact_id)
    return artifact


def queues(session: Session) -> list[dict[str, Any]]:
    """Every queue.

    Jobs (of all tenants) that wait and run in it, how long the oldest has waited, and the workers that listen to it.
    What is paused, or waits for others of its sweep, does not wait for a worker.
    """
    listening = [queue for worker in workers.alive(session) for queue in worker.queues]
    waits = and_(Job.state == QUEUED, Job.paused == false(), Job.waits_for.is_(None))
    counted = (
        select(
            Job.queue,
            func.count().filter(waits),
            func.count().filter(Job.state == RUNNING),
            func.max(db_now() - Job.created_at).filter(waits),
        )
        .where(Job.state.in_((QUEUED, RUNNING)))
        .group_by(Job.queue)
    )
    found = session.execute(counted, execution_options=EVERY_TENANT)
    rows = {name: (depth, running, wait) for name, depth, running, wait in found}
    names = sorted({*QUEUES, *rows, *listening})
    return [
        {
            "name": name,
            "depth": rows.get(name, (0, 0, None))[0],
            "running": rows.get(name, (0, 0, None))[1],
            "oldest_wait_seconds": rows.get(name, (0, 0, None))[2],
            "workers": listening.count(name),
        }
        for name in names
    ]
