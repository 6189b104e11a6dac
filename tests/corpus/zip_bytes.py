"""Zips written field by field, so that every field can lie."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.corpus.photos import data_set

STORED, DEFLATED = 0, 8


@dataclass(frozen=True)
class Member:
    """One member. What is None is what an honest writer would write."""

    name: bytes
    data: bytes = b""
    method: int = DEFLATED
    flags: int = 0x800
    crc: int | None = None
    packed_size: int | None = None
    size: int | None = None
    external: int = 0o100644 << 16
    extra: bytes = b""
    comment: bytes = b""
    offset: int | None = None
    local_name: bytes | None = None
    local_method: int | None = None
    local_size: int | None = None
    packed: bytes | None = None
    descriptor: bool = False
    """Sizes behind the bytes, as a program writes that cannot seek."""
    made_by: int = 3 << 8 | 20


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def photos() -> list[Member]:
    """A good data set, to put a bad member among."""
    return [Member(name.encode(), data, STORED) for name, data in data_set().items()]


def make_zip(
    members: Sequence[Member],
    *,
    prefix: bytes = b"",
    comment: bytes = b"",
    suffix: bytes = b"",
    before_directory: bytes = b"",
    shift: int = 0,
    **end: int,
) -> bytes:
    """`end`: fields of the last record that lie (disk, first_disk, here, total, size, offset). `shift`: added to every
    offset."""
    body, directory = bytearray(prefix), bytearray()
    for member in members:
        offset = len(body) + shift if member.offset is None else member.offset
        honest = _honest(member)
        body += _local(honest)
        directory += _central(honest, offset)
    body += before_directory
    fields = {
        "disk": 0,
        "first_disk": 0,
        "here": len(members) & 0xFFFF,
        "total": len(members) & 0xFFFF,
        "size": len(directory),
        "offset": len(body) + shift,
    } | end
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", *fields.values(), len(comment))
    return bytes(body + directory + last + comment + suffix)


def _honest(member: Member) -> Member:
    packed = member.packed
    if packed is None:
        packed = deflated(member.data) if member.method == DEFLATED else member.data
    return replace(
        member,
        packed=packed,
        crc=zlib.crc32(member.data) if member.crc is None else member.crc,
        packed_size=len(packed) if member.packed_size is None else member.packed_size,
        size=len(member.data) if member.size is None else member.size,
        flags=member.flags | (8 if member.descriptor else 0),
    )


def _local(member: Member) -> bytes:
    name = member.name if member.local_name is None else member.local_name
    method = member.method if member.local_method is None else member.local_method
    size = member.size if member.local_size is None else member.local_size
    numbers = (0, 0, 0) if member.descriptor else (member.crc, member.packed_size, size)
    head = struct.pack(
        "<4s5H3L2H",
        *(b"PK\x03\x04", 20, member.flags, method, 0, 0x21),
        *(*numbers, len(name), len(member.extra)),
    )
    behind = b""
    if member.descriptor:
        behind = struct.pack("<4s3L", b"PK\x07\x08", member.crc, member.packed_size, member.size)
    return head + name + member.extra + (member.packed or b"") + behind


def _central(member: Member, offset: int) -> bytes:
    return (
        struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\x01\x02", member.made_by, 20, member.flags, member.method, 0, 0x21),
            *(member.crc, member.packed_size, member.size),
            *(len(member.name), len(member.extra), len(member.comment), 0, 0, member.external, offset),
        )
        + member.name
        + member.extra
        + member.comment
    )


def zip64_end(content: bytes, **lies: int) -> bytes:
    """The zip with a zip64 record of its directory, whose fields (here, total, size, offset, at) may lie."""
    last = content[-22:]
    _, _, _, here, total, size, offset, _ = struct.unpack("<4s4H2LH", last)
    fields = {"here": here, "total": total, "size": size, "offset": offset, "at": len(content) - 22} | lies
    record = struct.pack(
        "<4sQ2H2L4Q",
        *(b"PK\x06\x06", 44, 45, 45, 0, 0),
        *(fields["here"], fields["total"], fields["size"], fields["offset"]),
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, fields["at"], 1)
    sentinel = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:-22] + record + locator + sentinel
