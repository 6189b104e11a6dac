"""Around everything: a request id, HEAD as GET, the headers that every answer has, problems as answers, the log."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.headers import protect
from app.api.problems import problem_response
from app.api.request_head import check_head
from app.errors import Problem

log = logging.getLogger(__name__)

SLOW_SECONDS = 5.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# What the middlewares inside may have found out about the caller.
_CALLER = ("key_id", "tenant")


class Front:
    """ASGI middleware. Sets `request.state.request_id`, and `request.state.head` for a HEAD run as a GET.

    What a middleware inside of it refuses with a Problem becomes an answer here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        head = scope["method"] == "HEAD"
        # In place: the handler of last resort, outside of this middleware, names the request too.
        state = scope.setdefault("state", {})
        state.update(request_id=_request_id(Headers(scope=scope)), head=head)
        answer = _Answer(send, state["request_id"], head)
        # On a copy: the server must still know that it answers a HEAD.
        inner = {**scope, "method": "GET" if head else scope["method"]}
        try:
            try:
                check_head(inner)
                await self.app(inner, receive, answer)
            except Problem as problem:
                await problem_response(Request(inner), problem)(inner, receive, answer)
        finally:
            _log(scope, answer.status, time.monotonic() - began)


def _request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"


def _log(scope: Scope, status: int | None, seconds: float) -> None:
    """A line for what was refused, failed or slow; one for everything at DEBUG. No status: no answer was begun."""
    level = logging.DEBUG
    if status is None or status >= 500:
        level = logging.WARNING
    elif status >= 400 or seconds >= SLOW_SECONDS:
        level = logging.INFO
    if not log.isEnabledFor(level):
        return
    state = scope["state"]
    fields = {
        "request_id": state["request_id"],
        "method": scope["method"][:20],
        # As it came, percent-encoded: decoded it could hold line breaks. Never the query.
        "path": scope.get("raw_path", b"").decode("ascii", "backslashreplace")[:300],
        "status": status,
        "duration_ms": round(1000 * seconds, 1),
    }
    caller = {name: state[name] for name in _CALLER if state.get(name) is not None}
    log.log(level, "request", extra=fields | caller)


class _Answer:
    """`send`, with the headers that every response has; a HEAD's body stays here."""

    def __init__(self, send: Send, request_id: str, head: bool) -> None:
        self.send = send
        self.request_id = request_id
        self.head = head
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            protect(MutableHeaders(scope=message), self.request_id)
        elif self.head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self.send(message)
