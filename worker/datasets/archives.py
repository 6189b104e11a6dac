"""Reading a stranger's archive, or the operator's folder, file by file. Nothing is ever extracted.

`extractall` is not used even with a filter: `filter="data"` was escaped in CVE-2025-4517 and again in
CVE-2026-11940. A name from an archive is only ever a key in our index, never a path that is opened.
"""

import contextlib
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.errors import Problem

# What zipfile, tarfile and the decompressors raise on damaged or crafted input (a chain of pax headers
# recurses).
_PARSER_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    IndexError,
    NotImplementedError,
    RecursionError,
)
_TAR_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
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
    max_image_bytes: int = 64 << 20
    max_directory_bytes: int = 32 << 20
    """The zip's central directory, which `zipfile` parses as a whole."""


@dataclass(frozen=True)
class Member:
    """A regular file. `path` is its name, checked and in NFC."""

    path: str
    _open: Callable[[], IO[bytes]]

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes as a stream: once, and before the next entry is asked for. Raises Problem."""
        with _damage_explained(), self._open() as stream:
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


def read_entries(source: Path, limits: Limits) -> Iterator[Entry]:
    """The files and folders of a zip, a tar (plain, .gz, .xz; by content, not by name) or a folder on disk.

    Raises Problem ARCHIVE_UNREADABLE (damaged, or not an archive) or ARCHIVE_UNSAFE (what it holds breaks a
    rule).
    """
    if source.is_dir():
        yield from _folder_entries(source, limits)
        return
    with _damage_explained(), source.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _zip_entries(file, limits)
        else:
            yield from _tar_entries(file, magic, limits)


@contextlib.contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except _PARSER_ERRORS as error:
        raise unreadable(
            "The file is no whole zip or tar (.tar, .tar.gz, .tar.xz): "
            f"{str(error)[:200] or type(error).__name__}. "
            "Make the archive again and check that it opens before the upload."
        ) from error


def checked_name(name: str, limits: Limits) -> str:
    """The name in NFC with `/` between parts. Raises Problem ARCHIVE_UNSAFE where it could mean another place
    than it says."""
    shown = ascii(name[:200])
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise unsafe(f"The name {shown} is no valid UTF-8.") from None
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise unsafe(f"The name {shown} holds control characters.")
    # Some Windows programs write backslashes; on Windows they would be separators, so they are here.
    path = unicodedata.normalize("NFC", name).replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or parts[0].endswith(":") or ".." in parts or "" in parts[:-1]:
        raise unsafe(f"The name {shown} points outside its folder: names must be relative and without '..'.")
    if len(parts) > limits.max_depth:
        raise unsafe(f"The name {shown} lies {len(parts)} levels deep; at most {limits.max_depth} are read.")
    if len(path) > 1000:
        raise unsafe(f"The name {shown}… has {len(path)} characters; at most 1000 are read.")
    return "/".join(parts)


class _Budget:
    """Counts bytes really produced, and stops at the first breach."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.limits = limits
        self.packed_bytes = packed_bytes
        self.produced = 0

    def spend(self, num_bytes: int) -> None:
        self.produced += num_bytes
        _check_ratio(self.produced, self.packed_bytes, "the archive", self.limits)
        if self.produced > self.limits.max_total_bytes:
            raise unsafe(f"Unpacked it is larger than {self.limits.max_total_bytes} bytes.")


def _check_ratio(produced: int, packed: int, what: str, limits: Limits) -> None:
    if produced > limits.free_bytes and produced > limits.max_ratio * packed:
        raise unsafe(
            f"Unpacking {what} gives more than {limits.max_ratio} bytes for each packed byte (a zip bomb?)."
        )


class _Counted(io.RawIOBase):
    """A stream whose every byte is counted before it is handed on."""

    def __init__(self, stream: IO[bytes], count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size if size >= 0 else 1 << 30)
        self._count(len(data))
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


# --- zip ---


