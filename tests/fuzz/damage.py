"""Files changed at random, and repaired so far that the change gets past the first checksum."""

import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

_TELLING = (0, 1, 0x7F, 0x80, 0xFF)
_TELLING_LONG = (0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One to four changes: bits, bytes, lengths, runs, cuts, doublings, pieces of another file."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        content = dice.choice(_CHANGES)(content, others, dice)
    return content


def _flip(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(dice.choice((1, 3, 20))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _byte(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[dice.randrange(len(changed))] = dice.choice(_TELLING)
    return bytes(changed)


def _long(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    number = struct.pack(dice.choice("<>") + "L", dice.choice(_TELLING_LONG))
    return content[:at] + number + content[at + 4 :]


def _run(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    at, length = dice.randrange(len(content) + 1), dice.randrange(1, 200)
    return content[:at] + bytes([dice.choice(_TELLING)]) * length + content[at + length :]


def _cut(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _without(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _double(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * dice.choice((1, 2, 50)) + content[end:]


def _spliced(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    other = dice.choice(others)
    start, end = sorted(dice.randrange(len(other) + 1) for _ in range(2))
    at = dice.randrange(len(content) + 1)
    return content[:at] + other[start:end] + content[at:]


_CHANGES: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    *(_flip, _byte, _long, _run, _cut, _without, _double, _spliced),
)


def with_png_checksums(content: bytes) -> bytes:
    """Every chunk that is whole has the checksum of what is in it."""
    result, at = bytearray(content), 8
    while at + 12 <= len(result):
        length = int.from_bytes(result[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(result):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(result[at + 4 : end]))
        at = end + 4
    return bytes(result)


def with_tar_checksums(content: bytes) -> bytes:
    """Every block that looks like a header has the sum of its bytes."""
    result = bytearray(content)
    for match in re.finditer(rb"ustar", content):
        start = match.start() - 257
        if start < 0 or start + 512 > len(result):
            continue
        result[start + 148 : start + 156] = b" " * 8
        result[start + 148 : start + 156] = b"%06o\0 " % sum(result[start : start + 512])
    return bytes(result)
