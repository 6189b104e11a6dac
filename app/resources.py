"""The verbs of files, uploads, teachers and data sets.

A teacher or a data set is inspected by a worker before anybody may use it:

    register_* ──▶ inspecting ──settle(result)───▶ ready
                            └───settle(problem)──▶ rejected      (the row stays, with its reason)

Every function takes an open session inside `app.db.transaction()`, or `reading()` where it only reads.
"""

from difflib import get_close_matches
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import jobs
from app.access import audit, quotas
from app.access.tenancy import tenant_of
from app.canonical import fingerprint
from app.db import db_now, new_id
from app.errors import Problem, not_found
from app.planning import architectures
from app.settings import Settings
from app.spec.resources import ArchitectureQuery, DatasetSpec, TeacherSpec
from app.tables import CANCELLED, FAILED, SUCCEEDED, TERMINAL, Dataset, File, Job, Teacher, Upload

INSPECTING, READY, REJECTED = "inspecting", "ready", "rejected"
Inspected = Teacher | Dataset

_KINDS: dict[str, Any] = {"teacher": Teacher, "dataset": Dataset}
Cursor = tuple[float, str]


def now(session: Session) -> float:
    """Seconds since the epoch by the database's clock."""
    value = session.scalar(select(db_now()))
    assert value is not None
    return value


def newest(
    session: Session, table: Any, *where: ColumnElement[bool], after: Cursor | None, limit: int
) -> list[Any]:
    """Rows from the newest on, or those older than the cursor (created_at, id).

    A keyset: no row twice, none left out.
    """
    query = select(table).where(*where).order_by(table.created_at.desc(), table.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < tuple_(*after))
    return list(session.scalars(query))


# ---- files


def find_file(session: Session, name: str) -> File:
    """Raises Problem 404."""
    file = session.scalar(select(File).where(File.name == name))
    if file is None:
        raise not_found("file", name)
    return file


def size_of_file(session: Session, name: str | None) -> int:
    """Bytes of the file of this name, of the largest for None; 0 when there is none."""
    largest = select(func.max(File.size_bytes))
    return session.scalar(largest if name is None else largest.where(File.name == name)) or 0


def save_file(session: Session, *, name: str, sha256: str, size_bytes: int) -> tuple[File, bool]:
    """Give an object of the storage a user's name; a file of that name is replaced.

    Returns it and whether it is new. Raises Problem 403 QUOTA_EXCEEDED.

    Teachers and data sets that were made of the replaced content keep theirs: they refer to it by digest.
    """
    tenant_id = tenant_of(session)
    quotas.lock_for_storing(session, tenant_id)
    file, new = _named_content(session, name, sha256, size_bytes)
    session.flush()
    quotas.check_stored(session, tenant_id)
    audit.record(session, "file.put", name, sha256=sha256, size_bytes=size_bytes)
    return file, new


def _named_content(session: Session, name: str, sha256: str, size_bytes: int) -> tuple[File, bool]:
    at = now(session)
    file = session.scalar(select(File).where(File.name == name).with_for_update())
    if file is None:
        file = File(
            id=new_id("file"), name=name, sha256=sha256, size_bytes=size_bytes, created_at=at, updated_at=at
        )
        try:
            with session.begin_nested():
                session.add(file)
        except IntegrityError:  # another request saved this name since we looked
            file = session.scalars(select(File).where(File.name == name).with_for_update()).one()
        else:
            return file, True
    if file.sha256 != sha256:
        file.sha256, file.size_bytes, file.updated_at = sha256, size_bytes, at
    return file, False


def delete_file(session: Session, name: str) -> None:
    """Forget the name. The bytes go when nothing refers to them any more. Raises Problem 404."""
    session.delete(find_file(session, name))
    audit.record(session, "file.delete", name)


# ---- resumable uploads: the row is the intent, the bytes received are a file of `app.storage.uploads`


def begin_upload(
    session: Session, *, name: str, size_bytes: int, sha256: str | None, settings: Settings
) -> Upload:
    """Its size is counted from now on: what was begun will have room.

    Raises Problem 413 when the file would be too large, 403 QUOTA_EXCEEDED.
    """
    if size_bytes > settings.max_file_bytes:
        raise too_large(settings)
    tenant_id = tenant_of(session)
    quotas.lock_for_storing(session, tenant_id)
    at = now(session)
    upload = Upload(
        id=new_id("upl"),
        name=name,
        size_bytes=size_bytes,
        sha256=sha256,
        created_at=at,
        expires_at=at + settings.upload_expiry_seconds,
    )
    session.add(upload)
    session.flush()
    quotas.check_stored(session, tenant_id)
    audit.record(session, "upload.begin", upload.id, name=name, size_bytes=size_bytes)
    return upload