class _SmallReads(io.BufferedReader):
    """`zipfile` reads the central directory in one call: refusing a huge read refuses a huge directory."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.largest:
            raise unsafe(f"Its directory of names takes {size} bytes; at most {self.largest} are read.")
        return super().read(size)


def _zip_entries(file: IO[bytes], limits: Limits) -> Iterator[Entry]:
    file.seek(0, os.SEEK_END)
    budget = _Budget(limits, file.tell())
    small = _SmallReads(file.raw)  # type: ignore[attr-defined]  # an open file's unbuffered half
    small.largest = limits.max_directory_bytes
    try:
        with zipfile.ZipFile(small) as archive:
            infos = archive.infolist()
            if len(infos) > limits.max_members:
                raise unsafe(f"It holds {len(infos)} members; at most {limits.max_members} are read.")
            for number, info in enumerate(infos, 1):
                position = Position(number, len(infos), "file")
                path = checked_name(info.filename, limits)
                _check_zip_member(info, path)
                if info.is_dir():
                    yield Folder(path), position
                else:
                    yield Member(path, lambda info=info: _open_zip_member(archive, info, budget)), position  # type: ignore[misc]
    finally:
        small.detach()  # closing the file is the caller's


def _check_zip_member(info: zipfile.ZipInfo, path: str) -> None:
    if info.flag_bits & 0x1:
        raise unreadable(f"{path!r} is encrypted: upload an archive without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # lzma and others let a header ask for gigabytes of memory.
        raise unreadable(
            f"{path!r} uses zip compression {info.compress_type}: only stored and deflated members are read."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe(
            f"{path!r} is a link or a device, not a file (zip without `-y` stores what links point to)."
        )


def _open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> IO[bytes]:
    produced = 0

    def count(num_bytes: int) -> None:
        nonlocal produced
        produced += num_bytes
        _check_ratio(produced, info.compress_size, repr(info.filename), budget.limits)
        budget.spend(num_bytes)

    return _Counted(archive.open(info), count)  # type: ignore[return-value]  # readers need only read and close


# --- tar ---


class _Headers(tarfile.TarInfo):
    """tarfile reads a pax or long-name header into memory whatever its size says, and takes a cut archive for
    a short one."""

    saw_end = False

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        cls.saw_end |= len(buf) == tarfile.BLOCKSIZE and not any(buf)
        info = super().frombuf(buf, encoding, errors)
        if info.type in _TAR_EXTENSIONS and not 0 <= info.size <= 1 << 20:
            raise unsafe(f"A header of {info.size} bytes; at most 1 MiB is read.")
        return info


def _tar_entries(file: IO[bytes], magic: bytes, limits: Limits) -> Iterator[Entry]:
    total = os.fstat(file.fileno()).st_size
    budget = _Budget(limits, total)
    plain = _Counted(_decompressed(file, magic), budget.spend)
    headers = type("_HeadersOfOneArchive", (_Headers,), {})
    with contextlib.closing(plain), tarfile.open(fileobj=plain, mode="r|", tarinfo=headers) as archive:
        for number, info in enumerate(archive, 1):
            if number > limits.max_members:
                raise unsafe(f"It holds more than {limits.max_members} members.")
            position = Position(min(file.tell(), total), total, "byte")
            if info.name in ("", "."):  # `tar -c .` begins with its own folder
                continue
            path = checked_name(info.name, limits)
            if info.isdir():
                yield Folder(path), position
            elif info.isreg() and not info.issparse():
                yield Member(path, lambda info=info: _open_tar_member(archive, info)), position  # type: ignore[misc]
            else:
                raise unsafe(
                    f"{path!r} is a link, a device or sparse, not a plain file "
                    "(`tar -h` stores what links point to)."
                )
        if not headers.saw_end:
            raise EOFError("the tar ends early")
        while plain.read(1 << 16):  # to the end, where gzip and xz keep their checksums
            pass


def _decompressed(file: IO[bytes], magic: bytes) -> IO[bytes]:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if magic.startswith(b"\xfd7zXZ\x00"):
        return _XzReader(file)  # type: ignore[return-value]
    return file


class _XzReader(io.RawIOBase):
    """`lzma.LZMAFile` with a memory limit: an xz header may ask for a dictionary of 4 GB. `xz -9` needs 65
    MiB."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._decompressor.eof:
            packed = self._file.read(1 << 16) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not packed:
                raise EOFError("the xz stream ends early")
            if data := self._decompressor.decompress(packed, size):
                return data
        return b""


def _open_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    assert stream is not None, "only regular files are opened"
    return stream  # a short one when the archive is cut; the missing end is noticed later


# --- a folder of the operator's ---


def _folder_entries(root: Path, limits: Limits) -> Iterator[Entry]:
    """Links are followed to files, never into folders: a farm of linked images is common, a cycle of folders
    is not."""
    found = list(_walk(root, limits))
    for number, relative in enumerate(found, 1):
        position = Position(number, len(found), "file")
        path = "/".join(relative.parts)
        checked_name(path, limits)
        if (root / relative).is_dir():
            yield Folder(path), position
        else:
            yield Member(path, lambda relative=relative: _open_in_folder(root, relative)), position  # type: ignore[misc]


def _open_in_folder(root: Path, relative: Path) -> IO[bytes]:
    try:
        return (root / relative).open("rb")
    except OSError as error:  # a link to nowhere, or a file of another user's
        raise Problem(
            422, "FOLDER_UNREADABLE", f"{str(relative)!r} in the folder cannot be read: {error.strerror}."
        ) from error


def _walk(root: Path, limits: Limits) -> Iterator[Path]:
    seen = 0
    for folder, names, files in os.walk(root):
        names.sort()
        for name in [*names, *sorted(files)]:
            seen += 1
            if seen > limits.max_members:
                raise unsafe(f"The folder holds more than {limits.max_members} files.")
            path = Path(folder, name)
            if path.is_dir() or path.is_file() or path.is_symlink():
                yield path.relative_to(root)
