"""Teachers: trained networks that jobs learn from."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from app import resources, tables
from app.access.tenancy import Caller
from app.api import inspected
from app.api.content import DOWNLOAD, content_response
from app.api.context import CurrentCaller, CurrentOutbox, CurrentSettings, CurrentStorage
from app.api.parameters import PageSize, PageToken, cursor_of, page_of
from app.api.views import Page, TeacherView, teacher_view
from app.api.waiting import Prefer
from app.errors import Problem
from app.spec.resources import TeacherSpec

router = APIRouter(prefix="/v1/teachers", tags=["teachers"])

TeacherId = Annotated[str, Path(pattern="^tch_[0-9a-z]{1,40}$")]


@router.post(
    "",
    response_model=TeacherView,
    status_code=201,
    responses={202: {"model": TeacherView, "description": "Still being inspected: poll the Location."}},
)
async def post_teacher(
    spec: TeacherSpec,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    outbox: CurrentOutbox,
    prefer: Prefer = None,
) -> TeacherView:
    """Register an uploaded checkpoint.

    Answers when a worker has inspected it: 201, or 422 with what is wrong with it.
    """
    ident = await run_in_threadpool(_register, caller, spec)
    outbox.wake()
    seconds = settings.inspect_wait_seconds
    return await inspected.registered(caller, "teacher", ident, teacher_view, response, prefer, seconds)


def _register(caller: Caller, spec: TeacherSpec) -> str:
    with caller.transaction() as session:
        return resources.register_teacher(session, spec).id


@router.get("", response_model=Page[TeacherView])
def list_teachers(
    caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[TeacherView]:
    """The newest first."""
    with caller.reading() as session:
        rows = resources.newest(session, tables.Teacher, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, teacher_view)


@router.get("/{teacher_id}", response_model=TeacherView)
def get_teacher(teacher_id: TeacherId, caller: CurrentCaller) -> TeacherView:
    """With its layer table, once ready."""
    return teacher_view(inspected.read(caller, "teacher", teacher_id))


@router.get("/{teacher_id}/tensors", response_class=Response, responses=DOWNLOAD)
def get_tensors(
    teacher_id: TeacherId, request: Request, caller: CurrentCaller, storage: CurrentStorage
) -> Response:
    """What was read of the upload, as safetensors: the same weights give the same bytes, whatever they were wrapped in."""
    teacher = inspected.read(caller, "teacher", teacher_id)
    if teacher.tensors_sha256 is None:
        detail = (
            f"Teacher {teacher_id} is {teacher.state} and has no tensors: a table of soft labels never has."
        )
        raise Problem(409, "NO_TENSORS", detail, retryable=teacher.state == resources.INSPECTING)
    path = storage.path(teacher.tensors_sha256)
    return content_response(
        request,
        path,
        size_bytes=path.stat().st_size,
        sha256=teacher.tensors_sha256,
        filename=f"{teacher_id}.safetensors",
        media_type="application/octet-stream",
    )


@router.delete("/{teacher_id}", status_code=204)
def delete_teacher(teacher_id: TeacherId, caller: CurrentCaller) -> None:
    """409 while a job that is not finished needs it."""
    with caller.transaction() as session:
        resources.remove(session, "teacher", teacher_id)
