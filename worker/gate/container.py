"""The zip that torch.save writes: its directory compared with what lies there, its members read as streams.

`zipfile` believes the central directory; an attacker writes two different ones. Here each member's own header must
say the same, no two may share bytes, and every CRC is checked.
"""

import errno
import io
import itertools
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, NamedTuple

from worker.gate.known_names import StorageType, StorageView
from worker.gate.limits import Limits
from worker.gate.refusal import is_code, shown, unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage

MAGIC = b"PK\x03\x04"
# What the readers of zip and deflate raise about bytes that are none.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
)

_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_SIZES_FOLLOW = 0x0008
# Bits 1 and 2: how hard deflate tried. Bit 11: names are UTF-8.
_KNOWN_FLAGS = _SIZES_FOLLOW | 0x0006 | 0x0800
_IN_ZIP64 = 0xFFFFFFFF
_MEMBER = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/[0-9]{1,9}"
)
_PROGRAMS = (
    (re.compile(r"constants\.pkl|code/.*|.*\.debug_pkl"), "TORCHSCRIPT", "a TorchScript program"),
    (
        re.compile(
            r"models/.*|archive_format|archive_version|serialized_.*|extra/.*|data/(weights|constants|sample_inputs)/.*"
        ),
        "TORCH_EXPORT",
        "a torch.export program (.pt2)",
    ),
    (re.compile(r"\.data/(extern_modules|python_version)"), "TORCH_PACKAGE", "a torch.package"),
)


class SmallReads(io.BufferedReader):
    """`zipfile` reads a directory in one call: refusing a large read refuses a large directory."""

    def __init__(self, raw: io.RawIOBase, largest: int, refuse: Callable[[int], Exception]) -> None:
        super().__init__(raw)
        self._largest = largest
        self._refuse = refuse

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._largest:
            raise self._refuse(size)
        return super().read(size)


@dataclass
class Container:
    """An open checkpoint; `members` by their names without the root folder."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    starts: dict[str, int]
    """Where each member's bytes begin in the file."""
    file: BinaryIO
    source: SmallReads

    @property
    def num_bytes(self) -> int:
        """Of all members, unpacked."""
        return sum(info.file_size for info in self.members.values())

    def close(self) -> None:
        self.archive.close()
        self.source.close()

    def pickle(self, limits: Limits) -> bytes:
        """The bytes of data.pkl."""
        return self.read("data.pkl", limits.pickle_bytes)

    def read(self, name: str, most: int) -> bytes:
        info = self.members[name]
        if info.file_size > most:
            raise unsafe("PICKLE_BYTES", f"its {name} has {info.file_size} bytes, more than {most}")
        with self.archive.open(info) as member:
            return b"".join(iter(lambda: member.read(_CHUNK), b""))

    def open(self, storage: Storage, first: int) -> AbstractContextManager[IO[bytes]]:
        """A storage's bytes as a stream, from the byte `first` on.

        The CRC was checked. `zipfile` would read all that lies before: a thousand weights in one flat storage took 16 s.
        """
        name = f"data/{storage.key}"
        if self.members[name].compress_type == zipfile.ZIP_STORED:
            self.file.seek(self.starts[name] + first)
            return nullcontext(self.file)
        member = self.archive.open(self.members[name])
        member.seek(first)
        return member

    def storages(self) -> "Storages":
        return Storages(
            {
                name.removeprefix("data/"): info.file_size
                for name, info in self.members.items()
                if name.startswith("data/")
            }
        )


