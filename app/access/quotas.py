"""What one tenant uses, against what it may have: stored bytes, files, jobs that wait, jobs that run.

Bytes are counted by content: an object counts once however many of a tenant's rows refer to it, and once for each
tenant that has it. Counted are files, what teachers and data sets were made of and became, artifacts, and the
declared size of uploads under way. What inspections and jobs make is always kept, so it may pass the limit; then
nothing new is taken until there is room again.

A check that decides runs under the lock of the tenant's row: of parallel requests only those that fit pass.
"""

from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, select, union
from sqlalchemy.orm import Session

from app.access import tenants
from app.db import db_now
from app.errors import Problem
from app.storage import references
from app.tables import CANCELLING, QUEUED, RUNNING, File, Job, Upload

RETRY_SECONDS = 10


@dataclass(frozen=True)
class Usage:
    """What a tenant has now, as `Limits` counts it."""

    bytes: int
    files: int
    queued_jobs: int
    running_jobs: int


def usage(session: Session, tenant_id: str) -> Usage:
    return Usage(
        bytes=num_bytes(session, tenant_id),
        files=num_files(session, tenant_id),
        queued_jobs=num_queued(session, tenant_id),
        running_jobs=num_running(session, tenant_id),
    )


def num_bytes(session: Session, tenant_id: str) -> int:
    """Bytes of the tenant's distinct objects, and of its uploads under way at their declared sizes."""
    named = union(
        *(
            select(sha256.label("sha256"), size.label("size_bytes")).where(
                sha256.class_.tenant_id == tenant_id
            )
            for sha256, size in references.COLUMNS
        )
    ).subquery()
    objects = select(func.max(named.c.size_bytes).label("size_bytes")).group_by(named.c.sha256).subquery()
    stored = session.scalar(select(cast(func.coalesce(func.sum(objects.c.size_bytes), 0), BigInteger)))
    under_way = session.scalar(
        select(cast(func.coalesce(func.sum(Upload.size_bytes), 0), BigInteger)).where(
            Upload.tenant_id == tenant_id, Upload.finished_at.is_(None), Upload.expires_at > db_now()
        )
    )
    return (stored or 0) + (under_way or 0)


def num_files(session: Session, tenant_id: str) -> int:
    """Files, and uploads under way: each will be one."""
    files = session.scalar(select(func.count(File.id)).where(File.tenant_id == tenant_id)) or 0
    under_way = select(func.count(Upload.id)).where(
        Upload.tenant_id == tenant_id, Upload.finished_at.is_(None), Upload.expires_at > db_now()
    )
    return files + (session.scalar(under_way) or 0)


def num_queued(session: Session, tenant_id: str) -> int:
    waiting = select(func.count(Job.id)).where(Job.tenant_id == tenant_id, Job.state == QUEUED)
    return session.scalar(waiting) or 0


def num_running(session: Session, tenant_id: str) -> int:
    running = select(func.count(Job.id)).where(
        Job.tenant_id == tenant_id, Job.kind == "compress", Job.state.in_((RUNNING, CANCELLING))
    )
    return session.scalar(running) or 0


def lock_for_storing(session: Session, tenant_id: str) -> None:
    """Before storing what `check_stored` will look at; no wait where nothing is limited."""
    limits = tenants.limits(session, tenant_id)
    if limits.max_bytes or limits.max_files:
        tenants.lock(session, tenant_id)


def check_stored(session: Session, tenant_id: str) -> None:
    """After a flush, under the lock: Problem 403 QUOTA_EXCEEDED when the tenant now has more than it may."""
    limits = tenants.limits(session, tenant_id)
    if limits.max_bytes and (used := num_bytes(session, tenant_id)) > limits.max_bytes:
        raise no_room(limits.max_bytes, used)
    if limits.max_files and (files := num_files(session, tenant_id)) > limits.max_files:
        raise Problem(
            403,
            "QUOTA_EXCEEDED",
            f"This would be file number {files}, uploads under way included, of {limits.max_files} that you may "
            "have. Delete some with DELETE /v1/files/NAME (teachers and data sets keep what they have), or ask "
            "the operator for more.",
        )


def no_room(most: int, wanted: int) -> Problem:
    """`wanted`: bytes that would be stored then."""
    return Problem(
        403,
        "QUOTA_EXCEEDED",
        f"You may store {most} bytes; with this it would be {wanted} or more. GET /v1/usage shows what counts. "
        "Delete files, teachers or data sets, or ask the operator for more.",
    )


def lock_for_queueing(session: Session, tenant_id: str) -> None:
    """Before queueing what `check_queue` will look at."""
    if tenants.limits(session, tenant_id).max_queued_jobs:
        tenants.lock(session, tenant_id)


def check_queue(session: Session, tenant_id: str) -> None:
    """Under the lock, with the new job flushed.

    Problem 429 TOO_MANY_JOBS when too many wait, 403 QUOTA_EXCEEDED when what the job makes would have no room.
    """
    limits = tenants.limits(session, tenant_id)
    if limits.max_queued_jobs and num_queued(session, tenant_id) > limits.max_queued_jobs:
        raise Problem(
            429,
            "TOO_MANY_JOBS",
            f"{limits.max_queued_jobs} of your jobs wait already, the most that may, inspections included. Try "
            "again when one has started, or cancel some.",
            retryable=True,
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    if limits.max_bytes and (used := num_bytes(session, tenant_id)) > limits.max_bytes:
        raise no_room(limits.max_bytes, used)


def may_run_another(session: Session, tenant_id: str) -> bool:
    """Whether the tenant may have one more job running. Locks the tenant's row if there is a limit."""
    most = tenants.limits(session, tenant_id).max_running_jobs
    if not most:
        return True
    tenants.lock(session, tenant_id)
    return num_running(session, tenant_id) < most
