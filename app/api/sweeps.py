"""Sweeps: one job at every point of a grid; submit, look, wait, hold, cancel, try again, extend, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from app import presets, resources
from app.access import quotas
from app.access.tenancy import Caller
from app.api.context import CurrentCaller, CurrentOutbox, CurrentSettings, CurrentStorage
from app.api.jobs import IdempotencyKey
from app.api.parameters import (
    PageSize,
    PageToken,
    Wait,
    cursor_of,
    etags_of,
    label_family,
    labels_of,
    page_of,
)
from app.api.sweep_views import (
    SweepPlanView,
    SweepSummaryView,
    SweepView,
    plan_view,
    sweep_summary,
    sweep_view,
)
from app.api.views import Page
from app.api.waiting import until
from app.errors import Problem
from app.spec.sweep import SweepExtension, SweepPreset, SweepRequest, SweepSpec
from app.storage.objects import Storage
from app.sweeps import planning, reads, submitting, verbs
from app.sweeps.planning import PlannedSweep
from app.sweeps.reads import SweepSnapshot
from app.tables import Sweep

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

SweepId = Annotated[str, Path(pattern="^swp_[0-9a-z]{1,40}$")]


@router.post(
    "",
    response_model=SweepView,
    status_code=202,
    responses={
        200: {"model": SweepPlanView, "description": "With validate_only: the jobs that it would have."}
    },
)
async def post_sweep(
    request: Annotated[SweepRequest, Body()],
    response: Response,
    caller: CurrentCaller,
    outbox: CurrentOutbox,
    settings: CurrentSettings,
    storage: CurrentStorage,
    validate_only: bool = False,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Queue a job for every point of the grid and every seed, or for those of a preset. All are stored when this answers."""
    most = settings.max_sweep_jobs
    if validate_only:
        planned = await run_in_threadpool(_plan, caller, request, most)
        return Response(plan_view(planned).model_dump_json(), media_type="application/json")
    sweep_id, replayed = await run_in_threadpool(_submit, caller, request, most, storage, idempotency_key)
    outbox.wake()
    response.headers["Location"] = f"/v1/sweeps/{sweep_id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return _answer(await run_in_threadpool(_snapshot, caller, sweep_id), response)


def _plan(caller: Caller, request: SweepSpec | SweepPreset, max_jobs: int) -> PlannedSweep:
    spec = _expanded(request) if isinstance(request, SweepPreset) else request
    with caller.reading() as session:
        return planning.plan(session, spec, max_jobs=max_jobs)


def _expanded(request: SweepPreset) -> SweepSpec:
    spec = presets.expand(request.preset, request.teachers, request.dataset, request.options)
    own = {"name": request.name, "max_concurrent": request.max_concurrent}
    changes = {name: value for name, value in own.items() if value is not None}
    return spec.model_copy(update=changes | {"labels": spec.labels | request.labels})


def _submit(
    caller: Caller, request: SweepSpec | SweepPreset, max_jobs: int, storage: Storage, key: str | None
) -> tuple[str, bool]:
    """Resolved in a snapshot of its own: SQLite's one writer is not kept waiting for a thousand plans."""
    body = request.model_dump(mode="json")
    if key is not None:
        # A replay must find its sweep even when a teacher of it was deleted since.
        with caller.reading() as session:
            if (known := submitting.replay(session, key, body)) is not None:
                return known.id, True
    planned = _plan(caller, request, max_jobs)
    preset = request.preset if isinstance(request, SweepPreset) else None
    with caller.transaction() as session:
        sweep, replayed = submitting.submit(
            session, planned, storage, request=body, preset=preset, idempotency_key=key
        )
        return sweep.id, replayed


def _snapshot(caller: Caller, sweep_id: str) -> SweepSnapshot:
    with caller.reading() as session:
        return reads.snapshot(session, sweep_id)


def _ended(found: SweepSnapshot) -> bool:
    return found.tally.is_over


def _answer(found: SweepSnapshot, response: Response) -> SweepView:
    response.headers["ETag"] = found.etag
    if not _ended(found):
        response.headers["Retry-After"] = "2"
    return sweep_view(found)