def finish_upload(session: Session, ident: str, *, sha256: str, size_bytes: int) -> tuple[File, bool]:
    """The upload is complete: it becomes a file. Returns that and whether it is new."""
    upload = find_upload(session, ident)
    upload.finished_at = now(session)
    return save_file(session, name=upload.name, sha256=sha256, size_bytes=size_bytes)


def cancel_upload(session: Session, ident: str) -> None:
    """Raises Problem 404."""
    session.delete(find_upload(session, ident))
    audit.record(session, "upload.delete", ident)


def find_upload(session: Session, ident: str) -> Upload:
    """Raises Problem 404 when it is unknown, cancelled or expired."""
    upload = session.get(Upload, ident)
    if upload is None or upload.expires_at < now(session):
        raise Problem(
            404, "NOT_FOUND", "There is no such upload, or it expired. Begin again with POST /v1/uploads."
        )
    return upload


def expired_uploads(session: Session) -> list[str]:
    """The uploads, whosever, that nobody finished in time, and those finished long ago."""
    return list(session.scalars(select(Upload.id).where(Upload.expires_at < db_now())))


def drop_uploads(session: Session, idents: list[str]) -> None:
    """Forget these rows, in a session of the service itself."""
    session.execute(delete(Upload).where(Upload.id.in_(idents)))


def too_large(settings: Settings) -> Problem:
    return Problem(
        413, "FILE_TOO_LARGE", f"A file may have {settings.max_file_bytes} bytes (FEWBYTES_MAX_FILE_BYTES)."
    )


# ---- teachers and data sets


def register_teacher(session: Session, spec: TeacherSpec) -> Teacher:
    """Insert the teacher and its inspection.

    Raises Problem 422 when the file or the architecture is unknown.
    """
    file = _named_file(session, spec.file)
    wrong = architectures.errors_in(spec.architecture, "/architecture") if spec.architecture else []
    if wrong:
        raise Problem(
            422,
            "INVALID_SPEC",
            f"{wrong[0]['pointer']}: {wrong[0]['detail']} {wrong[0]['hint']}",
            errors=wrong,
        )
    ident = new_id("tch")
    teacher = Teacher(
        id=ident,
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        state=INSPECTING,
        file_sha256=file.sha256,
        file_size_bytes=file.size_bytes,
        job_id=_inspection(session, {"inspect": "teacher", "id": ident}).id,
        created_at=now(session),
    )
    session.add(teacher)
    audit.record(session, "teacher.create", ident, file=file.name, sha256=file.sha256)
    return teacher


def register_dataset(session: Session, spec: DatasetSpec, settings: Settings) -> Dataset:
    """Insert the data set and its inspection. Raises Problem 422 when the file or the folder is unknown."""
    file = _named_file(session, spec.file) if spec.file is not None else None
    if spec.folder is not None and spec.folder not in settings.folders:
        raise _unknown(
            "/folder", "UNKNOWN_FOLDER", "The operator registered no folder of this name.", settings.folders
        )
    ident = new_id("dst")
    dataset = Dataset(
        id=ident,
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        state=INSPECTING,
        file_sha256=file.sha256 if file else None,
        file_size_bytes=file.size_bytes if file else None,
        job_id=_inspection(session, {"inspect": "dataset", "id": ident}).id,
        created_at=now(session),
    )
    session.add(dataset)
    source = {"file": file.name, "sha256": file.sha256} if file else {"folder": spec.folder}
    audit.record(session, "dataset.create", ident, **source)
    return dataset


def _named_file(session: Session, name: str) -> File:
    """The file that a new row will refer to. Until that is committed nobody deletes or replaces this one: its bytes,
    which may be old, have a name at every moment, and are not collected."""
    quotas.lock_for_queueing(session, tenant_of(session))  # before the file, as whoever saves one does
    file = session.scalar(select(File).where(File.name == name).with_for_update(read=True))
    if file is None:
        names = session.scalars(select(File.name).order_by(File.updated_at.desc()).limit(200)).all()
        near = get_close_matches(name, names, n=1)
        raise _unknown("/file", "UNKNOWN_FILE", "No file of this name was uploaded.", near)
    return file


def _unknown(pointer: str, code: str, detail: str, near: Any) -> Problem:
    hint = f"Did you mean {' or '.join(sorted(near)[:5])}?" if near else "Upload it with PUT /v1/files/NAME."
    error = {"pointer": pointer, "code": code, "detail": detail, "hint": hint}
    return Problem(422, "INVALID_SPEC", f"{pointer}: {detail} {hint}", errors=[error])


