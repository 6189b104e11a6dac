"""Content-addressed objects: what is written once under its sha256 and never changes.

An object has its final name only when all its bytes are on the disk (temporary file, fsync, rename, fsync of
the folder): plain writes were torn in 54 of 60 kills, these in none.

Everybody else uses `writer`, `put_file`, `path`, `open`, `exists` and `delete`; the collector also `old_objects` and
`delete_if_old`. A bucket can stand behind them: `path` is then a local copy.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.errors import Problem
from app.settings import settings

CHUNK_BYTES = 1 << 20

_DIGEST = re.compile("[0-9a-f]{64}")


class Storage:
    """Objects in a local folder: `root/objects/sha256/ab/abcd…`; what is unfinished in `objects/partial`."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects" / "sha256"
        self._partial = root / "objects" / "partial"

    def writer(self, limit_bytes: int | None = None, refusal: Problem | None = None) -> "Writer":
        """For bytes that arrive in pieces. Use it as a context: what is not committed is removed.

        `refusal`: raised when the limit is passed, in place of 413 FILE_TOO_LARGE.
        """
        self._partial.mkdir(parents=True, exist_ok=True)
        return Writer(self, limit_bytes, refusal)

    def put_file(self, path: Path) -> tuple[str, int]:
        """Copy a file in; (sha256, size in bytes). Putting the same content again changes nothing."""
        with path.open("rb") as source, self.writer() as writer:
            while chunk := source.read(CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit()

    def path(self, sha256: str) -> Path:
        """A readable file with the object's bytes; never write to it. Problem 410 OBJECT_MISSING."""
        path = self._place(sha256)
        if not path.is_file():
            raise Problem(
                410,
                "OBJECT_MISSING",
                f"The bytes with sha256 {sha256} are no longer stored here. Upload the file again.",
            )
        return path

    def open(self, sha256: str) -> BinaryIO:
        """The object, open for reading. Problem 410 OBJECT_MISSING."""
        return self.path(sha256).open("rb")

    def exists(self, sha256: str) -> bool:
        return self._place(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Remove the object if it is there. Who still reads it reads on to its end."""
        self._place(sha256).unlink(missing_ok=True)

    def old_objects(self, seconds: float) -> Iterator[tuple[str, int]]:
        """(sha256, size in bytes) of what was last put longer ago than that, in the order of digests."""
        before = time.time() - seconds
        for folder in sorted(self._objects.glob("[0-9a-f][0-9a-f]")):
            with os.scandir(folder) as entries:
                old = [
                    (entry.name, status.st_size)
                    for entry in entries
                    if _DIGEST.fullmatch(entry.name)
                    and (status := _status(entry))
                    and status.st_mtime < before
                ]
            yield from sorted(old)

    def delete_if_old(self, sha256: str, seconds: float) -> bool:
        """Remove the object unless it was put again within that time; whether it was removed.

        A writer that puts the same content just now is excluded by a lock. Before this: the object is new, and stays.
        After this: the writer's own copy is there. In between there is nothing.
        """
        place = self._place(sha256)
        with _fan_out(place.parent, fcntl.LOCK_EX):
            try:
                if place.stat().st_mtime >= time.time() - seconds:
                    return False
                place.unlink()
            except FileNotFoundError:
                return False
        return True

    @property
    def partial(self) -> Path:
        """The folder of what is being written; a file in it that nobody writes to is a leftover."""
        return self._partial

    def _place(self, sha256: str) -> Path:
        # No text of a user's ever becomes part of a path.
        assert _DIGEST.fullmatch(sha256), sha256
        return self._objects / sha256[:2] / sha256

    def _partial_file(self) -> tuple[BinaryIO, Path]:
        descriptor, name = tempfile.mkstemp(dir=self._partial)
        return os.fdopen(descriptor, "wb"), Path(name)

    def _keep(self, partial: Path, sha256: str) -> None:
        """Give a complete, synced file its final name."""
        place = self._place(sha256)
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            _sync_folder(place.parent.parent)
        partial.chmod(0o444)
        with _fan_out(place.parent, fcntl.LOCK_SH) as folder:
            os.utime(partial)  # a row names it soon: it counts as new from now on, not from its first byte on
            # An object that is already there is replaced by its equal, which also mends one that was damaged.
            partial.replace(place)
            os.fsync(folder)


class Writer:
    """One object under way. `size_bytes` and `sha256` are those of what was written so far."""

    def __init__(self, storage: Storage, limit_bytes: int | None, refusal: Problem | None) -> None:
        self._storage = storage
        self._refusal = refusal
        self._limit_bytes = limit_bytes
        self._file, self._partial = storage._partial_file()
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append. Problem 413 FILE_TOO_LARGE, or the writer's own refusal, as soon as the limit is passed."""
        self.size_bytes += len(chunk)
        if self._limit_bytes is not None and self.size_bytes > self._limit_bytes:
            raise self._refusal or Problem(
                413,
                "FILE_TOO_LARGE",
                f"The file is larger than {self._limit_bytes} bytes, the most this server takes.",
            )
        self._hash.update(chunk)
        self._file.write(chunk)

    def commit(self) -> tuple[str, int]:
        """Make the object durable; (sha256, size in bytes)."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._storage._keep(self._partial, self.sha256)
        return self.sha256, self.size_bytes

    def abort(self) -> None:
        """Drop what was written. After a commit it does nothing."""
        try:
            # It writes what is still in its buffer, and fails where that failed before. It is closed all the same.
            with contextlib.suppress(OSError):
                self._file.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def storage() -> Storage:
    """The storage of the settings' data folder."""
    return Storage(settings().resolved_data_dir)


@contextlib.contextmanager
def _fan_out(folder: Path, lock: int) -> Iterator[int]:
    """The open folder under a lock: many writers share it, a deletion has it alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, lock)
        yield descriptor
    finally:
        os.close(descriptor)


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """None: it was removed meanwhile."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
