"""Before any router: JSON that means one thing only, and bodies within their limits."""

import hashlib
import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import content_digest, declared_length, verify
from app.api.pace import at_least, within
from app.errors import Problem
from app.settings import Settings

# These carry bytes, not JSON; their routers count and check them while they stream.
_RAW = re.compile(r"^/v1/(files|files/[^/]*|uploads/[^/]*)$")
_MAX_DEPTH = 32
_MAX_INTEGER = 2**53
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class StrictBody:
    """ASGI middleware: a JSON body is read whole, within its limits, and means one thing only; files keep coming."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _RAW.match(scope["path"]):
            receive = at_least(
                receive,
                silent_seconds=self.settings.silent_seconds,
                bytes_per_second=self.settings.min_bytes_per_second,
            )
        elif scope["type"] == "http":
            receive = await self._checked_body(Headers(scope=scope), receive)
        await self.app(scope, receive, send)

    async def _checked_body(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body, refuse what is not strict JSON, and return a `receive` that gives it again."""
        wanted = content_digest(headers)
        if (declared_length(headers) or 0) > self.settings.max_body_bytes:
            raise self._too_large()
        timed = within(receive, self.settings.body_seconds)
        body = bytearray()
        more = True
        while more:
            message = await timed()
            if message["type"] == "http.disconnect":
                return _replay([message], receive)
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.settings.max_body_bytes:
                raise self._too_large()
        if wanted is not None:
            verify(wanted, hashlib.sha256(body).hexdigest())
        if body:
            media_type = headers.get("content-type", "").split(";")[0].strip().lower()
            if media_type != "application/json":
                raise Problem(
                    415, "JSON_EXPECTED", "Send the body as JSON, with -H 'Content-Type: application/json'."
                )
            strict_json(bytes(body))
        return _replay([{"type": "http.request", "body": bytes(body), "more_body": False}], receive)

    def _too_large(self) -> Problem:
        detail = (
            f"A JSON body may have {self.settings.max_body_bytes} bytes. Photos and checkpoints go to PUT "
            "/v1/files/NAME."
        )
        return Problem(413, "BODY_TOO_LARGE", detail)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replayed() -> Message:
        return next(waiting, None) or await receive()

    return replayed


def strict_json(body: bytes) -> Any:
    """Parse JSON that every reader understands the same way. Raises Problem 400 INVALID_JSON otherwise.

    Python's parser takes more than RFC 8259 and databases take less than Python: NaN, a key given twice
    (readers differ in which one wins), integers beyond 2^53, lone surrogates and NUL all came back as
    errors 500 in naive services.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_exact,
        )
    except UnicodeDecodeError:
        raise _invalid("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise _invalid(f"It is nested more than {_MAX_DEPTH} deep.") from None
    _check(value, _MAX_DEPTH)
    return value


def _invalid(detail: str) -> Problem:
    return Problem(400, "INVALID_JSON", f"The body is not JSON that can be read safely. {detail}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _invalid("An object has the same key twice.")
    return dict(pairs)


def _no_constant(_: str) -> Any:
    raise _invalid("NaN and Infinity are not numbers of JSON.")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _invalid("A number is larger than a double can hold.")
    return value


def _exact(text: str) -> int:
    # The length first: int() of a million digits takes its time.
    if len(text) > 17 or abs(int(text)) > _MAX_INTEGER:
        raise _invalid("An integer is beyond 2^53, where JSON readers disagree.")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise _invalid(f"It is nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise _invalid("A string holds NUL or half of a surrogate pair.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
