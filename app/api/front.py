"""Around everything: a request id, HEAD as GET, the headers that every answer has, and problems as answers."""

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.errors import Problem

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:/+=-]{1,128}$")


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
        head = scope["method"] == "HEAD"
        # In place: the handler of last resort, outside of this middleware, names the request too.
        state = scope.setdefault("state", {})
        state.update(request_id=_request_id(Headers(scope=scope)), head=head)
        # On a copy: the server must still know that it answers a HEAD.
        scope = {**scope, "method": "GET" if head else scope["method"]}
        answer = _Answer(send, state["request_id"], head)
        try:
            await self.app(scope, receive, answer)
        except Problem as problem:
            await problem_response(Request(scope), problem)(scope, receive, answer)


def _request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id", "")
    return sent if _REQUEST_ID.match(sent) else f"req_{secrets.token_hex(12)}"


class _Answer:
    """`send`, with the headers that every response has; a HEAD's body stays here."""

    def __init__(self, send: Send, request_id: str, head: bool) -> None:
        self.send = send
        self.request_id = request_id
        self.head = head

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
        elif self.head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self.send(message)