@dataclass
class Storages:
    """What the persistent ids of a pickle mean, and how many bytes each storage really has."""

    num_bytes: dict[str, int]

    def __post_init__(self) -> None:
        self.known: dict[str, Storage] = {}

    def __call__(self, ident: Any) -> StorageView:
        """`("storage", type, key, location, number of elements)`, as torch.save writes it."""
        if not isinstance(ident, tuple) or len(ident) not in (5, 6) or ident[0] != "storage":
            raise unsafe("STORAGE_ID", "its pickle refers to something else than tensors' storages")
        _, kind, key, location, count, *view = ident
        if not (isinstance(kind, StorageType) and isinstance(key, str) and isinstance(location, str)) or any(
            view
        ):
            raise unsafe("STORAGE_ID", "its pickle refers to a storage in a way that torch.save does not")
        if type(count) is not int or not 0 <= count < 2**48:
            raise unsafe("STORAGE_SIZE", f"a storage claims {shown(count)} elements")
        there = self.num_bytes.get(key)
        if there is None:
            raise unsafe(
                "STORAGE_MISSING", f"the storage {shown(key)} is not in the file; was the upload complete?"
            )
        if count * (ITEM_BYTES[kind.dtype] if kind.dtype else 1) != there:
            raise unsafe(
                "STORAGE_SIZE", f"the storage {shown(key)} claims {count} elements and has {there} bytes"
            )
        return StorageView(self.known.setdefault(key, Storage(key, there)), kind.dtype)


def open_container(file: BinaryIO, limits: Limits) -> Container:
    """Check the whole zip. Raises Refused."""
    file_bytes = file.seek(0, os.SEEK_END)
    small = SmallReads(io.FileIO(os.dup(file.fileno())), limits.zip_directory_bytes, _large_directory)
    try:
        return Container(*_checked(file, file_bytes, zipfile.ZipFile(small), limits), file, small)
    except DAMAGE as error:
        small.close()
        raise _damaged(error) from None
    except OSError as error:
        small.close()
        if error.errno != errno.EINVAL:  # a seek to where no file has a place; others are the disk's
            raise
        raise _damaged(error) from None
    except BaseException:
        small.close()
        raise


def _large_directory(size: int) -> Exception:
    return unsafe("ZIP_DIRECTORY", f"its directory of names has {size} bytes")


def _damaged(error: BaseException) -> Exception:
    return unreadable("ZIP_DAMAGED", f"its zip is damaged ({shown(error, 120)}); was the upload complete?")


def _checked(
    file: BinaryIO, file_bytes: int, archive: zipfile.ZipFile, limits: Limits
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], dict[str, int]]:
    infos = archive.infolist()
    if len(infos) > limits.zip_members:
        raise unsafe("ZIP_MEMBERS", f"it has {len(infos)} members, more than {limits.zip_members}")
    _refuse_programs([name for info in infos for name in (info.filename, info.filename.partition("/")[2])])
    roots = {info.filename.partition("/")[0] for info in infos}
    names = {info.filename for info in infos}
    if len(names) != len(infos) or any(info.filename != info.orig_filename for info in infos):
        raise unsafe("ZIP_NAMES", "a member is there twice, or its name holds a NUL")
    members = {info.filename.partition("/")[2]: info for info in infos}
    if "data.pkl" not in members:
        raise unreadable("ZIP_FOREIGN", "it is a zip file, but torch.save did not write it")
    if len(roots) != 1 or not 1 <= len(next(iter(roots))) <= 255:
        raise unsafe("ZIP_ROOTS", "its members lie in several folders")
    assert len(members) == len(infos)  # of one folder, and each its own name
    spans: dict[str, _Span] = {}
    for name, info in members.items():
        if not _MEMBER.fullmatch(name):
            raise unsafe("ZIP_NAMES", f"the member {shown(info.filename)} is none that torch.save writes")
        _check_sizes(info, limits)
        spans[name] = _span(file, archive.start_dir, info)
    _check_spans(list(spans.values()))
    _check_total(infos, file_bytes, limits)
    _check_crcs(archive, infos)
    if "byteorder" in members and not _is_little(archive, members["byteorder"]):
        raise unreadable(
            "BIG_ENDIAN", "it was written on a big-endian machine: save it on a little-endian one"
        )
    return archive, members, {name: span.data for name, span in spans.items()}


