"""A pickle by hand: each function gives opcodes, which are concatenated."""

import io
import struct
import zipfile
from collections.abc import Iterable

import torch

BYTES_OF = {"Float": 4, "Double": 8, "Half": 2, "Long": 8, "Byte": 1}


def text(value: str | bytes) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(dotted: str, *arguments: bytes) -> bytes:
    return name(dotted) + tuple_of(*arguments) + b"R"


def dict_of(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


def shape(*sides: int) -> bytes:
    return tuple_of(*map(integer, sides))


def storage(key: str = "0", elements: int = 6, kind: str = "Float", location: str = "cpu") -> bytes:
    ident = tuple_of(
        text("storage"), name(f"torch.{kind}Storage"), text(key), text(location), integer(elements)
    )
    return ident + b"Q"


EMPTY = call("collections.OrderedDict")


def tensor(
    *,
    of: bytes | None = None,
    offset: int = 0,
    sides: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    requires_grad: bytes = b"\x89",
    hooks: bytes = EMPTY,
    more: Iterable[bytes] = (),
    rebuild: str = "torch._utils._rebuild_tensor_v2",
) -> bytes:
    """`{"w": tensor}` needs six float32 numbers in storage 0."""
    arguments = (
        of or storage(),
        integer(offset),
        shape(*sides),
        shape(*strides),
        requires_grad,
        hooks,
        *more,
    )
    return call(rebuild, *arguments)


SIX = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def zipped(
    content: bytes, storages: dict[str, bytes] | None = None, *, root: str = "archive", deflated: bool = False
) -> bytes:
    """As torch.save packs a pickle."""
    members = {"data.pkl": content, "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{key}": data for key, data in ({"0": SIX} if storages is None else storages).items()}
    return zip_of({f"{root}/{key}": data for key, data in members.items()}, deflated=deflated)


def zip_of(members: dict[str, bytes], *, deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, archive.compression)
    return buffer.getvalue()


def checkpoint(value: bytes, storages: dict[str, bytes] | None = None, protocol: int = 2) -> bytes:
    return zipped(pickled(value, protocol), storages)


def state(**tensors: bytes) -> bytes:
    return checkpoint(dict_of(tensors))


def legacy(
    value: bytes, keys: bytes, storages: bytes, *, system: bytes | None = None, version: int = 1001
) -> bytes:
    """torch.save before 1.6."""
    sizes = dict_of({"short": integer(2), "int": integer(4), "long": integer(4)})
    system = system or dict_of(
        {"protocol_version": integer(1001), "little_endian": b"\x88", "type_sizes": sizes}
    )
    parts = (b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", integer(version), system, value, keys)
    return b"".join(map(pickled, parts)) + storages


def saved(value: object, **options: object) -> bytes:
    """Written by PyTorch itself."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
