"""Query parameters: none goes unread, families like `label.k=v` are read whole, page tokens are opaque."""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_origin

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant

from app.api.views import Page
from app.errors import Problem
from app.resources import Cursor

T = TypeVar("T")
_MAX_OF_FAMILY = 32

PageSize = Annotated[int, Query(ge=1, le=200)]
PageToken = Annotated[str | None, Query(max_length=500, description="`next_page_token` of the page before.")]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for a change before answering.")]


def family(prefix: str, name: str, description: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads every parameter `prefix` + what the pattern `name` fits."""
    values = {"type": "string", "maxLength": 200}
    schema = {
        "type": "object",
        "patternProperties": {f"^{re.escape(prefix)}{name}$": values},
        "additionalProperties": False,
        "maxProperties": _MAX_OF_FAMILY,
    }
    # An object in the form style is spread: each of its properties is a query parameter of its own.
    parameter = {
        "name": f"{prefix}NAME",
        "in": "query",
        "description": description,
        "style": "form",
        "explode": True,
        "schema": schema,
    }
    return {"parameters": [parameter], "x-parameter-prefix": prefix}


def _query_fields(dependant: Dependant) -> Iterator[Any]:
    yield from dependant.query_params
    for inner in dependant.dependencies:
        yield from _query_fields(inner)


def _is_list(field: Any) -> bool:
    return field is not None and get_origin(field.field_info.annotation) is list


async def refuse_unknown(request: Request) -> None:
    """A misspelt filter that is silently ignored answers another question than was asked: Problem 400."""
    route = request.scope["route"]
    fields = {field.alias: field for field in _query_fields(route.dependant)}
    known = fields.keys()
    prefix = (route.openapi_extra or {}).get("x-parameter-prefix")
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known and not (prefix and name.startswith(prefix)):
            raise Problem(
                400,
                "UNKNOWN_PARAMETER",
                f"This path has no such query parameter. It takes: {', '.join(sorted(known)) or 'none'}.",
                errors=[
                    {
                        "parameter": name[:100],
                        "code": "UNKNOWN_PARAMETER",
                        "detail": "Not a parameter of this path.",
                    }
                ],
            )
        if name in seen and not _is_list(fields.get(name)):
            raise _invalid(name[:100], "It is given twice.")
        seen.add(name)


RefuseUnknown = Depends(refuse_unknown)


def values_of_family(request: Request, prefix: str) -> dict[str, str]:
    """Problem 422 beyond 32 of them: each is a condition of a query, and databases take only so many."""
    values = {
        name.removeprefix(prefix): value
        for name, value in request.query_params.multi_items()
        if name.startswith(prefix)
    }
    if len(values) > _MAX_OF_FAMILY:
        raise _invalid(f"{prefix}NAME", f"It is given {len(values)} times; {_MAX_OF_FAMILY} are taken.")
    return values


_LABEL = "[A-Za-z0-9_.-]{1,63}"


def label_family(description: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `labels_of`."""
    return family("label.", _LABEL, description)


def labels_of(request: Request) -> dict[str, str]:
    """Every `label.KEY=VALUE`. Problem 422 where one cannot be a label."""
    labels = values_of_family(request, "label.")
    for key, value in labels.items():
        if not re.fullmatch(_LABEL, key) or len(value) > 200 or "\x00" in value:
            raise Problem(
                422, "INVALID_PARAMETER", "label.KEY=VALUE: a key has letters, digits and . _ - only."
            )
    return labels


def etags_of(header: str) -> set[str]:
    """What an If-None-Match names."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _invalid(parameter: str, detail: str) -> Problem:
    errors = [{"parameter": parameter, "code": "INVALID_PARAMETER", "detail": detail}]
    return Problem(422, "INVALID_PARAMETER", f"{parameter}: {detail}", errors=errors)


def token_of(cursor: Any) -> str:
    """An opaque page token. Its content is ours to change: clients only hand it back."""
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")


def page_of(rows: Sequence[Any], page_size: int, view: Callable[[Any], T]) -> Page[T]:
    """A page of `resources.newest`, which was asked for one row more than the page holds."""
    shown = rows[:page_size]
    token = token_of([shown[-1].created_at, shown[-1].id]) if len(rows) > page_size else None
    return Page(items=[view(row) for row in shown], next_page_token=token)


def cursor_of(token: str | None) -> Cursor | None:
    """(created_at, id) of the last row of the page before."""
    if token is None:
        return None
    match _decoded(token):
        case [int() | float() as at, str() as ident] if (
            math.isfinite(at) and abs(at) < 1e12 and ident.isascii()
        ):
            return float(at), ident
    raise _invalid("page_token", "It did not come from a page of this list.")


def position_of(token: str | None) -> int:
    """Where the next page of an unchanging list begins."""
    if token is None:
        return 0
    match _decoded(token):
        case int() as position if 0 <= position < 2**53:
            return position
    raise _invalid("page_token", "It did not come from a page of this list.")


def _decoded(token: str) -> Any:
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        value = json.loads(text.decode("ascii"))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if isinstance(value, list) and any(
        isinstance(part, bool | str) and "\x00" in str(part) for part in value
    ):
        return None
    return value


def seconds_of(name: str, text: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 time with its offset."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped + arrives as a space
        if at.tzinfo is None:
            raise ValueError
        return at.timestamp()
    except (ValueError, OverflowError):
        raise _invalid(name, "Give an RFC 3339 time with its offset, as 2026-01-31T12:00:00Z.") from None
