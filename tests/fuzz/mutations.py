"""Changes of a checkpoint's bytes: blind ones, and ones that know zips, pickles and safetensors and repair what guards them.

All chance comes from the `random.Random` that is handed in.
"""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.corpus.checkpoints import opcodes
from tests.corpus.checkpoints.containers import Member, zipped

Mutation = Callable[[random.Random, bytes, bytes], bytes]
"""(chance, a file, another file to take from) → a new file."""

# Where a number is one too many, or changes its sign or its width.
_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    15,
    16,
    17,
    63,
    64,
    127,
    128,
    255,
    256,
    1 << 15,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
)
_NUMBERS += ((1 << 32) - 1, 1 << 32, (1 << 62) + 4, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_OPCODES = bytes(range(0x80, 0x99)) + b"()[]{}.0123BCGIJKLMNPQRSTUVXabcdeghijlopqrstu"
_PIECES = (
    opcodes.call("os.system", opcodes.text("id")),
    opcodes.call("collections.OrderedDict"),
    opcodes.tensor(),
    opcodes.tensor((2, 2), (1, 2)),
    opcodes.tensor((1 << 20,), (0,)),
    opcodes.storage(),
    opcodes.storage("DoubleStorage", count=2),
    opcodes.storage(key="1"),
    opcodes.get(0),
    opcodes.get(1),
    opcodes.put(0),
    opcodes.MARK,
    opcodes.NONE,
    opcodes.TRUE,
    opcodes.numbers((4,)),
    opcodes.integer(-1),
    opcodes.integer(1 << 63),
    opcodes.EMPTY_TUPLE + b"\x85" * 200,
    opcodes.LIST + opcodes.put(0) + opcodes.get(0) + b"a",
    opcodes.DICT + opcodes.BUILD,
    opcodes.text("module.w"),
)


def mutated(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """One to four changes of one file."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(MUTATIONS)(chance, content, other)
    return content


def _place(chance: random.Random, content: bytes, width: int = 1) -> int:
    """Mostly anywhere; sometimes near the ends, where the directories are."""
    last = max(0, len(content) - width)
    near = chance.random()
    if near < 0.15:
        return chance.randint(0, min(64, last))
    return chance.randint(max(0, last - 128), last) if near < 0.4 else chance.randint(0, last)


def flip_bits(chance: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(chance, content)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwrite(chance: random.Random, content: bytes, other: bytes) -> bytes:
    at, count = _place(chance, content), chance.randint(1, 24)
    run = chance.choice((b"\0" * count, b"\xff" * count, chance.randbytes(count)))
    return content[:at] + run + content[at + count :]


def swap_opcode(chance: random.Random, content: bytes, other: bytes) -> bytes:
    at = _place(chance, content)
    return content[:at] + bytes([chance.choice(_OPCODES)]) + content[at + 1 :]


def set_number(chance: random.Random, content: bytes, other: bytes) -> bytes:
    width = chance.choice((1, 2, 4, 8))
    at = _place(chance, content, width)
    number = chance.choice(_NUMBERS) % (1 << 8 * width)
    return content[:at] + number.to_bytes(width, "little") + content[at + width :]


def insert_piece(chance: random.Random, content: bytes, other: bytes) -> bytes:
    at = _place(chance, content)
    return content[:at] + chance.choice(_PIECES) + content[at:]


def repeat(chance: random.Random, content: bytes, other: bytes) -> bytes:
    at, count = _place(chance, content), chance.randint(1, 64)
    return content[:at] + content[at : at + count] * chance.choice((2, 3, 50)) + content[at + count :]


def leave_out(chance: random.Random, content: bytes, other: bytes) -> bytes:
    at = _place(chance, content)
    return content[:at] + content[at + chance.randint(1, 64) :]


def cut(chance: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(chance, content)]


def splice(chance: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(chance, content)] + other[_place(chance, other) :]


# ---- with the container in order again


_FIELDS: tuple[tuple[str, Sequence[int]], ...] = (
    ("method", (8, 1, 12, 99)),
    ("flags", (1, 8, 0x20, 0x800, 0xFFFF)),
    ("crc", _NUMBERS),
    ("size", _NUMBERS),
    ("packed_size", _NUMBERS),
    ("offset", _NUMBERS),
    ("local_method", (8, 99)),
    ("local_flags", (1, 8)),
    ("local_crc", _NUMBERS),
    ("local_size", _NUMBERS),
    ("attributes", _NUMBERS),
)


def _members(content: bytes) -> list[Member]:
    """Nothing of what is no zip, or none that can be read any more."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [Member(info.filename.encode(), archive.read(info)) for info in archive.infolist()]
    except Exception:  # the file has been changed before, and zipfile stumbles in its own ways
        return []


def change_member(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A member's content, with a CRC and sizes that fit it."""
    members = _members(content)
    if not members:
        return flip_bits(chance, content, other)
    index = chance.choice([0, *range(len(members))])  # the pickle comes first
    change = chance.choice(
        (flip_bits, overwrite, swap_opcode, set_number, insert_piece, repeat, leave_out, cut)
    )
    members[index] = replace(members[index], data=change(chance, members[index].data, other))
    return zipped(members)


def change_directory(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A field of the zip's directory or of a member's own header; or a member twice, gone, elsewhere, another's."""
    members = _members(content)
    if not members:
        return set_number(chance, content, other)
    index = chance.randrange(len(members))
    field, numbers = chance.choice(_FIELDS)
    kind = chance.randrange(5)
    if kind == 0:
        members.insert(chance.randrange(len(members)), members[index])
    elif kind == 1:
        del members[index]
    elif kind == 2:
        members[index] = replace(members[index], name=chance.choice(members).name)
    elif kind == 3:
        members += _members(other)
    else:
        top = 16 if field in ("method", "flags", "local_method", "local_flags") else 32
        members[index] = replace(members[index], **{field: chance.choice(numbers) % (1 << top)})
    return zipped(members)


def change_header(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """A value of a safetensors header, with a length that fits it."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        entry = header[chance.choice(list(header))]
        key = chance.choice(list(entry))
        values: list[Any] = [
            None,
            -1,
            1 << 62,
            1 << 64,
            2.5,
            "F64",
            "F8_E4M3",
            [],
            [0],
            [4, 4],
            [0, 16],
            [8, 24],
            {},
            True,
        ]
        entry[key] = chance.choice(values)
    except Exception:  # no safetensors, or none any more
        return insert_piece(chance, content, other)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    overwrite,
    swap_opcode,
    set_number,
    insert_piece,
    repeat,
    leave_out,
    cut,
    splice,
    change_member,
    change_member,
    change_member,
    change_directory,
    change_directory,
    change_header,
)
