"""Room on the disk: how much there is, and what is said when there is too little."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import Problem

RETRY_SECONDS = 30

# What a write says on a full disk, beyond the owner's share of it, and on one that is broken.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAILED = (*_FULL, errno.EIO)


def is_full(error: BaseException) -> bool:
    """Whether this is what a write says that found no room."""
    return isinstance(error, OSError) and error.errno in _FULL


def has_failed(error: BaseException) -> bool:
    """Whether this is what a write says that found no room, or a disk that does not work."""
    return isinstance(error, OSError) and error.errno in _FAILED


def free_bytes(folder: Path) -> int:
    """What may still be written into the folder, or into the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, wanted_bytes: int, min_free_bytes: int) -> None:
    """Problem 507 INSUFFICIENT_STORAGE unless so many bytes fit and `min_free_bytes` stay free."""
    free = free_bytes(folder)
    if free - wanted_bytes < min_free_bytes:
        size = f"{wanted_bytes} bytes were to be stored" if wanted_bytes else "Something was to be stored"
        raise no_room(
            f"{size}; {free} are free on the service's disk, of which {min_free_bytes} are kept free "
            "(FEWBYTES_MIN_FREE_BYTES)."
        )


def no_room(why: str) -> Problem:
    return Problem(
        507,
        "INSUFFICIENT_STORAGE",
        f"{why} Delete files, teachers, data sets or jobs that you no longer need, or ask the operator for room; then "
        "send it again.",
        retryable=True,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


@contextmanager
def as_problem() -> Iterator[None]:
    """A disk that is full or broken becomes the problem that the caller is told: 507 INSUFFICIENT_STORAGE."""
    try:
        yield
    except OSError as error:
        if not has_failed(error):
            raise
        raise failed(error) from error


def failed(error: BaseException) -> Problem:
    """What is said of a write that was cut short."""
    words = error.strerror if isinstance(error, OSError) else str(error)
    return no_room(f"It could not be written to the service's disk ({words}), and nothing of it was kept.")
