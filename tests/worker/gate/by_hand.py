"""Checkpoints built byte by byte, as no library would write them: pickles from opcodes, zips from headers."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def integer(value: int) -> bytes:
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def items(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(name: str, *arguments: bytes) -> bytes:
    return named(name) + items(*arguments) + b"R"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def pickled(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def storage(kind: str = "FloatStorage", key: str = "0", count: bytes = integer(4)) -> bytes:
    """A persistent id, as torch.save writes it."""
    return items(text("storage"), named(f"torch.{kind}"), text(key), text("cpu"), count) + b"Q"


NO_HOOKS = call("collections.OrderedDict")


def tensor(
    view: bytes | None = None,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    requires_grad: bytes = b"\x89",
    hooks: bytes = NO_HOOKS,
    *more: bytes,
) -> bytes:
    return call(
        "torch._utils._rebuild_tensor_v2",
        storage() if view is None else view,
        integer(offset),
        items(*map(integer, size)),
        items(*map(integer, stride)),
        requires_grad,
        hooks,
        *more,
    )


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def members(pickle: bytes, storages: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """What the zip of a checkpoint holds, in the order of torch.save."""
    named_storages = {f"a/data/{key}": data for key, data in (storages or {"0": FOUR}).items()}
    return {"a/data.pkl": pickle, "a/byteorder": b"little", **named_storages, "a/version": b"3\n"}


def zipped(content: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def checkpoint(body: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A zip whose pickle has this body."""
    return zipped(members(pickled(body), storages))


def good() -> bytes:
    return checkpoint(mapping({"w": tensor()}))


def header_offsets(content: bytes) -> tuple[list[int], list[int]]:
    """Where the members' own headers and their entries in the directory begin."""
    local, central, position = [], [], content.index(b"PK\x01\x02")
    while content[position : position + 4] == b"PK\x01\x02":
        central.append(position)
        local.append(struct.unpack_from("<I", content, position + 42)[0])
        name, extra, comment = struct.unpack_from("<3H", content, position + 28)
        position += 46 + name + extra + comment
    return local, central


def patched(content: bytes, position: int, data: bytes) -> bytes:
    return content[:position] + data + content[position + len(data) :]


def legacy(body: bytes, storages: list[tuple[str, int, bytes]], keys: list[str] | None = None) -> bytes:
    """torch.save before 1.6. `storages`: key, number of elements that the file says, bytes."""
    system = mapping({"protocol_version": integer(1001), "little_endian": b"\x88", "type_sizes": b"}"})
    names = [key for key, _, _ in storages] if keys is None else keys
    listed = b"](" + b"".join(map(text, names)) + b"e"
    heads = (integer(0x1950A86A20F9469CFC6C), integer(1001), system, body, listed)
    data = b"".join(struct.pack("<q", count) + raw for _, count, raw in storages)
    return b"".join(map(pickled, heads)) + data


def safetensors(header: Any, data: bytes = FOUR) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def array(shape: bytes, data: bytes, kind: str = "f4") -> bytes:
    """numpy's `_reconstruct` and the BUILD that fills it."""
    dtype = call("numpy.dtype", text(kind), b"\x89", b"\x88")
    made = call("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), b"K\x00\x85", b"C\x01b")
    return made + items(b"K\x01", shape, dtype, b"\x89", b"B" + struct.pack("<I", len(data)) + data) + b"b"