def _is_little(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    return info.file_size == len(b"little") and archive.read(info) == b"little"


def _check_total(infos: list[zipfile.ZipInfo], file_bytes: int, limits: Limits) -> None:
    """What is unpacked is kept: a small upload must not fill the disk. Weights hardly deflate, pruned ones tenfold."""
    total = sum(info.file_size for info in infos)
    if total > limits.zip_free_total + limits.zip_total_ratio * file_bytes:
        raise unsafe("ZIP_RATIO", f"{file_bytes} bytes unpack to {total} (a zip bomb?)")


def _refuse_programs(names: list[str]) -> None:
    for pattern, rule, what in _PROGRAMS:
        if any(pattern.fullmatch(name) for name in names):
            raise is_code(
                rule, f"the file is {what}: reading it would run its code, and uploads are never run"
            )


def _check_sizes(info: zipfile.ZipInfo, limits: Limits) -> None:
    if info.flag_bits & 1:
        raise unreadable("ZIP_ENCRYPTED", "it is an encrypted zip")
    if info.flag_bits & ~_KNOWN_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unsafe(
            "ZIP_FEATURES", f"the member {shown(info.filename)} is packed in a way that torch.save never uses"
        )
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise unsafe("ZIP_SIZES", f"the member {shown(info.filename)} has two different sizes")
    if info.file_size > max(limits.zip_free_bytes, limits.zip_ratio * info.compress_size):
        raise unsafe(
            "ZIP_RATIO", f"the member {shown(info.filename)} unpacks to {info.file_size} bytes (a zip bomb?)"
        )


class _Span(NamedTuple):
    """Where a member's header, its data, and what follows it begin."""

    header: int
    data: int
    end: int


def _span(file: BinaryIO, directory: int, info: zipfile.ZipInfo) -> _Span:
    """Where a member lies, by its own header, which must say what the directory (which begins at `directory`) says."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) != _LOCAL_HEADER.size:
        raise unsafe("ZIP_LOCAL_HEADER", f"the member {shown(info.filename)} lies beyond the end")
    magic, _, flags, method, _, _, *sizes, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    name = file.read(name_bytes)
    encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
    if (
        magic != MAGIC
        or method != info.compress_type
        or flags != info.flag_bits
        or name != info.filename.encode(encoding)
        or not _same_sizes(sizes, info)
    ):
        raise unsafe(
            "ZIP_LOCAL_HEADER", f"the member {shown(info.filename)} says two different things of itself"
        )
    data = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if data + info.compress_size > directory:
        raise unsafe(
            "ZIP_LOCAL_HEADER", f"the member {shown(info.filename)} reaches into the directory, or beyond"
        )
    return _Span(info.header_offset, data, data + info.compress_size)


def _same_sizes(sizes: list[int], info: zipfile.ZipInfo) -> bool:
    """CRC, packed and unpacked size, where the member's own header has them: a stream's follow its data (and are 0
    here), those of 4 GB stand elsewhere."""
    wanted = (info.CRC, info.compress_size, info.file_size)
    streamed = 0 if info.flag_bits & _SIZES_FOLLOW else None
    return all(size in (value, streamed, _IN_ZIP64) for size, value in zip(sizes, wanted, strict=True))


def _check_spans(spans: list[_Span]) -> None:
    spans.sort()
    if spans[0].header != 0:
        raise unsafe("ZIP_PREFIX", "bytes lie before its first member")
    for before, after in itertools.pairwise(spans):
        if after.header < before.end:
            raise unsafe("ZIP_OVERLAP", "two of its members share bytes")


def _check_crcs(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        produced = 0
        with archive.open(info) as member:
            while chunk := member.read(_CHUNK):
                produced += len(chunk)
        if produced != info.file_size:
            raise unsafe(
                "ZIP_SIZES",
                f"the member {shown(info.filename)} has {produced} bytes and claims {info.file_size}",
            )
