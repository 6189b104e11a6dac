"""Zip archives. `zipfile` reads the members; before it does, the directory at the end is checked to be one that
every program understands alike (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT).
"""

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple

from worker.datasets.entries import (
    Budget,
    Counted,
    Entry,
    Folder,
    Limits,
    Member,
    Position,
    check_ratio,
    unreadable,
    unsafe,
)
from worker.datasets.names import checked_name, quoted

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SIZE_FOLLOWS = 0x8
"""The flag of a member whose sizes come behind its bytes (a data descriptor): its local header has none."""
_IN_EXTRA = 0xFFFFFFFF
"""A size that stands in a zip64 field instead."""


def zip_entries(file: IO[bytes], limits: Limits) -> Iterator[Entry]:
    """The members of an open zip, in the order of its directory."""
    file.seek(0, os.SEEK_END)
    budget = Budget(limits, file.tell())
    directory = _find_directory(file, file.tell())
    _check_directory(file, directory, limits)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        _check_places(infos, directory.offset)
        for number, info in enumerate(infos, 1):
            position = Position(number, len(infos), "file")
            name = _name(info)
            path = checked_name(name, limits)
            _check_member(info, path)
            if name.endswith(("/", "\\")):
                yield Folder(path), position
            else:
                yield Member(path, lambda info=info: _open_member(file, archive, info, budget)), position  # type: ignore[misc]


class _Directory(NamedTuple):
    offset: int
    size: int
    num_members: int


def _find_directory(file: IO[bytes], size: int) -> _Directory:
    """The one record that ends the file says where the directory is. With a second one, or with bytes between
    them, two programs could see two different archives."""
    start = max(size - _END.size - 0xFFFF, 0)
    tail = _read_at(file, start, size - start)
    ends = []
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            ends.append(at)
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if not ends:
        raise zipfile.BadZipFile(
            "it does not end with a zip's directory (cut off, or followed by other bytes)"
        )
    if len(ends) > 1:
        raise unsafe("It ends with two directories, so that programs may see different files in it.")
    _, disk, first_disk, _, count, length, offset, _ = _END.unpack_from(tail, ends[0])
    end = start + ends[0]
    if end >= _END64_LOCATOR.size:
        locator = _END64_LOCATOR.unpack(_read_at(file, end - _END64_LOCATOR.size, _END64_LOCATOR.size))
        if locator[0] == b"PK\x06\x07":
            end = locator[2]
            fields = _END64.unpack(_read_at(file, end, _END64.size))
            if fields[0] != b"PK\x06\x06":
                raise zipfile.BadZipFile("its zip64 directory is not where it should be")
            disk, first_disk, count, length, offset = fields[4], fields[5], *fields[7:]
    if disk or first_disk:
        raise unreadable(
            "It is one part of a zip in several files: join them, or zip again without splitting."
        )
    if offset + length != end:
        raise zipfile.BadZipFile("there are bytes before its first member or around its directory")
    return _Directory(offset, length, count)


def _check_directory(file: IO[bytes], directory: _Directory, limits: Limits) -> None:
    """Walk the directory without keeping it: `zipfile` makes a large object of each of its entries."""
    if directory.size > limits.max_directory_bytes:
        raise unsafe(
            f"Its directory of names takes {directory.size} bytes; at most {limits.max_directory_bytes} are read."
        )
    data = _read_at(file, directory.offset, directory.size)
    at = count = 0
    while at < len(data):
        fields = _ENTRY.unpack_from(data, at)
        if fields[0] != b"PK\x01\x02":
            raise zipfile.BadZipFile("its directory is damaged")
        count += 1
        if count > limits.max_members:
            raise unsafe(f"It holds more members than the at most {limits.max_members} that are read.")
        at += _ENTRY.size + fields[10] + fields[11] + fields[12]
    # Programs without zip64 write the count modulo 65536.
    if at != len(data) or (count & 0xFFFF) != (directory.num_members & 0xFFFF):
        raise zipfile.BadZipFile(f"its directory holds {count} members and says {directory.num_members}")


def _check_places(infos: list[zipfile.ZipInfo], directory_offset: int) -> None:
    """Members that share bytes are how a small zip unpacks to petabytes (https://www.bamsoftware.com/hacks/zipbomb/)."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise unsafe(f"{quoted(_name(info))} shares its bytes with another member.")
        end = info.header_offset + _LOCAL.size + info.compress_size
    if end > directory_offset:
        raise zipfile.BadZipFile("a member reaches into the directory")
    if infos and min(info.header_offset for info in infos) != 0:
        raise zipfile.BadZipFile("there are bytes before its first member")


def _name(info: zipfile.ZipInfo) -> str:
    """As the directory has it, with its NUL if it has one. macOS writes UTF-8 and does not say so."""
    name = info.orig_filename
    if info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _check_member(info: zipfile.ZipInfo, path: str) -> None:
    if not path:
        raise unsafe("It holds a member without a name.")
    if info.flag_bits & 0x1:
        raise unreadable(f"{quoted(path)} is encrypted: upload an archive without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # lzma and others let a header ask for gigabytes of memory.
        raise unreadable(
            f"{quoted(path)} uses zip compression {info.compress_type}: only stored and deflated members are read."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe(
            f"{quoted(path)} is a link or a device, not a file (zip without `-y` stores what links point to)."
        )


def _open_member(
    file: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget
) -> IO[bytes]:
    _check_local_header(file, info)
    produced = 0

    def count(num_bytes: int) -> None:
        nonlocal produced
        produced += num_bytes
        check_ratio(produced, info.compress_size, quoted(_name(info)), budget.limits)
        budget.spend(num_bytes)

    def ended() -> None:
        if produced != info.file_size:
            raise zipfile.BadZipFile(f"{quoted(_name(info))} has {produced} bytes and says {info.file_size}")

    return Counted(archive.open(info), count, ended)  # type: ignore[return-value]  # readers need only read and close


def _check_local_header(file: IO[bytes], info: zipfile.ZipInfo) -> None:
    """A member is described twice, and both must say the same. (Names are compared by `zipfile`.)"""
    fields = _LOCAL.unpack(_read_at(file, info.header_offset, _LOCAL.size))
    magic, _, flags, method, _, _, crc, packed, size, _, _ = fields
    same = magic == b"PK\x03\x04" and method == info.compress_type and not flags & 0x1
    if not flags & _SIZE_FOLLOWS:
        same &= crc == info.CRC
        same &= packed in (_IN_EXTRA, info.compress_size) and size in (_IN_EXTRA, info.file_size)
    if not same:
        raise zipfile.BadZipFile(f"{quoted(_name(info))} is described in two different ways")


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    """Apart from the file's own position. Raises EOFError."""
    if offset + size > os.fstat(file.fileno()).st_size:
        raise EOFError("it is shorter than its directory says")
    return os.pread(file.fileno(), size, offset)
