"""What can be asked for: architectures with their layer tables, and the steps of a job."""

import inspect
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from app import reads, resources
from app.access.tenancy import Caller
from app.api.context import CurrentCaller, CurrentOutbox, CurrentSettings
from app.api.inspected import Rejected
from app.api.parameters import family, values_of_family
from app.api.views import Page
from app.api.waiting import Prefer, preferred_seconds, until
from app.errors import Problem
from app.planning import architectures
from app.spec.resources import ArchitectureQuery
from app.spec.steps import STEPS
from app.tables import SUCCEEDED, TERMINAL, Job

router = APIRouter(prefix="/v1", tags=["catalogue"])


class ArchitectureView(BaseModel):
    """A catalogue entry; `table` is the layer table for the classes, size and options that were asked for.

    `table` is null, with 202, until a worker has built the network.
    """

    architecture: dict[str, Any]
    query: dict[str, Any]
    table: dict[str, Any] | None


class StepView(BaseModel):
    name: str
    summary: str
    description: str
    json_schema: dict[str, Any]


@router.get("/architectures", response_model=Page[dict[str, Any]])
def list_architectures() -> Page[dict[str, Any]]:
    """All of them on one page: name, family, source, options, and parameters and MACs at the defaults."""
    return Page(items=list(architectures.catalogue().values()))


@router.get(
    "/architectures/{name:path}",
    response_model=ArchitectureView,
    responses={202: {"model": ArchitectureView, "description": "No worker has built it yet: ask again."}},
    openapi_extra=family(
        "option.", "[a-z_]{1,40}", "An option of the architecture: `option.width_mult=0.5`."
    ),
)
async def get_architecture(
    name: Annotated[str, Path(max_length=100, examples=["student_net"])],
    request: Request,
    response: Response,
    caller: CurrentCaller,
    settings: CurrentSettings,
    outbox: CurrentOutbox,
    num_classes: Annotated[int | None, Query(ge=1, le=100_000)] = None,
    image_size: Annotated[int | None, Query(ge=1, le=4096)] = None,
    prefer: Prefer = None,
) -> ArchitectureView:
    """One architecture and its layer table: output shape, parameters and MACs of every layer.

    A worker builds the network to fill the table; the same question again is answered from the database.
    """
    entry = architectures.find(name)
    query = _query(entry, num_classes, image_size, values_of_family(request, "option."))
    job = await run_in_threadpool(_known_or_new, caller, query)
    outbox.wake()
    seconds = preferred_seconds(prefer, settings.inspect_wait_seconds)
    job = await until(lambda: _read(caller, job.id), lambda job: job.state in TERMINAL, seconds)
    if job.state == SUCCEEDED:
        return ArchitectureView(architecture=entry, query=query.model_dump(), table=job.result or {})
    if job.state in TERMINAL:
        cancelled = Problem(
            422, "INSPECTION_CANCELLED", "The inspection was cancelled. Ask again.", retryable=True
        )
        raise Rejected(job.error or cancelled.body(), f"/v1/jobs/{job.id}")
    # GET /v1/workers shows whether there is anybody to build it.
    response.status_code = 202
    response.headers["Retry-After"] = "5"
    return ArchitectureView(architecture=entry, query=query.model_dump(), table=None)


def _query(
    entry: dict[str, Any], num_classes: int | None, image_size: int | None, options: dict[str, str]
) -> ArchitectureQuery:
    known = entry.get("options") or {}
    defaults = {name: option.get("default") for name, option in known.items()}
    given = {name: _typed(text, known.get(name, {})) for name, text in options.items()}
    try:
        query = ArchitectureQuery(
            architecture=entry["name"],
            options=defaults | given,
            num_classes=entry["num_classes"] if num_classes is None else num_classes,
            image_size=entry["image_size"] if image_size is None else image_size,
        )
    except ValidationError:
        raise Problem(
            422, "INVALID_PARAMETER", "option.NAME=VALUE: names have small letters and _, numbers are finite."
        ) from None
    faults = architectures.errors_in(query, "")
    faults += architectures.size_errors(entry["name"], query.image_size, "/image_size")
    errors = [_as_parameter(fault) for fault in faults]
    if errors:
        first = errors[0]
        detail = f"{first['parameter']}: {first['detail']} {first['hint']}"
        raise Problem(422, "INVALID_PARAMETER", detail, errors=errors)
    return query


def _as_parameter(error: dict[str, Any]) -> dict[str, Any]:
    pointer: str = error.pop("pointer")
    return {"parameter": pointer.replace("/options/", "option.").strip("/")[:100], **error}


def _typed(text: str, option: dict[str, Any]) -> int | float | bool | str:
    """A query's text as the type that the option has; left as text when it is not of that type."""
    wanted = option.get("type", "string")
    if wanted == "boolean" and text in ("true", "false"):
        return text == "true"
    try:
        return {"integer": int, "number": float}.get(wanted, str)(text[:100])
    except ValueError:
        return text[:100]


def _known_or_new(caller: Caller, query: ArchitectureQuery) -> Job:
    with caller.reading() as session:
        job = resources.known_architecture(session, query)
    if job is None:
        with caller.transaction() as session:
            job = resources.inspect_architecture(session, query)
    return job


def _read(caller: Caller, job_id: str) -> Job:
    with caller.reading() as session:
        return reads.find_job(session, job_id)


@router.get("/steps", response_model=Page[StepView])
def list_steps() -> Page[StepView]:
    """The methods that a job's steps may use, each with the JSON schema of its fields."""
    return Page(items=[_step_view(name) for name in sorted(STEPS)])


def _step_view(name: str) -> StepView:
    description = inspect.getdoc(STEPS[name]) or ""
    schema = STEPS[name].model_json_schema()
    return StepView(
        name=name, summary=description.split("\n")[0], description=description, json_schema=schema
    )
