"""Every error leaves as application/problem+json (RFC 9457), whoever raised it."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from app import disk
from app.api.headers import protect
from app.errors import Problem, database_unavailable
from app.outage import DatabaseAway, explain, say
from app.spec.networks import Preprocessing, Student
from app.spec.steps import STEPS

log = logging.getLogger(__name__)

_MAX_ERRORS = 20
_MAX_TEXT = 300


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


class FieldError(BaseModel):
    """`pointer` is a JSON pointer into the body (RFC 6901); `parameter` a query, path or header parameter."""

    pointer: str | None = None
    parameter: str | None = None
    code: str
    detail: str
    hint: str | None = None


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it. Scripts match on `code`; people read `detail`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str | None = None
    request_id: str | None = None
    retryable: bool
    errors: list[FieldError]


def problem_response(request: Request, problem: Problem) -> ProblemResponse:
    """The problem as an answer to this request."""
    body = {
        "instance": request.scope["path"][:_MAX_TEXT],
        "request_id": request.state.request_id,
    } | problem.body()
    return ProblemResponse(body, status_code=problem.status, headers=problem.headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(DatabaseAway, _database)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return problem_response(request, exc)


async def _validation(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    faults = exc.errors()
    in_body = any(fault["loc"][0] == "body" for fault in faults)
    errors = [_field_error(fault, exc.body) for fault in faults[:_MAX_ERRORS]]
    first = errors[0]
    where = first.get("pointer") or first.get("parameter") or "the body"
    more = f" (and {len(faults) - 1} more, see errors)" if len(faults) > 1 else ""
    code = "INVALID_SPEC" if in_body else "INVALID_PARAMETER"
    return problem_response(request, Problem(422, code, f"{where}: {first['detail']}{more}", errors=errors))


def _field_error(fault: Any, body: Any) -> dict[str, Any]:
    source, *path = fault["loc"]
    error: dict[str, Any] = {}
    if source == "body":
        path = _without_tags(path, body, missing=fault["type"] == "missing")
        if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path.append("method")
        error["pointer"] = _pointer(path)
    else:
        error["parameter"] = str(path[0])[:_MAX_TEXT]
    error["code"] = fault["type"].upper()
    error["detail"] = _detail(fault)
    if fault["type"] == "extra_forbidden" and source == "body":
        near = get_close_matches(str(path[-1]), _fields_beside(path, body), n=1)
        error["hint"] = f"Did you mean {near[0]}?" if near else "Leave it out."
    elif fault["type"] == "missing" and not path:
        error["hint"] = "Send a JSON body with -H 'Content-Type: application/json'."
    return error


def _detail(fault: Any) -> str:
    """pydantic's sentence, where it does not repeat what was sent."""
    if fault["type"] == "union_tag_invalid":
        return f"There is no such method. Known: {', '.join(sorted(STEPS))}."
    if fault["type"] == "union_tag_not_found":
        return f"Say which method this step is. Known: {', '.join(sorted(STEPS))}."
    return str(fault["msg"]).removeprefix("Value error, ")[:_MAX_TEXT]


def _without_tags(path: Sequence[Any], body: Any, *, missing: bool) -> list[Any]:
    """pydantic's location names the branch of a union as if it were a key; a JSON pointer must not."""
    kept: list[Any] = []
    for index, part in enumerate(path):
        in_list = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if in_list or (isinstance(body, dict) and part in body):
            kept.append(part)
            body = body[part]
        elif missing and index == len(path) - 1:
            kept.append(part)
    return kept


def _pointer(path: Sequence[Any]) -> str:
    return "".join("/" + str(part)[:_MAX_TEXT].replace("~", "~0").replace("/", "~1") for part in path)


def _fields_beside(path: Sequence[Any], body: Any) -> list[str]:
    """Names that could have been meant where an unknown one was found."""
    if "preprocessing" in path[:-1]:
        return list(Preprocessing.model_fields)
    if "student" in path[:-1]:
        return list(Student.model_fields)
    if path[0] == "steps" and len(path) == 3:
        return list(STEPS[body["steps"][path[1]]["method"]].model_fields)
    from app.spec.job import JobSpec
    from app.spec.resources import DatasetSpec, TeacherSpec

    return [*JobSpec.model_fields, *TeacherSpec.model_fields, *DatasetSpec.model_fields]


_HTTP_CODES = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "FILE_TOO_LARGE"}


async def _http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    detail = str(exc.detail)
    if exc.status_code == 404:
        detail = "There is nothing at this path. GET / names the main routes, /docs all of them."
    elif exc.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"This path takes {headers['Allow']}."
    code = _HTTP_CODES.get(exc.status_code, "HTTP_ERROR")
    return problem_response(request, Problem(exc.status_code, code, detail, headers=headers))


def _allowed(request: Request) -> list[str]:
    """All methods of this path: the router's own answer knows only those of the first route that fits."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.methods and route.path_regex.match(request.scope["path"]):
            methods |= route.methods
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


async def _database(request: Request, exc: Exception) -> Response:
    # In a thread: where a table or column is missing it asks the database for its version.
    outage = await run_in_threadpool(explain, exc)
    if outage is None:
        raise exc  # a fault of ours
    say(outage)
    return problem_response(request, database_unavailable(other_tables=outage.other_tables))


async def _disk(request: Request, exc: Exception) -> Response:
    """Wherever it is met: a disk that is full or broken is the operator's to mend, and the request may come again."""
    if not disk.has_failed(exc):
        raise exc
    log.error("request %s: the disk fails: %s", request.state.request_id, exc)
    return problem_response(request, disk.failed(exc))


async def _gone(request: Request, exc: Exception) -> Response:
    """The client hung up in the middle of its body; nobody reads this answer."""
    return problem_response(request, Problem(400, "CLIENT_DISCONNECTED", "The body ended early."))


async def _unexpected(request: Request, exc: Exception) -> Response:
    # Starlette raises the exception again after this answer, so the server logs the traceback.
    detail = (
        f"A fault of this service, not of your request. Its log has more under {request.state.request_id}."
    )
    response = problem_response(request, Problem(500, "INTERNAL", detail, retryable=True))
    # This handler runs outside of the middleware that gives every other answer its headers.
    protect(response.headers, request.state.request_id)
    return response
