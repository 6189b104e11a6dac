"""What the service answers, typed. Each class has the fields that the OpenAPI says; a test compares them.

A newer service may send more: such fields are kept, and nothing here says what they mean.
"""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Page(Answer, Generic[T]):
    """`next_page_token` is null on the last page."""

    items: list[T]
    next_page_token: str | None = None


# ---- files, teachers, data sets


class FileView(Answer):
    name: str
    size_bytes: int
    sha256: str
    created_at: str
    updated_at: str


class UploadView(Answer):
    """`offset` bytes have arrived."""

    id: str
    name: str
    size_bytes: int
    offset: int
    sha256: str | None
    created_at: str
    expires_at: str
    file: FileView | None = None


class TeacherView(Answer):
    """`state`: inspecting, ready, rejected."""

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


class DatasetView(Answer):
    """`state`: inspecting, ready, rejected."""

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


class ImageView(Answer):
    path: str
    split: str
    label: str | None
    size_bytes: int | None
    sha256: str


# ---- jobs


class QueuePlace(Answer):
    """What a queued job waits for."""

    position: int | None
    eta_seconds: float | None
    reason: str
    detail: str


class AttemptView(Answer):
    n: int
    worker: str
    device: str | None
    started_at: str
    ended_at: str | None
    outcome: str | None
    detail: str | None


class JobSummary(Answer):
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
    """`after_job_id`: the job that does its first `begun_steps` steps, once for several."""

    after_job_id: str | None
    begun_steps: int | None
    queue: QueuePlace | None
    attempts: list[AttemptView]
    spec: dict[str, Any]
    result_key: str | None
    result: dict[str, Any] | None


class PlanView(Answer):
    """A job as it would run."""

    spec: dict[str, Any]
    teachers: list[dict[str, Any]]
    dataset: dict[str, Any]
    estimates: list[dict[str, Any]]
    estimated_macs: float | None
    limits: dict[str, Any]
    warnings: list[str]
    result_key: str


class EventView(Answer):
    seq: int
    at: str
    type: str
    data: dict[str, Any]


class EventPage(Page[EventView]):
    """`after` is what to ask for next; `ended`: the job has ended and no event is left."""

    after: int
    ended: bool


class MetricView(Answer):
    step: int
    epoch: int | None
    split: str | None
    name: str
    value: float
    unit: str
    device: str | None
    seed: int | None


# ---- artifacts


class ArtifactView(Answer):
    """`kind`: final (the answer), stage, best_so_far, export, or a step's own."""

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


class CheckView(Answer):
    what: str
    claimed: int | str
    found: int | str | None
    ok: bool


class VerdictView(Answer):
    ok: bool
    checks: list[CheckView]


# ---- what can be asked for, and of whom


class ArchitectureView(Answer):
    """`table` is null until a worker has built the network."""

    architecture: dict[str, Any]
    query: dict[str, Any]
    table: dict[str, Any] | None


class StepView(Answer):
    name: str
    summary: str
    description: str
    json_schema: dict[str, Any]


class WorkerView(Answer):
    id: str
    queues: list[str]
    device: str
    memory_bytes: int | None
    trouble: str | None
    started_at: str
    seen_at: str
    job_id: str | None


class QueueView(Answer):
    name: str
    depth: int
    running: int
    oldest_wait_seconds: float | None
    workers: int


# ---- a tenant's own affairs


class Amount(Answer):
    """`limit` is null where there is none."""

    used: int
    limit: int | None


class UsageView(Answer):
    tenant: str
    bytes: Amount
    files: Amount
    queued_jobs: Amount
    running_jobs: Amount
    requests_per_minute: int | None


class KeyView(Answer):
    id: str
    name: str
    prefix: str
    scope: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class NewKeyView(KeyView):
    """`secret` is shown this once."""

    secret: str


class AuditView(Answer):
    id: str
    at: str
    key_id: str | None
    request_id: str | None
    action: str
    target: str
    detail: dict[str, Any]


class Readiness(Answer):
    status: Literal["ready"]
    database: Literal["ok"]
    broker: str
