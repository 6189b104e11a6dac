"""How slowly a body may come: a client that stops sending must not hold what its request holds."""

import time

import anyio
from starlette.types import Message, Receive

from app.errors import Problem

GRACE_SECONDS = 30.0
"""The average is looked at only then: a connection begins slowly, and wireless ones pause."""


def within(receive: Receive, seconds: float) -> Receive:
    """`receive` for a body that must be whole after so many seconds of waiting. Problem 408 otherwise."""
    pace = _Pace(receive)

    async def timed() -> Message:
        return await pace.next(seconds - pace.waited)

    return timed


def at_least(receive: Receive, *, silent_seconds: float, bytes_per_second: int) -> Receive:
    """`receive` for a body of any size, which must keep coming. Problem 408 otherwise.

    Only the time that the client lets us wait counts: a slow disk here is not the client's fault.
    """
    pace = _Pace(receive)

    async def timed() -> Message:
        message = await pace.next(silent_seconds)
        grace = min(GRACE_SECONDS, silent_seconds)
        if pace.more and pace.waited > grace and pace.arrived < bytes_per_second * pace.waited:
            raise _late(f"fewer than {bytes_per_second} bytes a second came")
        return message

    return timed


class _Pace:
    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.more = True
        self.arrived = 0
        self.waited = 0.0

    async def next(self, seconds: float) -> Message:
        if not self.more:  # what is waited for now is the client hanging up
            return await self.receive()
        began = time.monotonic()
        try:
            with anyio.fail_after(max(0.0, seconds)):
                message = await self.receive()
        except TimeoutError:
            raise _late("nothing came for too long") from None
        self.waited += time.monotonic() - began
        self.arrived += len(message.get("body", b""))
        self.more = message.get("more_body", False)
        return message


def _late(what: str) -> Problem:
    detail = f"The body did not arrive in time: {what}. Send again, or in pieces with POST /v1/uploads."
    return Problem(408, "REQUEST_TIMEOUT", detail, retryable=True, headers={"Connection": "close"})
