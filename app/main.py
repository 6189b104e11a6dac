"""The front door: `uvicorn app.main:app`, or `create_app()` with settings of one's own."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.api import (
    administration,
    analysis,
    artifacts,
    catalogue,
    datasets,
    documentation,
    events,
    files,
    jobs,
    openapi,
    page,
    presets,
    problems,
    reports,
    service,
    sweeps,
    teachers,
    uploads,
)
from app.api.access import Access
from app.api.front import Front
from app.api.keyring import Keyring
from app.api.parameters import RefuseUnknown
from app.api.strict import StrictBody
from app.api.threads import limit_database_threads
from app.scheduling.outbox import Outbox
from app.settings import Settings
from app.settings import settings as environment
from app.storage.collector import Collector
from app.storage.objects import Storage
from app.version import version

log = logging.getLogger(__name__)

_DESCRIPTION = """Compresses trained PyTorch image classifiers toward a number of bytes.

Upload a checkpoint and photos (`/v1/files`), register them (`/v1/teachers`, `/v1/datasets`), `POST
/v1/jobs`, follow it, download the student. Errors are `application/problem+json`: scripts match on `code`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API. The database must have been migrated; jobs run only where a worker listens."""
    settings = settings or environment()
    app = FastAPI(
        title="fewbytes",
        version=version(),
        description=_DESCRIPTION,
        lifespan=_lifespan,
        dependencies=[RefuseUnknown],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.storage = Storage(settings.resolved_data_dir)
    app.state.outbox = Outbox()
    app.state.keyring = Keyring()
    for router in (
        files,
        uploads,
        teachers,
        datasets,
        jobs,
        sweeps,
        events,
        artifacts,
        analysis,
        reports,
        catalogue,
        presets,
        service,
        administration,
        documentation,
        page,
    ):
        app.include_router(router.router)
    problems.install(app)
    openapi.install(app)
    # The last one added is the outermost.
    app.add_middleware(StrictBody, settings=settings)
    app.add_middleware(Access, settings=settings, keyring=app.state.keyring)
    app.add_middleware(Front)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    limit_database_threads()
    collector = Collector(app.state.settings)
    collector.start()
    try:
        async with _doorbells(app):
            yield
    finally:
        collector.stop()


@asynccontextmanager
async def _doorbells(app: FastAPI) -> AsyncIterator[None]:
    if not app.state.settings.broker_url:
        log.warning("no BROKER_URL: jobs are stored, but no worker hears of them")
        yield
        return
    app.state.outbox.start()
    try:
        yield
    finally:
        app.state.outbox.stop()


def __getattr__(name: str) -> Any:
    """`app.main:app` is made when it is asked for, so importing `create_app` reads no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