@router.get(
    "",
    response_model=Page[SweepSummaryView],
    openapi_extra=label_family("Sweeps with this label: `label.team=vision`."),
)
def list_sweeps(
    request: Request, caller: CurrentCaller, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[SweepSummaryView]:
    """The newest first, without specs."""
    where = [Sweep.labels[key].as_string() == value for key, value in labels_of(request).items()]
    with caller.reading() as session:
        rows = resources.newest(session, Sweep, *where, after=cursor_of(page_token), limit=page_size + 1)
        found = reads.with_tallies(session, rows)
    return page_of(found, page_size, sweep_summary)


@router.get(
    "/{sweep_id}",
    response_model=SweepView,
    responses={304: {"description": "Unchanged since If-None-Match."}},
)
async def get_sweep(
    sweep_id: SweepId,
    response: Response,
    caller: CurrentCaller,
    wait: Wait = 0,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Any:
    """A sweep with what its jobs are doing; `GET /v1/jobs?sweep=…` lists those.

    `?wait=30` answers when one of them changes (since If-None-Match, or since now), or after 30 seconds.
    """
    first = await run_in_threadpool(_snapshot, caller, sweep_id)
    known = etags_of(if_none_match) if if_none_match else {first.etag}

    def changed(found: SweepSnapshot) -> bool:
        return _ended(found) or not known & {found.etag, "*"}

    found = first if changed(first) else await until(lambda: _snapshot(caller, sweep_id), changed, wait)
    view = _answer(found, response)
    if if_none_match and known & {found.etag, "*"}:
        return Response(status_code=304, headers=dict(response.headers))
    return view


@router.post("/{sweep_id}/cancel", response_model=SweepView, status_code=202)
def cancel_sweep(sweep_id: SweepId, response: Response, caller: CurrentCaller) -> SweepView:
    """Stop all its jobs: 200 when all have ended, 202 while some still save their best student. 409 when all had ended."""
    with caller.transaction() as session:
        verbs.cancel(session, sweep_id)
    found = _snapshot(caller, sweep_id)
    if _ended(found):
        response.status_code = 200
    return _answer(found, response)


@router.post("/{sweep_id}/pause", response_model=SweepView, status_code=202)
def pause_sweep(sweep_id: SweepId, response: Response, caller: CurrentCaller) -> SweepView:
    """Hold all its jobs until it is resumed: 200 when all are held, 202 while some still save a checkpoint. 409 when all
    have ended."""
    with caller.transaction() as session:
        verbs.pause(session, sweep_id)
    found = _snapshot(caller, sweep_id)
    if not found.tally.num_running:
        response.status_code = 200
    return _answer(found, response)


@router.post("/{sweep_id}/resume", response_model=SweepView)
def resume_sweep(
    sweep_id: SweepId, response: Response, caller: CurrentCaller, outbox: CurrentOutbox
) -> SweepView:
    """Let workers take its jobs again, those that were paused by themselves included. 409 when all have ended."""
    with caller.transaction() as session:
        verbs.resume(session, sweep_id)
    outbox.wake()
    return _answer(_snapshot(caller, sweep_id), response)


@router.post("/{sweep_id}/retry", response_model=SweepView, status_code=202)
def retry_sweep(
    sweep_id: SweepId, response: Response, caller: CurrentCaller, outbox: CurrentOutbox
) -> SweepView:
    """Queue again what failed or was cancelled, as `POST /v1/jobs/{id}/retry` does. 409 when nothing did.

    What is infeasible stays so, and is not tried.
    """
    with caller.transaction() as session:
        verbs.retry(session, sweep_id)
    outbox.wake()
    return _answer(_snapshot(caller, sweep_id), response)


@router.post("/{sweep_id}/extend", response_model=SweepView, status_code=202)
def extend_sweep(
    sweep_id: SweepId,
    extension: SweepExtension,
    response: Response,
    caller: CurrentCaller,
    outbox: CurrentOutbox,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> SweepView:
    """Run every point with more seeds. 409 when it has as many already."""
    with caller.reading() as session:
        sweep = reads.find(session, sweep_id)
        spec = SweepSpec.model_validate(sweep.spec)
        _check_more(spec, extension.seeds)
        longer = spec.model_copy(update={"seeds": extension.seeds})
        planned = planning.plan(session, longer, max_jobs=settings.max_sweep_jobs, first_seed=spec.seeds)
    with caller.transaction() as session:
        quotas.lock_for_queueing(session, caller.tenant_id)
        submitting.extend(session, sweep, planned, storage)
    outbox.wake()
    return _answer(_snapshot(caller, sweep_id), response)


def _check_more(spec: SweepSpec, seeds: int) -> None:
    if seeds <= spec.seeds:
        detail = (
            f"Each point has {spec.seeds} seeds, and seeds {seeds} asks for no more: give a larger number."
        )
        raise Problem(409, "SEEDS_EXIST", detail)


@router.delete("/{sweep_id}", status_code=204)
def delete_sweep(sweep_id: SweepId, caller: CurrentCaller) -> None:
    """Delete a sweep that is over, with all its jobs and what those left. 409 while one of them has not ended."""
    with caller.transaction() as session:
        verbs.delete(session, sweep_id)
