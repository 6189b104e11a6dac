"""The connection: which requests are HTTP that has one meaning, and until when each may take.

uvicorn hands a request on as soon as h11 understands it. Between the two they take requests that a proxy may
read differently (Content-Length beside Transfer-Encoding, folded lines, lines without a CR), they wait for a head
for ever, and for ever for a client that does not read its answer. Here are the rules and the clocks.
"""

import asyncio
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from app.api.headers import PROTECTION
from app.errors import Problem
from app.settings import Settings

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 << 10
"""Also what h11 holds of a head, a chunk's line or a trailer that is not complete."""
MAX_TARGET_BYTES = 8 << 10
MAX_HEADERS = 100

_HEAD_END = re.compile(rb"\n\r?\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\n[ \t]")
_LENGTHS = re.compile(rb"(?im)^content-length[ \t]*:([^\r\n]*)")
_ABSOLUTE = re.compile(rb"(?i)^https?://[^/?#]*")


class StrictConnection(h11.Connection):
    """h11's reader, less what two readers could understand differently. `fault` says what was refused."""

    fault: Problem | None = None

    def next_event(self) -> Any:
        """As h11's; RemoteProtocolError also for what only these rules refuse."""
        try:
            if self.their_state is h11.IDLE:
                _check_head(self.trailing_data[0])
            event = super().next_event()
            return _checked(event) if isinstance(event, h11.Request) else event
        except Problem as problem:
            self.fault = problem
            raise h11.RemoteProtocolError(problem.detail) from None
        except h11.RemoteProtocolError as error:
            self.fault = _fault_of(error)
            raise


def _check_head(received: bytes) -> None:
    """Raise a Problem for the head at the start of what was received, complete or not."""
    end = _HEAD_END.search(received)
    head = received[: end.start() + 1] if end else received
    if len(head.split(b"\n", 1)[0]) > MAX_TARGET_BYTES:
        raise Problem(414, "TARGET_TOO_LONG", f"The request line has more than {MAX_TARGET_BYTES} bytes.")
    if len(head) > MAX_HEAD_BYTES or head.count(b"\n") > MAX_HEADERS + 1:
        raise _head_too_large()
    if _BARE_LF.search(head):
        raise _ambiguous("A line ends without CR LF.")
    if _FOLDED.search(head):
        raise _ambiguous("A header goes on in a second line.")
    lengths = _LENGTHS.findall(head)
    if len(lengths) > 1 or any(b"," in length for length in lengths):
        raise _ambiguous("Content-Length is given twice.")


def _checked(request: h11.Request) -> h11.Request:
    """The request, its target in origin form. Raises a Problem when it has no single meaning."""
    if request.http_version not in (b"1.0", b"1.1"):
        raise Problem(400, "UNKNOWN_HTTP_VERSION", "This server speaks HTTP/1.1 and HTTP/1.0.")
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and b"content-length" in names:
        raise _ambiguous("Content-Length and Transfer-Encoding say different things of the body: send one.")
    if b"transfer-encoding" in names and request.http_version == b"1.0":
        raise _ambiguous("HTTP/1.0 has no Transfer-Encoding: send Content-Length.")
    target = _ABSOLUTE.sub(b"", request.target) or b"/"
    if target.startswith(b"?"):
        target = b"/" + target
    if (not target.startswith(b"/") and target != b"*") or b"#" in target:
        raise Problem(400, "INVALID_TARGET", "The request line asks for no path: GET /v1/jobs HTTP/1.1.")
    if target == request.target:
        return request
    return h11.Request(
        method=request.method, headers=request.headers, target=target, http_version=request.http_version
    )


def _ambiguous(detail: str) -> Problem:
    return Problem(400, "AMBIGUOUS_REQUEST", f"The request can be read in two ways. {detail}")


def _head_too_large() -> Problem:
    detail = f"A request's head may have {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers."
    return Problem(431, "HEAD_TOO_LARGE", detail)


def _fault_of(error: h11.RemoteProtocolError) -> Problem:
    if error.error_status_hint == 431:
        return _head_too_large()
    return Problem(400, "MALFORMED_REQUEST", "This is not HTTP/1.1 as RFC 9112 has it.")


