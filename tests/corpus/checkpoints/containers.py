"""The containers of checkpoints, byte by byte: zip, the legacy container, safetensors."""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.corpus.checkpoints.opcodes import (
    TRUE,
    dict_of,
    integer,
    list_of,
    pickled,
    state,
    tensor,
    text,
)

NUMBERS = struct.pack("<4f", 0.5, -1.0, 2.0, 0.25)
WEIGHT = tensor()
"""A good tensor of these four numbers, as a pickle says it."""
STATE = pickled(state(("w", WEIGHT)))


@dataclass(frozen=True)
class Member:
    """A member of a zip and everything that its two headers say. None: what is true of `data`.

    `local_*` is what its own header says where that differs from the directory.
    """

    name: bytes
    data: bytes
    packed: bytes | None = None
    """What lies there, where it is not `data` itself."""
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    attributes: int = 0
    system: int = 0


def deflated(name: bytes, data: bytes, level: int = 9) -> Member:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return Member(name, data, packer.compress(data) + packer.flush(), method=8)


def checkpoint(
    pickle: bytes = STATE, storages: dict[str, bytes] | None = None, root: bytes = b"archive"
) -> list[Member]:
    """The members of what torch.save writes. Without a `root` they lie in no folder."""
    root = root + b"/" if root else b""
    storages = {"0": NUMBERS} if storages is None else storages
    members = [Member(root + b"data.pkl", pickle), Member(root + b"byteorder", b"little")]
    members += [Member(root + b"data/" + key.encode(), data) for key, data in storages.items()]
    return [*members, Member(root + b"version", b"3\n")]


def changed(name: bytes, **changes: Any) -> list[Member]:
    """A good checkpoint, of which one member is otherwise."""
    members = checkpoint()
    assert any(member.name == b"archive/" + name for member in members)
    return [replace(member, **changes) if member.name == b"archive/" + name else member for member in members]


def zipped(
    members: Sequence[Member],
    *,
    prefix: bytes = b"",
    gap: bytes = b"",
    comment: bytes = b"",
    claimed_comment: int | None = None,
    suffix: bytes = b"",
    count: int | None = None,
    directory_offset: int | None = None,
    directory_size: int | None = None,
    disk: int = 0,
) -> bytes:
    """A zip of these members; the end of its directory says what it is told to say."""
    body, directory = bytearray(prefix), bytearray()
    for member in members:
        at = len(body)
        body += _local_header(member) + member.local_extra
        body += member.data if member.packed is None else member.packed
        directory += _directory_entry(member, at - len(prefix) if member.offset is None else member.offset)
    body += gap
    start = len(body) - len(prefix) if directory_offset is None else directory_offset
    size = len(directory) if directory_size is None else directory_size
    number = len(members) if count is None else count
    claimed = len(comment) if claimed_comment is None else claimed_comment
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", disk, disk, number & 0xFFFF, number & 0xFFFF, size, start, claimed
    )
    return bytes(body + directory + end + comment + suffix)


def zip_of(pickle: bytes, **storages: bytes) -> bytes:
    """A checkpoint with this pickle. Without storages: the one of four numbers."""
    return zipped(checkpoint(pickle, {key.lstrip("_"): data for key, data in storages.items()} or None))


def _sizes(member: Member) -> tuple[int, int, int]:
    packed = member.data if member.packed is None else member.packed
    return (
        zlib.crc32(member.data) if member.crc is None else member.crc,
        len(packed) if member.packed_size is None else member.packed_size,
        len(member.data) if member.size is None else member.size,
    )


def _local_header(member: Member) -> bytes:
    crc, packed_size, size = _sizes(member)
    name = member.name if member.local_name is None else member.local_name
    method = member.method if member.local_method is None else member.local_method
    flags = member.flags if member.local_flags is None else member.local_flags
    crc = crc if member.local_crc is None else member.local_crc
    size = size if member.local_size is None else member.local_size
    fields = (
        b"PK\3\4",
        20,
        flags,
        method,
        0,
        0x21,
        crc,
        packed_size,
        size,
        len(name),
        len(member.local_extra),
    )
    return struct.pack("<4s5H3I2H", *fields) + name


def _directory_entry(member: Member, offset: int) -> bytes:
    crc, packed_size, size = _sizes(member)
    # Twice a version with the system it is for, then flags, method, time and date.
    fields = (b"PK\1\2", 20, member.system, 20, 0, member.flags, member.method, 0, 0x21)
    sizes = (crc, packed_size, size, len(member.name), len(member.extra), len(member.comment))
    where = (0, 0, member.attributes, offset)
    return (
        struct.pack("<4s4B4H3I3H2H2I", *fields, *sizes, *where) + member.name + member.extra + member.comment
    )


# ---- the container of torch.save before 1.6

LEGACY_MAGIC = pickled(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"))
LEGACY_VERSION = pickled(integer(1001))
LEGACY_SYSTEM = pickled(
    dict_of(
        (text("protocol_version"), integer(1001)),
        (text("little_endian"), TRUE),
        (text("type_sizes"), dict_of((text("short"), integer(2)), (text("int"), integer(4)))),
    )
)


def legacy(
    pickle: bytes = STATE,
    storages: dict[str, tuple[int, bytes]] | None = None,
    *,
    keys: bytes | None = None,
    magic: bytes = LEGACY_MAGIC,
    version: bytes = LEGACY_VERSION,
    system: bytes = LEGACY_SYSTEM,
    suffix: bytes = b"",
) -> bytes:
    """`storages`: key → (the number of elements that is said, the bytes that follow)."""
    storages = {"0": (4, NUMBERS)} if storages is None else storages
    keys = pickled(list_of(*map(text, storages))) if keys is None else keys
    data = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return magic + version + system + pickle + keys + data + suffix


# ---- safetensors

ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def safetensors(
    header: dict[str, Any] | bytes | None = None, data: bytes = NUMBERS, length: int | None = None
) -> bytes:
    """`length`: what the file says of its header's length."""
    if header is None:
        header = {"w": ENTRY}
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data
