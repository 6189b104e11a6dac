"""Two bounded sets of threads, so that neither kind of waiting starves the other.

Routers that talk to the database share anyio's own threads; writing, hashing and reading files has these. Each
thread costs memory whether it is busy or not, and neither two cores nor SQLite gain by more.
"""

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar

T = TypeVar("T")

DATABASE_THREADS = 16
FILE_THREADS = 8

# One for every event loop: the tests run many in one process.
_files: RunVar[anyio.CapacityLimiter] = RunVar("file_threads")


async def with_file(function: Callable[..., T], *arguments: object) -> T:
    """Run a function that reads or writes files in a thread of their own kind."""
    try:
        limiter = _files.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(FILE_THREADS)
        _files.set(limiter)
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)


def limit_database_threads() -> None:
    """For this event loop: as many requests as this talk to the database at once, the others wait their turn."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = DATABASE_THREADS