class Wire(H11Protocol):
    """uvicorn's connection with clocks: for a request's head, for a body nobody wants, for an answer nobody reads."""

    head_seconds = 10.0
    silent_seconds = 60.0
    min_bytes_per_second = 1024
    linger_seconds = 10.0
    """A client whose request was refused still sends for a while: closing at once would destroy the answer under way."""
    max_connections = 4096

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: h11.Connection = StrictConnection(h11.SERVER, MAX_HEAD_BYTES)
        self.since = time.monotonic()
        self._clock: asyncio.TimerHandle | None = None
        self._late: Callable[[], None] | None = None
        self._write_clock: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._refused = False

    @property
    def waiting(self) -> bool:
        """No request is under way: its head has not come, not completely, or not yet."""
        return self.conn.our_state is h11.IDLE and self.conn.their_state is h11.IDLE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _send_at_once(transport)
        # Whatever the kernel does not take at once is watched, down to the last byte.
        transport.set_write_buffer_limits(high=0)
        self._start_clock(self.head_seconds, self._head_is_late)
        if len(self.connections) > self.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Accepting no more would lock everybody out, so the longest idle one goes; perhaps this one."""
        idle = [other for other in self.connections if isinstance(other, Wire) and other.waiting]
        min(idle, key=lambda other: other.since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_write_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self._refused:
            return
        if self.waiting:
            if self._late != self._head_is_late:
                self.since = time.monotonic()
                self._start_clock(self.head_seconds, self._head_is_late)
        elif self.conn.our_state is not h11.DONE:
            self._stop_clock()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._start_clock(self.linger_seconds, self._abort)

    # ---- clocks

    def _start_clock(self, seconds: float, late: Callable[[], None]) -> None:
        self._stop_clock()
        self._clock, self._late = self.loop.call_later(seconds, late), late

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self._late = None

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if not self.conn.trailing_data[0]:
            self.transport.close()
            return
        detail = f"The request's head did not arrive within {self.head_seconds:g} s."
        self._refuse(Problem(408, "REQUEST_TIMEOUT", detail, retryable=True))

    def _abort(self) -> None:
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._write_clock = self.loop.call_later(self.silent_seconds, self._look_at_writing)

    def resume_writing(self) -> None:
        self._stop_write_clock()
        super().resume_writing()

    def _stop_write_clock(self) -> None:
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None

    def _look_at_writing(self) -> None:
        """The client has not read all of it: end it unless it reads at least at the slowest pace we wait for."""
        left = self.transport.get_write_buffer_size()
        if self._unsent - left < self.silent_seconds * self.min_bytes_per_second:
            self.transport.abort()
            return
        self._unsent = left
        self._write_clock = self.loop.call_later(self.silent_seconds, self._look_at_writing)

    # ---- refusals

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when h11 refuses; the answer is a problem like any other."""
        fault = self.conn.fault if isinstance(self.conn, StrictConnection) else None
        self._refuse(fault or Problem(400, "MALFORMED_REQUEST", msg))

    def _refuse(self, problem: Problem) -> None:
        """Answer, unless an answer has begun, and hang up."""
        self._refused = True
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever is at work on this request's body learns that no more comes.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self.transport.write(self._answer(problem))
        self._start_clock(self.linger_seconds, self._abort)
        try:
            self.transport.write_eof()
        except OSError:  # the client has gone already
            self.transport.abort()

    def _answer(self, problem: Problem) -> bytes:
        request_id = f"req_{secrets.token_hex(12)}"
        log.info("refused at the connection", extra={"request_id": request_id, "code": problem.code})
        body = json.dumps(problem.body() | {"instance": None, "request_id": request_id}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"Content-Type", b"application/problem+json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Connection", b"close"),
            (b"X-Request-Id", request_id.encode()),
            *((name.encode(), value.encode()) for name, value in PROTECTION.items()),
        ]
        response = h11.Response(
            status_code=problem.status, headers=headers, reason=STATUS_PHRASES[problem.status]
        )
        data = h11.Data(data=b"" if self.cycle is not None and self.scope["method"] == "HEAD" else body)
        return b"".join(self.conn.send(event) or b"" for event in (response, data, h11.EndOfMessage()))


def _send_at_once(transport: asyncio.Transport) -> None:
    """Head and body of an answer are two writes: Nagle's algorithm would hold back the second for 40 ms.

    asyncio switches it off only for sockets that were made with the protocol's number.
    """
    line = transport.get_extra_info("socket")
    if line is not None and line.family in (socket.AF_INET, socket.AF_INET6):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def wire(settings: Settings, max_connections: int) -> type[Wire]:
    """The protocol for uvicorn, with the settings' times."""
    limits = {
        "head_seconds": settings.head_seconds,
        "silent_seconds": settings.silent_seconds,
        "min_bytes_per_second": settings.min_bytes_per_second,
        "max_connections": max_connections,
    }
    return type("Wire", (Wire,), limits)
