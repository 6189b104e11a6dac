"""The bytes of a resumable upload that have arrived so far: one file each, whose length is the offset.

Whatever breaks (the connection, this process), the length of that file says where to go on; no row has to
be right about it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from app.errors import Problem


class Parts:
    """The unfinished uploads in `root/uploads`."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "uploads"

    def path(self, upload_id: str) -> Path:
        # The id is the server's own: no text of a user's becomes part of a path.
        return self._folder / upload_id

    def begin(self, upload_id: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.path(upload_id).touch()

    def offset(self, upload_id: str) -> int | None:
        """Bytes received; None when there is no such file: the upload is complete, or gone."""
        try:
            return self.path(upload_id).stat().st_size
        except FileNotFoundError:
            return None

    @contextmanager
    def append(self, upload_id: str) -> Iterator[BinaryIO]:
        """The file, open at its end, ours alone.

        Problem 409 while another request appends to it or finishes it.
        """
        try:
            # Never create it here: a file that is gone means that the upload is complete.
            part = os.fdopen(os.open(self.path(upload_id), os.O_WRONLY | os.O_APPEND), "ab")
        except FileNotFoundError:
            raise _busy() from None
        with part:
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy() from None
            part.seek(0, os.SEEK_END)
            try:
                yield part
            finally:
                part.flush()
                os.fsync(part.fileno())

    def begin_again(self, upload_id: str) -> None:
        """Forget the bytes, not the upload."""
        os.truncate(self.path(upload_id), 0)

    def drop(self, upload_id: str) -> None:
        self.path(upload_id).unlink(missing_ok=True)


def _busy() -> Problem:
    detail = "Another request is sending bytes of this upload. HEAD it for the offset, then go on."
    return Problem(409, "UPLOAD_BUSY", detail, retryable=True, headers={"Retry-After": "1"})
