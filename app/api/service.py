"""The service itself: is it well, who works for it, and the two programs that it hands out."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
from celery.exceptions import CeleryError
from fastapi import APIRouter, Request, Response
from kombu.exceptions import KombuError, OperationalError
from pydantic import BaseModel
from redis.exceptions import RedisError

from app import reads
from app.api import page
from app.api.content import content_response
from app.api.context import CurrentCaller, CurrentSettings
from app.api.threads import probing
from app.api.views import Page
from app.database import outage
from app.db import rfc3339
from app.errors import Problem
from app.scheduling import queue, workers
from app.settings import Settings

router = APIRouter(tags=["service"])

_ROUTES = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "files": "/v1/files",
    "uploads": "/v1/uploads",
    "teachers": "/v1/teachers",
    "datasets": "/v1/datasets",
    "jobs": "/v1/jobs",
    "sweeps": "/v1/sweeps",
    "architectures": "/v1/architectures",
    "steps": "/v1/steps",
    "presets": "/v1/presets",
    "workers": "/v1/workers",
    "queues": "/v1/queues",
    "usage": "/v1/usage",
    "keys": "/v1/keys",
    "audit": "/v1/audit",
    "load_artifact.py": "/v1/tools/load_artifact.py",
    "trace_network.py": "/v1/tools/trace_network.py",
    "health": "/healthz",
    "readiness": "/readyz",
}


class WorkerView(BaseModel):
    """`memory_bytes`: what one of its jobs may need; null: it did not say. `trouble`: why it takes none just now.
    `job_id`: the job of yours that it works on now."""

    id: str
    queues: list[str]
    device: str
    memory_bytes: int | None
    trouble: str | None
    started_at: str
    seen_at: str
    job_id: str | None


class QueueView(BaseModel):
    """`depth` jobs wait, the oldest for `oldest_wait_seconds`; paused ones do not."""

    name: str
    depth: int
    running: int
    oldest_wait_seconds: float | None
    workers: int


class Readiness(BaseModel):
    """Ready means: a job can be stored. Without a broker it waits until there is one."""

    status: Literal["ready"]
    database: Literal["ok"]
    broker: str


@router.get(
    "/",
    response_model=dict[str, Any],
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def root(request: Request, response: Response) -> Any:
    """Where everything is; for a browser (Accept: text/html) the page."""
    if page.is_wanted(request):
        return page.index(request)
    response.headers["Vary"] = "Accept"
    return {"service": "fewbytes", "routes": _ROUTES}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers, whatever it waits for: this takes no thread, which a silent database could hold."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness)
async def readyz(settings: CurrentSettings) -> Readiness:
    """503 when the database does not answer, or has other tables than this version; the broker is only reported."""
    # In a thread of its own kind: requests that wait for a silent database hold the others.
    return await anyio.to_thread.run_sync(_readiness, settings, limiter=probing())


def _readiness(settings: Settings) -> Readiness:
    if found := outage.now():
        raise outage.DatabaseAway(found)
    return Readiness(
        status="ready", database="ok", broker=_broker_state() if settings.broker_url else "not configured"
    )


def _broker_state() -> str:
    try:
        queue.depth(queue.QUEUES[0])
    except (KombuError, OperationalError, CeleryError, RedisError, OSError):
        return "does not answer"
    return "ok"


@router.get("/v1/workers", response_model=Page[WorkerView])
def list_workers(caller: CurrentCaller) -> Page[WorkerView]:
    """The worker processes that reported lately; what they work on, where that is yours."""
    with caller.reading() as session:
        found = workers.alive(session)
        own = reads.own_jobs(session, [worker.job_id for worker in found if worker.job_id])
    return Page(
        items=[
            WorkerView(
                id=worker.id,
                queues=worker.queues,
                device=worker.device,
                memory_bytes=worker.memory_bytes,
                trouble=worker.trouble,
                started_at=rfc3339(worker.started_at),
                seen_at=rfc3339(worker.seen_at),
                job_id=worker.job_id if worker.job_id in own else None,
            )
            for worker in found
        ]
    )


@router.get("/v1/queues", response_model=Page[QueueView])
def list_queues(caller: CurrentCaller) -> Page[QueueView]:
    """How much waits, and for how long: the jobs of all tenants, in one line."""
    with caller.reading() as session:
        return Page(items=[QueueView(**row) for row in reads.queues(session)])


@router.get("/v1/tools/{tool}", response_class=Response, responses={200: {"content": {"text/x-python": {}}}})
def get_tool(tool: Literal["load_artifact.py", "trace_network.py"], request: Request) -> Response:
    """`load_artifact.py` opens an artifact with torch alone.

    `trace_network.py` turns your own network into a checkpoint.
    """
    path = _tool(tool)
    content = path.read_bytes()
    return content_response(
        request,
        path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        filename=tool,
        media_type="text/x-python",
    )


def _tool(name: str) -> Path:
    """The file in the package `models`, which must not be imported here: it would bring torch."""
    found = importlib.util.find_spec("models")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise Problem(404, "NOT_INSTALLED", f"This server was installed without {name}.")
