"""Tar archives: v7, ustar, GNU and pax (https://www.gnu.org/software/tar/manual/html_node/Standard.html,
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html), as a stream.

Not `tarfile`: it believes the size of an extended header, keeps every header it ever saw, recurses from header to
header, and searches pax records in quadratic time (CVE-2024-6232; mended only in later releases of Python 3.11).
Regular files and folders are all that a data set needs, so they are all that is understood.
"""

import os
from collections.abc import Iterator
from typing import IO, NamedTuple

from worker.datasets.entries import Budget, Counted, Entry, Folder, Limits, Member, Position, unsafe
from worker.datasets.names import checked_name, quoted

_BLOCK = 512
_FILE_TYPES = (b"0", b"\0", b"7")  # 7: contiguous, which no disk knows any more
_FOLDER = b"5"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _GLOBAL_PAX = (b"x", b"X"), b"g"
_VOLUME_LABEL = b"V"
_MAX_HEADERS_IN_A_ROW = 8
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "sparse",
}


class TarError(ValueError):
    """The bytes are no tar's."""


def tar_entries(file: IO[bytes], plain: IO[bytes], limits: Limits) -> Iterator[Entry]:
    """The files and folders of a tar. `plain`: the bytes of the open `file`, unpacked."""
    total = os.fstat(file.fileno()).st_size
    stream = _Blocks(Counted(plain, Budget(limits, total).spend))
    number = 0
    while (header := _next_header(stream, limits)) is not None:
        number += 1
        if number > limits.max_members:
            raise unsafe(f"It holds more than {limits.max_members} members.")
        position = Position(min(file.tell(), total), total, "byte")
        path = checked_name(header.name, limits)
        if header.is_folder:
            stream.begin(header.size)
            yield Folder(path), position
        elif header.type in _FILE_TYPES:
            if not path:
                raise unsafe("It holds a file without a name.")
            stream.begin(header.size)
            yield Member(path, lambda: _Content(stream)), position  # type: ignore[arg-type,return-value]
        else:
            kind = _KINDS.get(header.type, f"of type {ascii(header.type)[2:-1]}")
            raise unsafe(f"{quoted(path)} is {kind}, not a plain file (`tar -h` stores what links point to).")
        stream.skip_rest()
    stream.drain()  # to the end, where gzip and xz keep their checksums


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes

    @property
    def is_folder(self) -> bool:
        # Before ustar a folder was a file whose name ends with a slash.
        return self.type == _FOLDER or (self.type == b"\0" and self.name.endswith("/"))


class _Blocks:
    """The tar as blocks of 512 bytes, and within it the content of the member that was begun last."""

    def __init__(self, stream: Counted) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0

    def block(self) -> bytes:
        return self._exactly(_BLOCK)

    def begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % _BLOCK

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the member; empty at its end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        data = self._stream.read(wanted)
        if not data:
            raise EOFError("the tar ends early")
        self._left -= len(data)
        return data

    def skip_rest(self) -> None:
        while self.read(1 << 16):
            pass
        self._exactly(self._padding)
        self._padding = 0

    def content(self, size: int) -> bytes:
        """The whole of a small member."""
        self.begin(size)
        data = self._exactly(size)
        self._left = 0
        self.skip_rest()
        return data

    def drain(self) -> None:
        while self._stream.read(1 << 16):
            pass

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise EOFError("the tar ends early")
            data += more
        return data


class _Content:
    """One member's bytes, as a stream."""

    def __init__(self, blocks: _Blocks) -> None:
        self._blocks = blocks

    def read(self, size: int) -> bytes:
        return self._blocks.read(size)

    def __enter__(self) -> "_Content":
        return self

    def __exit__(self, *_: object) -> None:
        """What is left is skipped when the next entry is asked for."""


def _next_header(stream: _Blocks, limits: Limits) -> _Header | None:
    """The next member with what the extended headers before it say; None at the end."""
    long_name: str | None = None
    records: dict[str, str] = {}
    for _ in range(_MAX_HEADERS_IN_A_ROW):
        block = stream.block()
        if not any(block):
            return None
        header = _parse(block)
        if header.type not in (_LONG_NAME, _LONG_LINK, *_PAX, _GLOBAL_PAX, _VOLUME_LABEL):
            return _merged(header, long_name, records)
        if header.size > limits.max_header_bytes:
            raise unsafe(f"A header of {header.size} bytes; at most {limits.max_header_bytes} are read.")
        content = stream.content(header.size)
        if header.type == _LONG_NAME:
            long_name = _text(content.rstrip(b"\0"))
        elif header.type in _PAX:
            records |= _records(content)
        elif header.type == _GLOBAL_PAX and not {"path", "size"}.isdisjoint(_records(content)):
            raise unsafe("A global header gives all members one name or size.")
    raise unsafe(f"More than {_MAX_HEADERS_IN_A_ROW} headers describe one member.")


def _merged(header: _Header, long_name: str | None, records: dict[str, str]) -> _Header:
    name = records.get("path", header.name if long_name is None else long_name)
    if any(key.startswith("GNU.sparse.") for key in records):
        raise unsafe(f"{quoted(name)} is sparse, not a plain file.")
    size = header.size
    if "size" in records:
        if not (records["size"].isascii() and records["size"].isdecimal() and len(records["size"]) <= 19):
            raise unsafe(f"{quoted(name)} says that it has {records['size'][:30]!a} bytes.")
        size = int(records["size"])
    return header._replace(name=name, size=size)


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes of a file are a tar's header."""
    try:
        return len(head) >= _BLOCK and any(head[:_BLOCK]) and _sum_is_right(head[:_BLOCK])
    except TarError:
        return False


def _parse(block: bytes) -> _Header:
    if not _sum_is_right(block):
        raise TarError("a header of it has a wrong checksum")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _Header(_text(name), _number(block[124:136]), block[156:157])


def _sum_is_right(block: bytes) -> bool:
    """The sum of all bytes with the checksum itself as spaces; some old programs summed signed bytes."""
    told = _number(block[148:156])
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return told in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest))


def _number(field: bytes) -> int:
    """Octal digits, or, from 8 GiB on, a number in base 256. Never negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    if not digits.isdigit() or not set(digits) <= set(b"01234567"):
        raise TarError("a number in a header of it is none")
    return int(digits, 8)


def _text(name: bytes) -> str:
    """Bytes that are no UTF-8 become surrogates, which `checked_name` refuses by name."""
    return name.decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """Pax records: "30 mtime=1350244992.023960108\\n", the length counting itself."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 20)
        length = content[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        if end <= space or end > len(content) or content[end - 1 : end] != b"\n":
            raise TarError("an extended header of it is damaged")
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise TarError("an extended header of it is damaged")
        if len(key) <= 100 and (key in (b"path", b"size") or key.startswith(b"GNU.sparse.")):
            found[key.decode("utf-8", "replace")] = _text(value)
        at = end
    return found