def _inspection(session: Session, spec: dict[str, Any]) -> Job:
    job, _ = jobs.submit(session, kind="inspect", spec=spec)
    session.flush()  # the row that refers to the job comes next
    return job


def find(session: Session, kind: str, ident: str) -> Any:
    """The teacher or data set. Raises Problem 404."""
    row = session.get(_KINDS[kind], ident)
    if row is None:
        raise not_found(kind, ident)
    return row


def settle(session: Session, job_spec: dict[str, Any], outcome: dict[str, Any] | Problem) -> None:
    """What an inspection found, written in the transaction that ends its job.

    A row deleted meanwhile needs nothing.
    """
    kind = job_spec["inspect"]
    if kind not in _KINDS:  # an architecture: the job's result is the answer
        return
    row: Inspected | None = session.get(_KINDS[kind], job_spec["id"])
    if row is None:
        return
    if isinstance(outcome, Problem):
        _reject(row, outcome.body())
    elif isinstance(row, Teacher):
        settle_teacher(row, outcome)
    else:
        settle_dataset(row, outcome)


def settle_teacher(teacher: Teacher, result: dict[str, Any]) -> None:
    teacher.artifact_sha256 = result["artifact_sha256"]
    teacher.artifact_size_bytes = result.get("artifact_size_bytes")
    teacher.tensors_sha256 = result.get("tensors_sha256")
    teacher.tensors_size_bytes = result.get("tensors_size_bytes")
    _accept(teacher, result["report"])


def settle_dataset(dataset: Dataset, result: dict[str, Any]) -> None:
    dataset.index_sha256 = result["index_sha256"]
    dataset.pack_sha256 = result["pack_sha256"]
    dataset.index_size_bytes = result.get("index_size_bytes")
    dataset.pack_size_bytes = result.get("pack_size_bytes")
    _accept(dataset, result["report"])


def _accept(row: Inspected, report: dict[str, Any]) -> None:
    row.state, row.report, row.error = READY, report, None


def _reject(row: Inspected, error: dict[str, Any]) -> None:
    row.state, row.report, row.error = REJECTED, None, error


def is_orphaned(session: Session, row: Inspected) -> bool:
    """Whether its inspection ended without a verdict.

    It was cancelled, or took its worker down every time.
    """
    if row.state != INSPECTING:
        return False
    job = session.get(Job, row.job_id)
    return job is not None and job.state in (FAILED, CANCELLED)


def settle_late(session: Session, kind: str, ident: str) -> Inspected:
    """The row, rejected if its inspection ended without a verdict. Raises Problem 404."""
    row: Inspected = find(session, kind, ident)
    job = session.get(Job, row.job_id)
    session.refresh(row, with_for_update=True)
    if job is not None and is_orphaned(session, row):
        _reject(
            row, job.error or Problem(422, "INSPECTION_CANCELLED", "The inspection was cancelled.").body()
        )
    return row


def remove(session: Session, kind: str, ident: str) -> None:
    """Delete the teacher or data set.

    Raises Problem 404, or 409 while a job that is not finished needs it.
    """
    row = find(session, kind, ident)
    live = select(Job.id, Job.spec).where(Job.kind == "compress", Job.state.not_in(TERMINAL))
    for job_id, spec in session.execute(live):
        if ident in (*spec["teachers"], spec["dataset"]):
            raise Problem(
                409, "IN_USE", f"Job {job_id} still needs it. Wait for that job, or cancel it first."
            )
    inspection = session.get(Job, row.job_id)
    session.delete(row)
    session.flush()
    if inspection is not None and inspection.state not in TERMINAL:
        jobs.cancel(session, inspection.id)
    audit.record(session, f"{kind}.delete", ident)


# ---- layer tables of architectures


def architecture_spec(query: ArchitectureQuery) -> dict[str, Any]:
    """The inspection that answers this query."""
    return {"inspect": "architecture", **query.model_dump(mode="json")}


def known_architecture(session: Session, query: ArchitectureQuery) -> Job | None:
    """The inspection of exactly this query, finished or under way, unless every one failed."""
    wanted = select(Job).where(
        Job.fingerprint == fingerprint(architecture_spec(query)), Job.state.not_in((FAILED, CANCELLED))
    )
    return session.scalars(wanted.order_by((Job.state == SUCCEEDED).desc(), Job.id).limit(1)).first()


def inspect_architecture(session: Session, query: ArchitectureQuery) -> Job:
    """The inspection of this query: the one there is, or a new one."""
    return known_architecture(session, query) or _inspection(session, architecture_spec(query))
