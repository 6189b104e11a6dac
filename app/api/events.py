"""What happens to a job: events as pages or as a stream, log lines, metrics."""

import csv
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app import reads
from app.access.tenancy import Caller
from app.api.context import CurrentCaller
from app.api.jobs import JobId
from app.api.parameters import PageSize
from app.api.views import EventView, MetricView, Page, event_view, metric_view
from app.database.outage import explain
from app.db import rfc3339
from app.tables import TERMINAL, Event

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

PING_SECONDS = 15.0
_POLL_SECONDS = 0.25
_BATCH = 200
_LOG_BATCH = 1000

Seq = Annotated[int, Query(ge=0, le=2**31 - 1, description="Events after this one.")]


MetricsOfSeed = Annotated[
    int | None, Query(ge=0, le=2**53, description="Only the numbers of this one of the job's several seeds.")
]


class EventPage(Page[EventView]):
    """`after` is what to ask for next; `ended` says that the job has ended and no event is left."""

    after: int
    ended: bool


@router.get(
    "/events",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def get_events(
    job_id: JobId,
    request: Request,
    caller: CurrentCaller,
    after: Seq = 0,
    stream: bool = False,
    page_size: PageSize = 100,
    accept: Annotated[str, Header()] = "*/*",
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Any:
    """A page of events; or all of them as they happen (`?stream=true`, `Accept: text/event-stream`).

    `curl -N $U/v1/jobs/$ID/events?stream=true` follows a job to its end. The stream's ids are the events'
    numbers: a client that reconnects sends the last as Last-Event-ID and misses none.
    """
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10:
        after = max(after, int(last_event_id))
    events, ended = await run_in_threadpool(_read, caller, job_id, after, page_size)
    if not (stream or "text/event-stream" in accept.lower()):
        seen = events[-1].seq if events else after
        return EventPage(items=[event_view(event) for event in events], after=seen, ended=ended)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.state.head:
        return Response(headers=headers, media_type="text/event-stream")
    return StreamingResponse(_stream(caller, job_id, after), headers=headers, media_type="text/event-stream")


def _read(caller: Caller, job_id: str, after: int, limit: int) -> tuple[list[Event], bool]:
    """Events after `after`, and whether these are the last that will ever come."""
    with caller.reading() as session:
        job = reads.find_job(session, job_id)
        events = list(reads.events(session, job_id, after=after, limit=limit))
    last = events[-1].seq if events else after
    return events, job.state in TERMINAL and last >= job.last_seq


async def _stream(caller: Caller, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Server-sent events. Between two looks it holds neither a thread nor a connection to the database."""
    ended = False
    spoke = time.monotonic()
    yield b": follow me\n\n"
    while not ended:
        try:
            events, ended = await run_in_threadpool(_read, caller, job_id, after, _BATCH)
        except SQLAlchemyError as error:
            if await run_in_threadpool(explain, error) is None:
                raise
            events = []  # whoever follows has had its answer's head: it waits with us until the database is back
        for event in events:
            after = event.seq
            data = json.dumps({"at": rfc3339(event.at), **event.data}, allow_nan=False)
            yield format_sse_event(data_str=data, event=event.type, id=str(event.seq))
        if events:
            spoke = time.monotonic()
        elif not ended:
            if time.monotonic() - spoke >= PING_SECONDS:
                yield KEEPALIVE_COMMENT
                spoke = time.monotonic()
            await anyio.sleep(_POLL_SECONDS)


@router.get(
    "/logs",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_logs(job_id: JobId, caller: CurrentCaller, after: Seq = 0) -> Response:
    """The log, a line each: time, level, message."""
    with caller.reading() as session:
        reads.find_job(session, job_id)
    return StreamingResponse(_log_lines(caller, job_id, after), media_type="text/plain; charset=utf-8")


def _log_lines(caller: Caller, job_id: str, after: int) -> Any:
    """In batches, so a long log is never whole in memory."""
    while True:
        with caller.reading() as session:
            events = reads.events(session, job_id, after=after, limit=_LOG_BATCH, type="log")
        yield "".join(
            f"{rfc3339(e.at)} {e.data.get('level', 'info'):7} {e.data.get('message', '')}\n" for e in events
        )
        if len(events) < _LOG_BATCH:
            return
        after = events[-1].seq


@router.get(
    "/metrics",
    response_model=Page[MetricView],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_metrics(
    job_id: JobId, caller: CurrentCaller, format: Literal["json", "csv"] = "json", seed: MetricsOfSeed = None
) -> Any:
    """Every number that was measured, by seed, step and epoch."""
    with caller.reading() as session:
        first_seed = reads.find_job(session, job_id).spec.get("seed", 0)
        position = None if seed is None else seed - first_seed + 1
        # 0 would be the job's own numbers, which no seed asks for.
        found = [] if position == 0 else reads.metrics(session, job_id, seed=position)
        views = [metric_view(metric, first_seed) for metric in found]
    if format == "json":
        return Page[MetricView](items=views)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(MetricView.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(view.model_dump() for view in views)
    return Response(text.getvalue(), media_type="text/csv")
