"""Uploads that survive a broken line: HEAD tells the offset, `curl -C OFFSET -T file` goes on there."""

import hashlib
import re
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from app import resources, tables
from app.access.tenancy import Caller
from app.api.bodies import blocks, content_digest, declared_length, verify
from app.api.context import CurrentCaller, CurrentSettings, CurrentStorage
from app.api.threads import with_file
from app.api.views import FileView, UploadView, file_view, upload_view
from app.errors import Problem
from app.settings import Settings
from app.spec.base import Spec
from app.spec.resources import FileName
from app.storage import disk
from app.storage.objects import CHUNK_BYTES, Storage
from app.storage.uploads import Part, Parts

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

UploadId = Annotated[str, Path(pattern="^upl_[0-9a-z]{1,40}$")]


class UploadSpec(Spec):
    """A file that will arrive in pieces. `sha256` of the whole, when given, is checked at its end."""

    name: FileName
    size_bytes: Annotated[int, Field(ge=1, le=2**53 - 1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None


@router.post("", response_model=UploadView, status_code=201)
def post_upload(
    spec: UploadSpec, response: Response, caller: CurrentCaller, settings: CurrentSettings
) -> UploadView:
    """Begin. Then PUT the bytes to the Location, in one piece or in several."""
    with caller.transaction() as session:
        upload = resources.begin_upload(
            session, name=spec.name, size_bytes=spec.size_bytes, sha256=spec.sha256, settings=settings
        )
        disk.check_room(settings.resolved_data_dir, spec.size_bytes, settings.min_free_bytes)
        Parts(settings.resolved_data_dir).begin(upload.id)
    response.headers["Location"] = f"/v1/uploads/{upload.id}"
    response.headers["Upload-Offset"] = "0"
    return upload_view(upload, 0)


@router.get("/{upload_id}", response_model=UploadView)
def get_upload(
    upload_id: UploadId,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> UploadView:
    """How much has arrived: also in the header Upload-Offset, so HEAD is enough."""
    upload, offset, file = _state(caller, upload_id, settings)
    if file is None and offset == upload.size_bytes:
        file = _finish_interrupted(caller, upload, settings, storage)
    response.headers["Upload-Offset"] = str(offset)
    response.headers["Upload-Length"] = str(upload.size_bytes)
    response.headers["Cache-Control"] = "no-store"
    return upload_view(upload, offset, file)


def _finish_interrupted(
    caller: Caller, upload: tables.Upload, settings: Settings, storage: Storage
) -> tables.File | None:
    """All bytes arrived, but the process died before it named them.

    Nobody would send another byte, so do it now.
    """
    try:
        with Parts(settings.resolved_data_dir).append(upload.id):
            return _finish(caller, upload, settings, storage)[0]
    except Problem as problem:
        # Not interrupted: the request that finishes it is still at work. Or no room to finish it: a later look does.
        if problem.code in ("UPLOAD_BUSY", "INSUFFICIENT_STORAGE"):
            return None
        raise


def _state(
    caller: Caller, upload_id: str, settings: Settings
) -> tuple[tables.Upload, int, tables.File | None]:
    """The upload, the bytes received, and the file once it is complete."""
    with caller.reading() as session:
        upload = resources.find_upload(session, upload_id)
        offset = Parts(settings.resolved_data_dir).offset(upload_id)
        if offset is not None:
            return upload, offset, None
        return upload, upload.size_bytes, resources.find_file(session, upload.name)


@router.put(
    "/{upload_id}",
    response_model=FileView,
    responses={
        201: {"model": FileView, "description": "All bytes have arrived; the file is new."},
        204: {"description": "These bytes have arrived, more are missing: Upload-Offset says from where."},
    },
    openapi_extra={
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        }
    },
)
async def put_upload(
    upload_id: UploadId,
    request: Request,
    caller: CurrentCaller,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> Response:
    """Append the body.

    `Content-Range: bytes 40-99/100` says where it belongs; without one it is the whole file.

    409 when the bytes do not begin at the offset, which Upload-Offset then tells. A line that breaks loses
    nothing that arrived. 507 when the disk is full: HEAD tells the offset, and the upload goes on from there later.
    """
    upload, offset, file = await run_in_threadpool(_state, caller, upload_id, settings)
    start, stop = _range(request, upload.size_bytes)
    if file is not None and start == offset:
        return _complete(file, new=False)
    if file is not None or start != offset:
        raise _wrong_offset(offset, upload.size_bytes)
    await run_in_threadpool(
        disk.check_room, settings.resolved_data_dir, stop - start, settings.min_free_bytes
    )
    with Parts(settings.resolved_data_dir).append(upload.id) as part:
        offset = await _append(part, upload, start, stop, request)
        if offset < upload.size_bytes:
            return Response(status_code=204, headers={"Upload-Offset": str(offset)})
        finished, new = await with_file(_finish, caller, upload, settings, storage)
    return _complete(finished, new=new)


def _complete(file: tables.File, *, new: bool) -> Response:
    headers = {"Location": f"/v1/files/{file.name}", "Upload-Offset": str(file.size_bytes)}
    body = file_view(file).model_dump_json()
    return Response(body, status_code=201 if new else 200, headers=headers, media_type="application/json")


def _wrong_offset(offset: int, size_bytes: int) -> Problem:
    detail = f"{offset} of {size_bytes} bytes have arrived: send from there, with curl -C {offset} -T FILE."
    return Problem(409, "WRONG_OFFSET", detail, retryable=True, headers={"Upload-Offset": str(offset)})


def _range(request: Request, size_bytes: int) -> tuple[int, int]:
    """The first byte and the one after the last that the body holds. Problem 400 when it cannot be."""
    header = request.headers.get("content-range")
    if header is None:
        return 0, size_bytes
    match = re.fullmatch(r"bytes (\d{1,16})-(\d{1,16})/(\d{1,16}|\*)", header.strip(), re.ASCII)
    if match is None:
        raise Problem(400, "INVALID_RANGE", "Content-Range is not of the form: bytes FIRST-LAST/TOTAL.")
    first, last, total = int(match[1]), int(match[2]), match[3]
    if total not in ("*", str(size_bytes)):
        detail = f"This upload has {size_bytes} bytes, not those of Content-Range. Is it another file?"
        raise Problem(400, "INVALID_RANGE", detail)
    length = declared_length(request.headers)
    if not first <= last < size_bytes or (length is not None and length != last - first + 1):
        detail = f"Content-Range must lie within 0-{size_bytes - 1} and be as long as the body."
        raise Problem(400, "INVALID_RANGE", detail)
    return first, last + 1


async def _append(part: Part, upload: tables.Upload, start: int, stop: int, request: Request) -> int:
    """Write the body as it comes; the offset after it."""
    offset = part.start
    if offset != start:  # somebody appended between our look and our lock
        raise _wrong_offset(offset, upload.size_bytes)
    wanted = content_digest(request.headers)
    digest = hashlib.sha256()
    async for block in blocks(request):
        if offset + len(block) > stop:
            raise Problem(
                413, "BODY_TOO_LONG", f"The body goes on after byte {stop - 1}, where it should end."
            )
        digest.update(block)
        await with_file(part.write, block)
        offset += len(block)
    try:
        verify(wanted, digest.hexdigest())
    except Problem:
        part.take_back()
        raise
    return offset


def _finish(
    caller: Caller, upload: tables.Upload, settings: Settings, storage: Storage
) -> tuple[tables.File, bool]:
    """All bytes are here: check, store and name them.

    Bytes with the wrong digest are dropped: offset 0 again. Without room for the copy they stay: looking at the upload
    later finishes it.
    """
    disk.check_room(settings.resolved_data_dir, upload.size_bytes, settings.min_free_bytes)
    parts = Parts(settings.resolved_data_dir)
    with disk.as_problem(), parts.path(upload.id).open("rb") as part, storage.writer() as writer:
        while block := part.read(CHUNK_BYTES):
            writer.write(block)
        try:
            verify(upload.sha256, writer.sha256)
        except Problem:
            parts.begin_again(upload.id)
            raise
        sha256, size_bytes = writer.commit()
    with caller.transaction() as session:
        file, new = resources.finish_upload(session, upload.id, sha256=sha256, size_bytes=size_bytes)
    parts.drop(upload.id)
    return file, new


@router.delete("/{upload_id}", status_code=204)
def delete_upload(upload_id: UploadId, caller: CurrentCaller, settings: CurrentSettings) -> None:
    """Give up: the bytes received are removed."""
    with caller.transaction() as session:
        resources.cancel_upload(session, upload_id)
    Parts(settings.resolved_data_dir).drop(upload_id)
