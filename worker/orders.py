"""From a claim to an order: everything the child needs, as paths and values.

The child itself sees no database.
"""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access import tenancy
from app.db import db_now, reading
from app.errors import Problem, not_found
from app.jobs import Claim
from app.settings import settings
from app.spec.job import JobSpec
from app.starting import gpu
from app.storage.objects import storage
from app.tables import Attempt, Dataset, Job, Teacher
from worker import earlier_steps, work_folder

# An upload that needs more is hostile or broken: reading a 343 MB checkpoint takes less than a second.
_TEACHER_CPU_SECONDS = 300
# PyTorch alone takes 1 GB; half-precision weights are held in single precision, as a network, and packed.
_TEACHER_BYTES = 4 << 30
_TEACHER_BYTES_A_BYTE = 8
# Decoding 200,000 photos takes about an hour on one core.
_DATASET_CPU_SECONDS = 2 * 3600


def build(claim: Claim) -> dict[str, Any]:
    """The order for this claim; makes its work folder.

    Raises Problem when something that the job names is gone, OSError when the folder cannot be made.
    """
    cache_dir = settings().resolved_data_dir / "cache"
    cache_dir.mkdir(parents=True, exist_ok=True)
    common = {
        "job_id": claim.job_id,
        "work_dir": str(work_folder.prepare(claim)),
        "cache_dir": str(cache_dir),
        "num_threads": num_threads(claim.spec.get("num_threads")),
    }
    with reading() as session:
        tenant_id = session.scalars(select(Job.tenant_id).where(Job.id == claim.job_id)).one()
    # What one tenant ran is nothing to another, not even that it was quick.
    common["shared_dir"] = str(cache_dir / "tenants" / tenant_id)
    # Whatever the job names, it gets nothing of another tenant's.
    with tenancy.reading(tenant_id) as session:
        special = _compress(session, claim) if claim.kind == "compress" else _inspect(session, claim)
    return common | special


def num_cores() -> int:
    """The cores this process may use; macOS does not tell, so there all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads(asked: int | None) -> int:
    """The job's number, else this worker's setting, else one a core."""
    return asked or settings().num_threads or num_cores()


def _compress(session: Session, claim: Claim) -> dict[str, Any]:
    spec = JobSpec.model_validate(claim.spec)
    job = session.scalars(select(Job).where(Job.id == claim.job_id)).one()
    return {
        "do": "compress",
        "spec": claim.spec,
        "seed": spec.seed,
        "device": spec.device,
        "checkpoint_seconds": settings().checkpoint_seconds,
        "cancel_grace_seconds": settings().cancel_grace_seconds,
        "deadline_seconds": _seconds_left(session, claim, _deadline(spec)),
        "asked_seconds": _deadline(spec),
        "limits": _trainer_limits(spec),
        "teachers": [_teacher_of_job(session, ident) for ident in spec.teachers],
        "data": _data_of_job(session, spec.dataset),
        "begun": earlier_steps.begun_by(session, job),
        "snapshot_epochs": job.snapshot_epochs or {},
    }


def _deadline(spec: JobSpec) -> float:
    """Seconds of running. Jobs that were queued before the limit was lowered have it too."""
    most = settings().max_job_seconds
    return most if spec.deadline_seconds is None else min(spec.deadline_seconds, most)


def _seconds_left(session: Session, claim: Claim, deadline_seconds: float) -> float:
    """What all attempts since the first start took counts, so that a job which crashes does not get its time again;
    what it waited between them does not.

    At least a moment.
    """
    ran = func.sum(func.coalesce(Attempt.ended_at, db_now()) - Attempt.started_at)
    since_start = Attempt.started_at >= Job.started_at  # a retry begins anew
    query = select(ran).join(Job, Job.id == Attempt.job_id).where(Job.id == claim.job_id, since_start)
    return max(0.001, deadline_seconds - float(session.scalar(query) or 0.0))


def _trainer_limits(spec: JobSpec) -> dict[str, int]:
    if spec.device != "cpu" and gpu.present():
        return {"memory_bytes": 0, "nice": settings().trainer_nice}
    asked = settings().trainer_memory_bytes
    # A trainer that takes all there is ends as OUT_OF_MEMORY by its own limit; the kernel might end the worker instead.
    memory = 9 * machine_bytes() // 10 if asked is None else asked
    return {"memory_bytes": memory, "nice": settings().trainer_nice}


def machine_bytes() -> int:
    """The memory of this machine, or of the container (cgroup v2) if that has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _teacher_of_job(session: Session, ident: str) -> dict[str, Any]:
    teacher = session.get(Teacher, ident)
    if teacher is None:
        raise not_found("teacher", ident)
    if teacher.state != "ready" or teacher.artifact_sha256 is None:
        raise Problem(409, "TEACHER_NOT_READY", f"Teacher {ident} is {teacher.state}: register it again.")
    return {
        "id": ident,
        "kind": "soft_labels" if "soft_labels" in (teacher.report or {}) else "network",
        "path": _object(teacher.artifact_sha256),
        "sha256": teacher.artifact_sha256,
        "file_sha256": teacher.file_sha256,
        "tensors_sha256": teacher.tensors_sha256,
        "size_bytes": teacher.file_size_bytes,
        "declared_accuracy": teacher.spec.get("declared_accuracy"),
    }


