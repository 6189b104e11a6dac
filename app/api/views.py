"""What callers see of the tables, in one style: snake_case, RFC 3339 UTC, units in the names."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from app import tables
from app.db import rfc3339
from app.scheduling.places import Place, Reason

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """`next_page_token` is null on the last page."""

    items: list[T]
    next_page_token: str | None = None


class FileView(BaseModel):
    name: str
    size_bytes: int
    sha256: str
    created_at: str
    updated_at: str


class UploadView(BaseModel):
    """`offset` bytes have arrived; go on there with PUT and Content-Range."""

    id: str
    name: str
    size_bytes: int
    offset: int
    sha256: str | None
    created_at: str
    expires_at: str
    file: FileView | None = None


class TeacherView(BaseModel):
    """`report`, once ready: architecture, parameters, macs, layers (the layer table), classes, warnings.

    `tensors_sha256`: the digest of the tensors as they were read, the same whatever they were wrapped in.
    """

    id: str
    name: str | None
    state: str
    spec: dict[str, Any]
    file_sha256: str
    file_size_bytes: int
    artifact_sha256: str | None
    tensors_sha256: str | None
    report: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: str
    links: dict[str, str]


class DatasetView(BaseModel):
    """`report`, once ready: class names, images and digest of every split, bad images, layout, warnings."""

    id: str
    name: str | None
    state: str
    spec: dict[str, Any]
    file_sha256: str | None
    index_sha256: str | None
    report: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: str
    links: dict[str, str]


class Progress(BaseModel):
    fraction: float | None = None
    step: int | None = None
    total: int | None = None
    unit: str | None = None
    eta_seconds: float | None = None


class QueuePlace(BaseModel):
    """What a queued job waits for. `position`: 1 is next; null while it is paused. `eta_seconds`: until it starts, as far
    as anybody can tell; null: nobody can. `detail` says what can be done."""

    position: int | None
    eta_seconds: float | None
    reason: Reason
    detail: str


class AttemptView(BaseModel):
    """`outcome`: succeeded, cancelled, paused, preempted, worker_lost, trainer_lost, out_of_memory, disk_full, deadline,
    user_error, service_error; null while it runs. `detail`: how it ended, in a sentence."""

    n: int
    worker: str
    device: str | None
    started_at: str
    ended_at: str | None
    outcome: str | None
    detail: str | None


class JobSummary(BaseModel):
    """`passed`: whether the result met all gates of the job; null when it set none, or has no result.

    `sweep_id`: the sweep that it belongs to; `point`: its position in that grid, null for steps that several begin with.
    """

    id: str
    kind: str
    name: str | None
    labels: dict[str, str]
    state: str
    paused: bool
    passed: bool | None
    sweep_id: str | None
    point: int | None
    phase: str | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    version: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    links: dict[str, str]


class JobView(JobSummary):
    """`version` grows with every change and is the ETag; `error` is a problem, as an HTTP error's body is.

    `result_key`: equal for jobs that do the same work on the same bytes; null for an inspection. `after_job_id`: the job
    that does its first `begun_steps` steps, once for several.
    """

    after_job_id: str | None
    begun_steps: int | None
    queue: QueuePlace | None
    attempts: list[AttemptView]
    spec: dict[str, Any]
    result_key: str | None
    result: dict[str, Any] | None


class PlanView(BaseModel):
    """What `?validate_only=true` answers: the job as it would run; nothing was stored.

    `estimated_macs`: multiply-adds of all steps and seeds; null where only doing it tells.
    """

    spec: dict[str, Any]
    teachers: list[dict[str, Any]]
    dataset: dict[str, Any]
    estimates: list[dict[str, Any]]
    estimated_macs: float | None
    limits: dict[str, Any]
    warnings: list[str]
    result_key: str


class EventView(BaseModel):
    seq: int
    at: str
    type: str
    data: dict[str, Any]


class MetricView(BaseModel):
    """`step` 0 is the teacher; `epoch` is null for a number of the whole step, `split` for one of none.

    `seed` is null for the job's own numbers; a job with several seeds has those of every seed beside them.
    """

    step: int
    epoch: int | None
    split: str | None
    name: str
    value: float
    unit: str
    device: str | None
    seed: int | None


class ArtifactView(BaseModel):
    """`kind`: final (the answer), stage (an earlier step's), best_so_far (of a job that was cancelled, or late), export (the
    answer in another format), snapshot (weights of an epoch, for jobs that go on from this one), or what a step calls a file
    that it offers beside its network."""

    id: str
    job_id: str
    step: int
    kind: str
    name: str
    sha256: str
    size_bytes: int
    metrics: dict[str, Any]
    created_at: str
    links: dict[str, str]


class CheckView(BaseModel):
    """`found` is null when the bytes are gone."""

    what: str
    claimed: int | str
    found: int | str | None
    ok: bool


class VerdictView(BaseModel):
    """`ok`: every check is."""

    ok: bool
    checks: list[CheckView]


def maybe_rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def file_view(file: tables.File) -> FileView:
    return FileView(
        name=file.name,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        created_at=rfc3339(file.created_at),
        updated_at=rfc3339(file.updated_at),
    )


def upload_view(upload: tables.Upload, offset: int, file: tables.File | None = None) -> UploadView:
    return UploadView(
        id=upload.id,
        name=upload.name,
        size_bytes=upload.size_bytes,
        offset=offset,
        sha256=upload.sha256,
        created_at=rfc3339(upload.created_at),
        expires_at=rfc3339(upload.expires_at),
        file=file_view(file) if file else None,
    )


def teacher_view(teacher: tables.Teacher) -> TeacherView:
    path = f"/v1/teachers/{teacher.id}"
    links = {"self": path, "tensors": f"{path}/tensors", "inspection": f"/v1/jobs/{teacher.job_id}"}
    return TeacherView(**_columns(teacher, TeacherView), created_at=rfc3339(teacher.created_at), links=links)


def dataset_view(dataset: tables.Dataset) -> DatasetView:
    path = f"/v1/datasets/{dataset.id}"
    links = {"self": path, "files": f"{path}/files", "inspection": f"/v1/jobs/{dataset.job_id}"}
    return DatasetView(**_columns(dataset, DatasetView), created_at=rfc3339(dataset.created_at), links=links)


def job_summary(job: tables.Job) -> JobSummary:
    return JobSummary(**_job_fields(job))


def job_view(job: tables.Job, attempts: Sequence[tables.Attempt], place: Place | None) -> JobView:
    return JobView(
        **_job_fields(job),
        after_job_id=job.after_job_id,
        begun_steps=job.begun_steps,
        queue=QueuePlace(**vars(place)) if place is not None else None,
        attempts=[attempt_view(attempt) for attempt in attempts],
        spec=job.spec,
        result_key=job.result_key,
        result=job.result,
    )


def _job_fields(job: tables.Job) -> dict[str, Any]:
    path = f"/v1/jobs/{job.id}"
    names = (
        "events",
        "logs",
        "metrics",
        "artifacts",
        "report",
        "plots",
        "cancel",
        "pause",
        "resume",
        "retry",
        "download",
    )
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "labels": job.labels,
        "state": job.state,
        "paused": job.paused,
        "passed": job.passed,
        "sweep_id": job.sweep_id,
        "point": job.point,
        "phase": job.phase,
        "progress": job.progress,
        "error": job.error,
        "version": job.version,
        "created_at": rfc3339(job.created_at),
        "started_at": maybe_rfc3339(job.started_at),
        "finished_at": maybe_rfc3339(job.finished_at),
        "links": {"self": path} | {name: f"{path}/{name}" for name in names},
    }


def attempt_view(attempt: tables.Attempt) -> AttemptView:
    return AttemptView(
        n=attempt.n,
        worker=attempt.worker,
        device=attempt.device,
        started_at=rfc3339(attempt.started_at),
        ended_at=maybe_rfc3339(attempt.ended_at),
        outcome=attempt.outcome,
        detail=attempt.detail,
    )


def event_view(event: tables.Event) -> EventView:
    return EventView(seq=event.seq, at=rfc3339(event.at), type=event.type, data=event.data)


def metric_view(metric: tables.Metric, first_seed: int) -> MetricView:
    return MetricView(
        seed=first_seed + metric.seed - 1 if metric.seed else None,
        step=metric.step,
        epoch=None if metric.epoch < 0 else metric.epoch,
        split=metric.split or None,
        name=metric.name,
        value=metric.value,
        unit=metric.unit,
        device=metric.device,
    )


def artifact_view(artifact: tables.Artifact) -> ArtifactView:
    path = f"/v1/artifacts/{artifact.id}"
    links = {"self": path, "content": f"{path}/content", "receipt": f"{path}/receipt"}
    links |= {"job": f"/v1/jobs/{artifact.job_id}"}
    return ArtifactView(
        **_columns(artifact, ArtifactView), created_at=rfc3339(artifact.created_at), links=links
    )


def _columns(row: Any, view: type[BaseModel]) -> dict[str, Any]:
    """The fields that the table and the view have in common under one name, times and links apart."""
    return {name: getattr(row, name) for name in view.model_fields if name not in ("created_at", "links")}
