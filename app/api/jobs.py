"""Jobs: submit, look, wait, pause, cancel, try again."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app import jobs, reads, resources, reuse
from app.access.tenancy import Caller
from app.api.context import CurrentCaller, CurrentOutbox, CurrentStorage
from app.api.parameters import (
    PageSize,
    PageToken,
    Wait,
    cursor_of,
    etags_of,
    label_family,
    labels_of,
    page_of,
    seconds_of,
)
from app.api.views import JobSummary, JobView, Page, PlanView, job_summary, job_view
from app.api.waiting import Prefer, preferred_seconds, until
from app.planning import plans
from app.reads import Snapshot
from app.spec.job import JobSpec
from app.storage import removal
from app.storage.objects import Storage
from app.tables import TERMINAL, Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(pattern="^(job|ins)_[0-9a-z]{1,40}$")]
State = Literal["queued", "running", "cancelling", "cancelled", "succeeded", "failed"]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="The same key and body again answer the same job; another body is refused.",
    ),
]


@router.post(
    "",
    response_model=JobView,
    status_code=202,
    responses={200: {"model": PlanView, "description": "With validate_only: the job as it would run."}},
)
async def post_job(
    spec: JobSpec,
    response: Response,
    caller: CurrentCaller,
    outbox: CurrentOutbox,
    storage: CurrentStorage,
    validate_only: bool = False,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Any:
    """Queue a job. It is stored when this answers; poll the Location, or follow its events.

    With `reuse_result` it may have succeeded when this answers.
    """
    if validate_only:
        plan = await run_in_threadpool(_plan, caller, spec)
        response.status_code = 200
        return plan
    job_id, replayed = await run_in_threadpool(_submit, caller, spec, idempotency_key, storage)
    outbox.wake()
    found = await until(lambda: _snapshot(caller, job_id), _ended, preferred_seconds(prefer, 0.0))
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return _answer(found, response)


def _plan(caller: Caller, spec: JobSpec) -> Response:
    with caller.reading() as session:
        plan = plans.resolve(session, spec)
    body = PlanView(**vars(plan)).model_dump_json()
    return Response(body, media_type="application/json")


def _submit(caller: Caller, spec: JobSpec, key: str | None, storage: Storage) -> tuple[str, bool]:
    with caller.transaction() as session:
        result_key, estimated_macs = None, None
        # A replay must find its job even when a teacher of it was deleted since.
        if key is None or session.scalar(select(Job.id).where(Job.idempotency_key == key)) is None:
            plan = plans.resolve(session, spec)
            result_key, estimated_macs = plan.result_key, plan.estimated_macs
        job, replayed = jobs.submit(
            session,
            kind="compress",
            spec=spec.model_dump(mode="json"),
            name=spec.name,
            labels=dict(spec.labels),
            idempotency_key=key,
            result_key=result_key,
            estimated_macs=estimated_macs,
        )
        if spec.reuse_result and not replayed:
            reuse.reuse(session, job, storage)
        return job.id, replayed


def _snapshot(caller: Caller, job_id: str) -> Snapshot:
    with caller.reading() as session:
        return reads.snapshot(session, job_id)


def _ended(found: Snapshot) -> bool:
    return found.job.state in TERMINAL


def _answer(found: Snapshot, response: Response) -> JobView:
    response.headers["ETag"] = found.etag
    if not _ended(found):
        response.headers["Retry-After"] = "2"
    return job_view(found.job, found.attempts, found.place)


@router.get(
    "",
    response_model=Page[JobSummary],
    openapi_extra=label_family("Jobs with this label: `label.team=vision`."),
)
def list_jobs(
    request: Request,
    caller: CurrentCaller,
    state: State | None = None,
    passed: Annotated[bool | None, Query(description="Whether its result met all gates of the job.")] = None,
    paused: bool | None = None,
    sweep: Annotated[
        str | None, Query(pattern="^swp_[0-9a-z]{1,40}$", description="The jobs of this sweep.")
    ] = None,
    created_after: Annotated[
        str | None,
        Query(max_length=40, description="An RFC 3339 time.", json_schema_extra={"format": "date-time"}),
    ] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Page[JobSummary]:
    """The newest first, without specs and results."""
    labels = labels_of(request)
    where = reads.job_filters(
        state, labels, seconds_of("created_after", created_after), passed=passed, paused=paused, sweep=sweep
    )
    with caller.reading() as session:
        rows = resources.newest(session, Job, *where, after=cursor_of(page_token), limit=page_size + 1)
    return page_of(rows, page_size, job_summary)


@router.get(
    "/{job_id}", response_model=JobView, responses={304: {"description": "Unchanged since If-None-Match."}}
)
async def get_job(
    job_id: JobId,
    response: Response,
    caller: CurrentCaller,
    wait: Wait = 0,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Any:
    """A job with its attempts, spec and result.

    `?wait=30` answers when it changes (since If-None-Match, or since now), or after 30 seconds.
    """
    first = await run_in_threadpool(_snapshot, caller, job_id)
    known = etags_of(if_none_match) if if_none_match else {first.etag}

    def changed(found: Snapshot) -> bool:
        return _ended(found) or not known & {found.etag, "*"}

    found = first if changed(first) else await until(lambda: _snapshot(caller, job_id), changed, wait)
    view = _answer(found, response)
    if if_none_match and known & {found.etag, "*"}:
        return Response(status_code=304, headers=dict(response.headers))
    return view


@router.post("/{job_id}/cancel", response_model=JobView, status_code=202)
def cancel_job(job_id: JobId, response: Response, caller: CurrentCaller) -> JobView:
    """Stop the job.

    A running job keeps the best student so far as an artifact of kind best_so_far. 409 when it has ended.
    """
    with caller.transaction() as session:
        jobs.cancel(session, job_id)
    found = _snapshot(caller, job_id)
    if _ended(found):
        response.status_code = 200
    return _answer(found, response)


@router.post("/{job_id}/pause", response_model=JobView, status_code=202)
def pause_job(job_id: JobId, response: Response, caller: CurrentCaller) -> JobView:
    """Hold the job until it is resumed: 200 when it is held, 202 while it still runs.

    A running job saves a checkpoint and goes back to the queue; that uses up none of its attempts. 409 when it has
    ended or is being cancelled.
    """
    with caller.transaction() as session:
        jobs.pause(session, job_id)
    found = _snapshot(caller, job_id)
    if found.place is not None:
        response.status_code = 200
    return _answer(found, response)


@router.post("/{job_id}/resume", response_model=JobView)
def resume_job(job_id: JobId, response: Response, caller: CurrentCaller, outbox: CurrentOutbox) -> JobView:
    """Let workers take a paused job again, from its checkpoint. 409 when it has ended."""
    with caller.transaction() as session:
        jobs.resume(session, job_id)
    outbox.wake()
    return _answer(_snapshot(caller, job_id), response)


@router.post("/{job_id}/retry", response_model=JobView, status_code=202)
def retry_job(job_id: JobId, response: Response, caller: CurrentCaller, outbox: CurrentOutbox) -> JobView:
    """Queue a failed or cancelled job again, under the same id, with as many attempts and as much time as a new job has.

    It goes on from its last checkpoint. That is kept for seven days after the job's end (FEWBYTES_KEEP_WORK_DAYS, as
    the operator has it); after that the job starts anew.
    """
    with caller.transaction() as session:
        jobs.retry(session, job_id)
    outbox.wake()
    return _answer(_snapshot(caller, job_id), response)


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: JobId, caller: CurrentCaller) -> None:
    """Delete a job that has ended, with its events, metrics and artifacts.

    409 while it has not: cancel it first. Bytes that another job's artifact, or a teacher, has too stay. Its
    Idempotency-Key is free again.
    """
    with caller.transaction() as session:
        removal.remove(session, job_id)
