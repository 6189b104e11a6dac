"""Bounded sets of threads, so that no kind of waiting starves another.

Routers that talk to the database share anyio's own threads; writing, hashing and reading files has these. Each
thread costs memory whether it is busy or not, and neither two cores nor SQLite gain by more.
"""

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar

T = TypeVar("T")

DATABASE_THREADS = 16
FILE_THREADS = 3
"""Hashing and writing fill two cores with that. With 8, beside 20 clients of which some upload, others waited twice as
long for answers (p50 of GET 64 ms in place of 96), and uploads were no quicker."""

PROBE_THREADS = 2
"""For /readyz, which must answer while a silent database holds all the others."""

# One for every event loop: the tests run many in one process.
_files: RunVar[anyio.CapacityLimiter] = RunVar("file_threads")
_probes: RunVar[anyio.CapacityLimiter] = RunVar("probe_threads")


async def with_file(function: Callable[..., T], *arguments: object) -> T:
    """Run a function that reads or writes files in a thread of their own kind."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=_limiter(_files, FILE_THREADS))


def probing() -> anyio.CapacityLimiter:
    """The threads that ask whether the database is there."""
    return _limiter(_probes, PROBE_THREADS)


def _limiter(kept: RunVar[anyio.CapacityLimiter], threads: int) -> anyio.CapacityLimiter:
    try:
        return kept.get()
    except LookupError:
        made = anyio.CapacityLimiter(threads)
        kept.set(made)
        return made


def limit_database_threads() -> None:
    """For this event loop: as many requests as this talk to the database at once, the others wait their turn."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = DATABASE_THREADS
