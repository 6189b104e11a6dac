"""Uploads in one request: `curl -T teacher.pt $U/v1/files/teacher.pt`."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app import resources, tables
from app.access.tenancy import Caller
from app.api.bodies import blocks, content_digest, declared_length, receive, verify
from app.api.context import CurrentCaller, CurrentSettings, CurrentStorage
from app.api.forms import OVERHEAD_BYTES, FileForm
from app.api.parameters import PageSize, PageToken, cursor_of, page_of
from app.api.room import room_for
from app.api.threads import with_file
from app.api.views import FileView, Page, file_view
from app.spec.resources import FileName

router = APIRouter(prefix="/v1/files", tags=["files"])

_RAW_BODY = {
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["file"],
    "additionalProperties": False,
}
_FORM_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}


@router.put(
    "/{name}",
    response_model=FileView,
    openapi_extra=_RAW_BODY,
    responses={201: {"model": FileView, "description": "A new file."}},
)
async def put_file(
    name: FileName,
    request: Request,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> FileView:
    """Store the body under this name.

    201 when the name is new, 200 when its content was replaced or is the same.
    """
    if (declared_length(request.headers) or 0) > settings.max_file_bytes:
        raise resources.too_large(settings)
    limit = await run_in_threadpool(room_for, caller, declared_length(request.headers), settings, name=name)
    with await with_file(storage.writer, limit.bytes, limit.refusal) as writer:
        await receive(request, writer)
        sha256, size_bytes = await with_file(writer.commit)
    return await run_in_threadpool(_save, caller, name, sha256, size_bytes, response)


@router.post(
    "",
    response_model=FileView,
    status_code=201,
    responses={200: {"model": FileView, "description": "The name was known; it has this content now."}},
    openapi_extra=_FORM_BODY,
)
async def post_file(
    request: Request,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> FileView:
    """The same from a form: `curl -F file=@teacher.pt $U/v1/files`. Stored under the file's own name."""
    if (declared_length(request.headers) or 0) > settings.max_file_bytes + OVERHEAD_BYTES:
        raise resources.too_large(settings)
    wanted = content_digest(request.headers)
    declared_bytes = max(0, (declared_length(request.headers) or 0) - OVERHEAD_BYTES)
    limit = await run_in_threadpool(room_for, caller, declared_bytes, settings, name=None)
    with await with_file(storage.writer, limit.bytes, limit.refusal) as writer:
        form = FileForm(request.headers.get("content-type", ""), writer, settings.max_file_bytes)
        digest = hashlib.sha256()
        async for block in blocks(request):
            digest.update(block)
            await with_file(form.write, block)
        verify(wanted, digest.hexdigest())
        name = form.finish()
        sha256, size_bytes = await with_file(writer.commit)
    return await run_in_threadpool(_save, caller, name, sha256, size_bytes, response)


def _save(caller: Caller, name: str, sha256: str, size_bytes: int, response: Response) -> FileView:
    with caller.transaction() as session:
        file, new = resources.save_file(session, name=name, sha256=sha256, size_bytes=size_bytes)
        view = file_view(file)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/files/{name}"
    return view


@router.get("", response_model=Page[FileView])
def list_files(
    caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[FileView]:
    """The newest first."""
    with caller.reading() as session:
        rows = resources.newest(session, tables.File, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, file_view)


@router.get("/{name}", response_model=FileView)
def get_file(name: FileName, caller: CurrentCaller) -> FileView:
    """Size and digest. The bytes are not served again: only artifacts are downloads."""
    with caller.reading() as session:
        return file_view(resources.find_file(session, name))


@router.delete("/{name}", status_code=204)
def delete_file(name: FileName, caller: CurrentCaller) -> None:
    """Forget the name. Teachers and data sets made of the file keep what they have."""
    with caller.transaction() as session:
        resources.delete_file(session, name)
