"""Uploads in one request: `curl -T teacher.pt $U/v1/files/teacher.pt`."""

from typing import Annotated

from fastapi import APIRouter, File, Request, Response, UploadFile
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from app import resources, tables
from app.api.bodies import content_digest, declared_length, receive, verify
from app.api.context import CurrentCaller, CurrentSettings, CurrentStorage
from app.api.parameters import PageSize, PageToken, cursor_of, page_of
from app.api.room import room_for
from app.api.views import FileView, Page, file_view
from app.errors import Problem
from app.spec.resources import FileName
from app.tenancy import Caller

router = APIRouter(prefix="/v1/files", tags=["files"])

_RAW_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


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
    if (declared_length(request) or 0) > settings.max_file_bytes:
        raise resources.too_large(settings)
    limit = await run_in_threadpool(room_for, caller, declared_length(request), settings, name=name)
    with await run_in_threadpool(storage.writer, limit.bytes, limit.refusal) as writer:
        await receive(request, writer)
        sha256, size_bytes = await run_in_threadpool(writer.commit)
    return await run_in_threadpool(_save, caller, name, sha256, size_bytes, response)


@router.post("", response_model=FileView, status_code=201)
async def post_file(
    request: Request,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    storage: CurrentStorage,
    file: Annotated[UploadFile, File(description="Stored under its own file name.")],
) -> FileView:
    """The same from a form: `curl -F file=@teacher.pt $U/v1/files`."""
    name = _form_name(file)
    wanted = content_digest(request)
    limit = await run_in_threadpool(room_for, caller, file.size, settings, name=name)
    with await run_in_threadpool(storage.writer, limit.bytes, limit.refusal) as writer:
        while block := await file.read(1 << 20):
            await run_in_threadpool(writer.write, block)
        verify(wanted, writer.sha256)
        sha256, size_bytes = await run_in_threadpool(writer.commit)
    return await run_in_threadpool(_save, caller, name, sha256, size_bytes, response)


def _form_name(file: UploadFile) -> str:
    try:
        return TypeAdapter(FileName).validate_python(file.filename)
    except ValidationError:
        detail = (
            "A file's name has letters, digits and . _ - only. Rename it with -F "
            "'file=@photo.zip;filename=NAME'."
        )
        errors = [{"pointer": "/file", "code": "INVALID_NAME", "detail": detail}]
        raise Problem(422, "INVALID_NAME", detail, errors=errors) from None


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
