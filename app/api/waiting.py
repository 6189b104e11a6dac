"""Waiting for a row to change, without a thread and without a database connection while nothing happens."""

import re
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import anyio
from fastapi import Header
from starlette.concurrency import run_in_threadpool

T = TypeVar("T")

MAX_WAIT_SECONDS = 120.0
Prefer = Annotated[
    str | None,
    Header(
        description="`wait=N`: answer after N seconds at the latest. `respond-async`: at once (RFC 7240)."
    ),
]


def preferred_seconds(prefer: str | None, default: float) -> float:
    """How long the client wants to wait. As RFC 7240 has it, what cannot be understood is ignored."""
    for preference in (prefer or "").lower().split(","):
        if preference.strip() == "respond-async":
            return 0.0
        wait = re.fullmatch(r"\s*wait\s*=\s*\"?(\d{1,6})\"?\s*", preference)
        if wait:
            return min(float(wait[1]), MAX_WAIT_SECONDS)
    return default


async def until(read: Callable[[], T], done: Callable[[T], bool], seconds: float) -> T:
    """Read again and again until the value is done, or `seconds` have passed; returns the last value read."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while True:
        value = await run_in_threadpool(read)
        left = deadline - time.monotonic()
        if done(value) or left <= 0:
            return value
        await anyio.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.5)
