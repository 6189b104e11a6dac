"""Every error leaves as application/problem+json (RFC 9457), whoever raised it."""

import logging
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

from app.api.headers import protect
from app.database.outage import DatabaseAway, explain, say
from app.errors import Problem, database_unavailable
from app.spec import faults
from app.storage import disk

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
    found = exc.errors()
    in_body = any(fault["loc"][0] == "body" for fault in found)
    errors = [_field_error(fault, exc.body) for fault in found[:_MAX_ERRORS]]
    first = errors[0]
    where = first.get("pointer") or first.get("parameter") or "the body"
    more = f" (and {len(found) - 1} more, see errors)" if len(found) > 1 else ""
    code = "INVALID_SPEC" if in_body else "INVALID_PARAMETER"
    return problem_response(request, Problem(422, code, f"{where}: {first['detail']}{more}", errors=errors))


def _field_error(fault: Any, body: Any) -> dict[str, Any]:
    source, *path = fault["loc"]
    if source == "body":
        return faults.described(fault, path, body)
    return {
        "parameter": str(path[0])[:_MAX_TEXT],
        "code": fault["type"].upper(),
        "detail": faults.detail(fault),
    }


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