def _data_of_job(session: Session, ident: str) -> dict[str, Any]:
    dataset = session.get(Dataset, ident)
    if dataset is None:
        raise not_found("dataset", ident)
    if dataset.state != "ready" or dataset.index_sha256 is None:
        raise Problem(409, "DATASET_NOT_READY", f"Data set {ident} is {dataset.state}: register it again.")
    return {
        "id": ident,
        "index_sha256": dataset.index_sha256,
        "pack_sha256": dataset.pack_sha256,
        "index": _object(dataset.index_sha256),
        "pack": _object(dataset.pack_sha256) if dataset.pack_sha256 else None,
        "folder": _folder(dataset.spec["folder"]) if dataset.spec.get("folder") else None,
    }


def _inspect(session: Session, claim: Claim) -> dict[str, Any]:
    what = claim.spec["inspect"]
    if what == "architecture":
        query = {key: value for key, value in claim.spec.items() if key != "inspect"}
        return {"do": what, "spec": query, "limits": _limits(_TEACHER_CPU_SECONDS)}
    ident = claim.spec["id"]
    row = session.get(Teacher, ident) if what == "teacher" else session.get(Dataset, ident)
    if row is None:
        raise not_found(what, ident)
    order: dict[str, Any] = {"do": what, "spec": row.spec, "file": None}
    if row.file_sha256 is not None:
        order["file"] = _object(row.file_sha256)
    if isinstance(row, Teacher):
        return order | {"limits": _limits(_TEACHER_CPU_SECONDS, row.file_size_bytes)}
    if row.spec.get("folder"):
        order["folder"] = _folder(row.spec["folder"])
    return order | {"limits": _limits(_DATASET_CPU_SECONDS)}


def _limits(cpu_seconds: int, file_bytes: int | None = None) -> dict[str, int]:
    """What an inspection may use; it opens what strangers sent.

    `file_bytes`: of a checkpoint, whose size says what it needs.

    No file it writes needs more than twice the largest upload (half-precision weights become single), and a
    little for its index.
    """
    most = settings().inspection_memory_bytes
    needed = most if file_bytes is None else _TEACHER_BYTES + _TEACHER_BYTES_A_BYTE * file_bytes
    return {
        "memory_bytes": min(most, needed),
        "cpu_seconds": cpu_seconds,
        "file_bytes": 2 * settings().max_file_bytes + (64 << 20),
    }


def _object(sha256: str) -> str:
    return str(storage().path(sha256))


def _folder(name: str) -> str:
    folder = settings().folders.get(name)
    if folder is None or not Path(folder).is_dir():
        raise Problem(
            422,
            "FOLDER_UNKNOWN",
            f"This worker has no image folder {name!r}: set FEWBYTES_FOLDERS on every machine.",
        )
    return str(Path(folder).resolve())
