"""What every source of images gives, whatever its format: files as streams, and folders; and what it may cost."""

import contextlib
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from app.errors import Problem

# What zipfile and the decompressors raise on damaged or crafted input. No OSError: a disk that fails says nothing
# about the file, and another attempt may help.
_PARSER_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
    NotImplementedError,
)
_RESAVE = "Make a zip or tar of plain files and folders and upload it again."


@dataclass(frozen=True)
class Limits:
    """What one archive may cost."""

    max_members: int = 200_000
    max_depth: int = 8
    max_ratio: int = 200
    """Unpacked bytes per packed byte: of each zip member, and of the archive as a whole."""
    free_bytes: int = 1 << 20
    """A ratio counts only beyond this: small texts and flat drawings pack very well."""
    max_total_bytes: int = 64 << 30
    max_directory_bytes: int = 64 << 20
    """The zip's central directory, which is held in memory as a whole."""
    max_header_bytes: int = 1 << 20
    """One extended header of a tar (a long name, pax records), which is held in memory."""


@dataclass(frozen=True)
class Member:
    """A regular file. `path` is its name, checked and in NFC."""

    path: str
    _open: Callable[[], IO[bytes]]

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes as a stream: once, and before the next entry is asked for. Raises Problem."""
        with damage_explained(), self._open() as stream:
            yield stream


@dataclass(frozen=True)
class Folder:
    """A folder that was named on its own: the only trace of a class without images."""

    path: str


@dataclass(frozen=True)
class Position:
    """How far reading is: `done` of `total` `unit`s."""

    done: int
    total: int
    unit: str


Entry = tuple[Member | Folder, Position]


def unreadable(detail: str) -> Problem:
    return Problem(422, "ARCHIVE_UNREADABLE", detail)


def unsafe(detail: str) -> Problem:
    return Problem(422, "ARCHIVE_UNSAFE", f"{detail} {_RESAVE}")


@contextlib.contextmanager
def damage_explained() -> Iterator[None]:
    """Turns what parsers stumble over into a Problem."""
    try:
        yield
    except MemoryError:
        raise  # says something about this machine, nothing about the file
    except _PARSER_ERRORS as error:
        text = str(error)[:200] or type(error).__name__
        raise unreadable(
            f"The file is no whole zip or tar (.tar, .tar.gz, .tar.xz): {printable(text)}. "
            "Make the archive again and check that it opens before the upload."
        ) from error


def printable(text: str) -> str:
    """The text with everything that is no visible character escaped: control characters, and those that turn the
    direction of writing, would show another name than there is."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class Budget:
    """Counts bytes really produced, and stops at the first breach."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.limits = limits
        self.packed_bytes = packed_bytes
        self.produced = 0

    def spend(self, num_bytes: int) -> None:
        """Raises Problem ARCHIVE_UNSAFE."""
        self.produced += num_bytes
        check_ratio(self.produced, self.packed_bytes, "the archive", self.limits)
        if self.produced > self.limits.max_total_bytes:
            raise unsafe(f"Unpacked it is larger than {self.limits.max_total_bytes} bytes.")


def check_ratio(produced: int, packed: int, what: str, limits: Limits) -> None:
    """Raises Problem ARCHIVE_UNSAFE."""
    if produced > limits.free_bytes and produced > limits.max_ratio * packed:
        raise unsafe(
            f"Unpacking {what} gives more than {limits.max_ratio} bytes for each packed byte (a zip bomb?)."
        )


class Counted(io.RawIOBase):
    """A stream whose every byte is counted before it is handed on. `ended` is called when there are no more."""

    def __init__(
        self, stream: IO[bytes], count: Callable[[int], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._stream = stream
        self._count = count
        self._ended = ended

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # A member that claims gigabytes is asked for piece by piece, so that a breach is noticed early.
        wanted = min(size, 1 << 20) if size >= 0 else 1 << 20
        data = self._stream.read(wanted)
        self._count(len(data))
        if not data and wanted:
            self._ended()
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()
