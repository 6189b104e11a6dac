"""The tables. Times are seconds since the epoch by the *database's* clock (`app.db.db_now`); the API renders RFC 3339."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

QUEUED, RUNNING, CANCELLING = "queued", "running", "cancelling"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: Json, list[Any]: Json, float: Float(53)}


def _tenant_of_the_session(context: ExecutionContext) -> str:
    tenant: str | None = context.execution_options.get("fewbytes_tenant")
    if tenant is None:
        raise RuntimeError(
            "A row needs an owner: open the session with app.access.tenancy, or name the tenant_id."
        )
    return tenant


class Owned:
    """What belongs to one tenant. `app.access.tenancy` keeps its sessions to rows with their own `tenant_id`."""

    tenant_id: Mapped[str] = mapped_column(
        String(40), ForeignKey("tenants.id"), default=_tenant_of_the_session, sort_order=100
    )


class OfJob:
    """What belongs to a job, and so to whoever owns that."""

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), sort_order=-1)


class Tenant(Base):
    """Somebody who uses this service, and sees nothing of the others.

    A limit that is null is the settings' own; 0 means none.
    """

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # ten_…
    name: Mapped[str] = mapped_column(String(80), unique=True)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_files: Mapped[int | None] = mapped_column()
    max_queued_jobs: Mapped[int | None] = mapped_column()
    max_running_jobs: Mapped[int | None] = mapped_column()
    weight: Mapped[float] = mapped_column(
        default=1.0, server_default="1"
    )  # its share of the workers, beside the others'
    created_at: Mapped[float] = mapped_column()


class ApiKey(Owned, Base):
    """An access key. What opens the door is shown once; stored are its first characters and its sha256."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # key_…
    name: Mapped[str] = mapped_column(String(80))
    prefix: Mapped[str] = mapped_column(String(16), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(8))  # read, write, admin
    created_at: Mapped[float] = mapped_column()
    expires_at: Mapped[float | None] = mapped_column()
    last_used_at: Mapped[float | None] = mapped_column()
    revoked_at: Mapped[float | None] = mapped_column()

    __table_args__ = (Index(None, "tenant_id", "created_at"),)


class AuditEntry(Owned, Base):
    """A change that somebody made: written in the transaction of the change, never changed itself."""

    __tablename__ = "audit"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # aud_…
    created_at: Mapped[float] = mapped_column()
    key_id: Mapped[str | None] = mapped_column(String(40))  # null: no key was needed, or the command line
    request_id: Mapped[str | None] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(40))  # job.submit, file.delete, …
    target: Mapped[str] = mapped_column(String(200))  # an id, or a file's name
    detail: Mapped[dict[str, Any]] = mapped_column()

    __table_args__ = (Index(None, "tenant_id", "created_at"),)


class File(Owned, Base):
    """An upload under its user's name; the bytes are an object of the storage."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # file_…
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column()
    updated_at: Mapped[float] = mapped_column()

    __table_args__ = (UniqueConstraint("tenant_id", "name"),)


class Upload(Owned, Base):
    """A resumable upload under way; `finished_at` once it is a file."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # upl_…
    name: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column()
    expires_at: Mapped[float] = mapped_column()
    finished_at: Mapped[float | None] = mapped_column()

    __table_args__ = (Index(None, "tenant_id"),)


class Teacher(Owned, Base):
    """A trained network. `artifact_sha256` is its file as jobs read it: graph, tensors, preprocessing, class names.

    `tensors_sha256`: what the gate read of the upload, as safetensors; null for a table of soft labels.
    """

    __tablename__ = "teachers"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # tch_…
    name: Mapped[str | None] = mapped_column(String(200))
    spec: Mapped[dict[str, Any]] = mapped_column()
    state: Mapped[str] = mapped_column(String(16))  # inspecting, ready, rejected
    file_sha256: Mapped[str] = mapped_column(String(64))
    file_size_bytes: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    artifact_sha256: Mapped[str | None] = mapped_column(String(64))
    artifact_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    tensors_sha256: Mapped[str | None] = mapped_column(String(64))
    tensors_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column()

    __table_args__ = (Index(None, "tenant_id", "created_at"),)


