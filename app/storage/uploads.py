"""The bytes of a resumable upload that have arrived so far: one file each, whose length is the offset.

Whatever breaks (the connection, this process), the length of that file says where to go on; no row has to
be right about it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from app.errors import Problem


class Part:
    """The file of one upload, open at its end. `start`: its length when it was opened."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.start = file.seek(0, os.SEEK_END)

    def write(self, block: bytes) -> None:
        """Append. On a full disk as much as there is room for is kept, then OSError."""
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]

    def take_back(self) -> None:
        """Drop all that was written here."""
        self._file.truncate(self.start)

    def sync(self) -> None:
        """What was written survives a power cut from now on. OSError when it may not: it was taken back then."""
        try:
            os.fsync(self._file.fileno())
        except OSError:
            # The kernel forgets what it could not write: a second fsync would succeed and mean nothing.
            self.take_back()
            raise


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
    def append(self, upload_id: str) -> Iterator[Part]:
        """The file, open at its end, ours alone.

        Problem 409 while another request appends to it or finishes it.
        """
        try:
            # Never create it here: a file that is gone means that the upload is complete.
            descriptor = os.open(self.path(upload_id), os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            raise _busy() from None
        # Unbuffered: what could not be written is not tried again by whoever closes the file.
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            if not _locked(file):
                raise _busy()
            part = Part(file)
            try:
                yield part
            finally:
                part.sync()

    def leftovers(self) -> Iterator[tuple[str, os.stat_result]]:
        """(upload id, status) of every file there is."""
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                with suppress(FileNotFoundError):  # finished meanwhile
                    yield path.name, path.stat()

    def begin_again(self, upload_id: str) -> None:
        """Forget the bytes, not the upload."""
        os.truncate(self.path(upload_id), 0)

    def drop(self, upload_id: str) -> None:
        self.path(upload_id).unlink(missing_ok=True)

    def drop_if_free(self, upload_id: str) -> bool:
        """Remove the file unless a request is writing to it; whether it is gone."""
        try:
            with self.path(upload_id).open("rb") as file:
                if not _locked(file):
                    return False
                self.drop(upload_id)
        except FileNotFoundError:
            pass
        return True


def _locked(file: IO[bytes]) -> bool:
    """Lock it until it is closed, if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy() -> Problem:
    detail = "Another request is sending bytes of this upload. HEAD it for the offset, then go on."
    return Problem(409, "UPLOAD_BUSY", detail, retryable=True, headers={"Retry-After": "1"})
