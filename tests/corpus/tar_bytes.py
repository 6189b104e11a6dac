"""Tars written field by field."""

from collections.abc import Iterable

from tests.corpus.photos import data_set

END = bytes(1024)


def header(
    name: bytes,
    size: int = 0,
    type: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    link: bytes = b"",
    prefix: bytes = b"",
    size_field: bytes | None = None,
    wrong_sum: bool = False,
    signed: bool = False,
) -> bytes:
    """One block of 512 bytes."""
    block = bytearray(512)
    block[: min(len(name), 100)] = name[:100]
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size if size_field is None else size_field.ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156:157] = type
    block[157 : 157 + len(link)] = link
    block[257:265] = magic.ljust(8, b"\0")
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block) + wrong_sum
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name: bytes, content: bytes = b"", type: bytes = b"0", **fields: object) -> bytes:
    return header(name, len(content), type, **fields) + padded(content)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    """A pax record, its length counting itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], type: bytes = b"x") -> bytes:
    return member(b"PaxHeader", b"".join(record(*each) for each in records), type)


def photos() -> list[bytes]:
    return [member(name.encode(), data) for name, data in data_set().items()]


def make_tar(parts: Iterable[bytes] = (), end: bytes = END) -> bytes:
    """A good data set with these parts behind it."""
    return b"".join([*photos(), *parts, end])