class Dataset(Owned, Base):
    """Photos in classes. `index_sha256`: the listing; `pack_sha256`: the images' bytes in a row (null: a folder)."""

    __tablename__ = "datasets"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # dst_…
    name: Mapped[str | None] = mapped_column(String(200))
    spec: Mapped[dict[str, Any]] = mapped_column()
    state: Mapped[str] = mapped_column(String(16))  # inspecting, ready, rejected
    file_sha256: Mapped[str | None] = mapped_column(String(64))
    file_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    index_sha256: Mapped[str | None] = mapped_column(String(64))
    index_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    pack_sha256: Mapped[str | None] = mapped_column(String(64))
    pack_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column()

    __table_args__ = (Index(None, "tenant_id", "created_at"),)


class Sweep(Owned, Base):
    """Jobs that differ in what its axes say. Its state, and how far it is, are those of its jobs: nothing is told twice."""

    __tablename__ = "sweeps"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # swp_…
    name: Mapped[str | None] = mapped_column(String(200))
    preset: Mapped[str | None] = mapped_column(String(80))  # what it was asked for by
    labels: Mapped[dict[str, Any]] = mapped_column()
    spec: Mapped[dict[str, Any]] = mapped_column()
    fingerprint: Mapped[str] = mapped_column(String(64))  # of the request's body
    idempotency_key: Mapped[str | None] = mapped_column(String(255))

    paused: Mapped[bool] = mapped_column(default=False, server_default=false())
    shared: Mapped[dict[str, Any]] = mapped_column()  # what is trained once for several: SweepView.shared
    estimated_macs: Mapped[float | None] = mapped_column()  # of all its jobs; null where only doing it tells
    version: Mapped[int] = mapped_column(
        default=1
    )  # grows with its own changes; the caller's is this plus its jobs'
    created_at: Mapped[float] = mapped_column()
    finished_at: Mapped[float | None] = mapped_column()  # when the last of its jobs had ended

    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "finished_at"),
    )


STAGE, ROOM = "stage", "room"
"""What a job of a sweep may wait for before workers see it: a job that does its first steps; fewer jobs at once."""


class Job(Owned, Base):
    """One piece of work. The row is the truth; a message in the queue only says "look at this row".

    `attempt` counts claims and is the fencing token: every write of a worker names it, and an older one changes nothing.
    `failures` counts attempts lost to crashes; a job handed back on purpose does not use one up.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # job_… (inspections: ins_…)
    kind: Mapped[str] = mapped_column(String(16))  # compress, inspect
    queue: Mapped[str] = mapped_column(String(40))  # the Celery queue: compress, gpu, inspect
    name: Mapped[str | None] = mapped_column(String(200))
    labels: Mapped[dict[str, Any]] = mapped_column()
    spec: Mapped[dict[str, Any]] = mapped_column()
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)  # sha256 of the canonical JSON of spec
    idempotency_key: Mapped[str | None] = mapped_column(String(255))

    priority: Mapped[int] = mapped_column(
        default=0, server_default="0"
    )  # among its tenant's jobs; the higher first
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)  # a worker with less leaves it alone
    estimated_macs: Mapped[float | None] = (
        mapped_column()
    )  # multiply-adds of all seeds; null where only doing it tells
    result_key: Mapped[str | None] = mapped_column(
        String(64), index=True
    )  # equal: the same work on the same bytes

    sweep_id: Mapped[str | None] = mapped_column(String(40))
    point: Mapped[int | None] = mapped_column()  # of the sweep's grid, from 0; null: its steps are for others
    # No foreign key: a job that began with the steps of another one outlives it.
    after_job_id: Mapped[str | None] = mapped_column(String(40))
    begun_steps: Mapped[int | None] = (
        mapped_column()
    )  # so many finished steps of that job are its own first ones
    waits_for: Mapped[str | None] = mapped_column(String(16))  # STAGE or ROOM; null: workers may take it
    snapshot_epochs: Mapped[dict[str, Any] | None] = mapped_column(
        Json
    )  # step -> epochs whose weights later jobs go back to

    state: Mapped[str] = mapped_column(String(16))
    paused: Mapped[bool] = mapped_column(
        default=False, server_default=false()
    )  # no worker takes it until it is resumed
    passed: Mapped[bool | None] = (
        mapped_column()
    )  # whether the result met the job's own limits; null: it has none, or no result
    phase: Mapped[str | None] = mapped_column(String(80))
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    version: Mapped[int] = mapped_column(default=1)  # grows with every visible change; the ETag
    last_seq: Mapped[int] = mapped_column(default=0)  # of its events

    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None] = mapped_column()
    dispatched_at: Mapped[float | None] = mapped_column()
    next_attempt_at: Mapped[float | None] = mapped_column()

    created_at: Mapped[float] = mapped_column()
    started_at: Mapped[float | None] = mapped_column()
    finished_at: Mapped[float | None] = mapped_column()
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)

    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        Index(None, "state", "queue", "finished_at"),
        Index(None, "tenant_id", "kind", "created_at", "id"),
        # A tenant's next job is one look into this, however many wait.
        Index(
            "ix_jobs_turn",
            "tenant_id",
            "state",
            "queue",
            "paused",
            priority.desc(),
            "created_at",
            "id",
        ),
        # The same without those that wait for others of their sweep: the one above is the version before's, and goes
        # with the next.
        Index(
            "ix_jobs_free_turn",
            "tenant_id",
            "state",
            "queue",
            "paused",
            priority.desc(),
            "created_at",
            "id",
            postgresql_where=waits_for.is_(None),
            sqlite_where=waits_for.is_(None),
        ),
        # All that is counted of a sweep, without a look at its rows, which hold results.
        Index(
            "ix_jobs_sweep",
            "sweep_id",
            "state",
            "waits_for",
            "point",
            postgresql_where=sweep_id.is_not(None),
            sqlite_where=sweep_id.is_not(None),
        ),
    )


class Attempt(OfJob, Base):
    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(200))
    device: Mapped[str | None] = mapped_column(String(80))
    started_at: Mapped[float] = mapped_column()
    ended_at: Mapped[float | None] = mapped_column()
    outcome: Mapped[str | None] = mapped_column(String(40))  # `app.jobs.OUTCOMES`
    detail: Mapped[str | None] = mapped_column(Text)  # one sentence on how it ended

    __table_args__ = (Index(None, "ended_at"),)


class Event(OfJob, Base):
    """What happened to a job, in order; `seq` counts within the job. Log lines are events of type `log`."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column()
    type: Mapped[str] = mapped_column(String(24))  # state, paused, resumed, progress, stage, log, artifact
    data: Mapped[dict[str, Any]] = mapped_column()


class Metric(OfJob, Base):
    """One number. `step` 0 is the teacher; `epoch` -1 means "of the step", not of an epoch; `split` "" means none.

    A job with several seeds has the numbers of its n-th one (counted from 1) under `seed` n; under 0 are the job's own.
    """

    __tablename__ = "metrics"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    seed: Mapped[int] = mapped_column(default=0, server_default="0")
    step: Mapped[int] = mapped_column()
    epoch: Mapped[int] = mapped_column(default=-1)
    split: Mapped[str] = mapped_column(String(16), default="")
    name: Mapped[str] = mapped_column(String(80))
    value: Mapped[float] = mapped_column()
    unit: Mapped[str] = mapped_column(String(24), default="1")
    device: Mapped[str | None] = mapped_column(String(80))

    # A resumed trainer repeats epochs after its checkpoint: the same numbers again, so they replace themselves.
    __table_args__ = (UniqueConstraint("job_id", "seed", "step", "epoch", "split", "name"),)


class Artifact(Owned, Base):
    """A file a job left: `final` is the answer, `stage` an earlier step's, `best_so_far` what a cancelled or late job had,
    `export` the answer in another format, `snapshot` the weights of an epoch for jobs that go on from this one; a step's
    attachments have kinds of their own."""

    __tablename__ = "artifacts"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # art_…
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int] = mapped_column()
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column()
    receipt: Mapped[dict[str, Any] | None] = mapped_column(
        Json
    )  # what it was made of, and how to count again
    created_at: Mapped[float] = mapped_column()

    __table_args__ = (Index(None, "tenant_id"),)


class Worker(Base):
    """A worker process that reported lately."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)  # host:pid
    queues: Mapped[list[Any]] = mapped_column()
    device: Mapped[str] = mapped_column(Text)
    memory_bytes: Mapped[int | None] = mapped_column(
        BigInteger
    )  # what one of its jobs may need; null: it did not say
    trouble: Mapped[str | None] = mapped_column(Text)  # why it takes no jobs just now
    started_at: Mapped[float] = mapped_column()
    seen_at: Mapped[float] = mapped_column()
    job_id: Mapped[str | None] = mapped_column(String(40))


class Duty(Base):
    """Something that one process does for all. Whoever has it renews it; when it lapses, another takes it."""

    __tablename__ = "duties"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    until: Mapped[float] = mapped_column()
