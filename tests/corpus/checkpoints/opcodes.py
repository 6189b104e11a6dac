"""Pickles written opcode by opcode, so that they can say what no pickler would.

The opcodes are those of `pickletools`; each function gives the bytes that push one value.
"""

import struct

MARK, STOP, NONE, TRUE, FALSE = b"(", b".", b"N", b"\x88", b"\x89"
REDUCE, BUILD, TUPLE, DICT, LIST, SETITEMS, APPENDS, POP = b"R", b"b", b"t", b"}", b"]", b"u", b"e", b"0"
EMPTY_TUPLE, BINPERSID, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL = b")", b"Q", b"\x81", b"\x92", b"\x93"


def pickled(*parts: bytes, protocol: int = 2) -> bytes:
    """A whole pickle of one value."""
    return b"\x80" + bytes([protocol]) + b"".join(parts) + STOP


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(content)) + content


def short_text(value: str) -> bytes:
    """SHORT_BINUNICODE of protocol 4."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def numbers(values: tuple[int, ...]) -> bytes:
    return tuple_of(*map(integer, values))


def dict_of(*items: tuple[bytes, bytes]) -> bytes:
    return DICT + MARK + b"".join(key + value for key, value in items) + SETITEMS


def list_of(*items: bytes) -> bytes:
    return LIST + MARK + b"".join(items) + APPENDS


def name(dotted: str) -> bytes:
    """GLOBAL."""
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def stack_name(dotted: str) -> bytes:
    """STACK_GLOBAL."""
    module, _, attribute = dotted.rpartition(".")
    return short_text(module) + short_text(attribute) + STACK_GLOBAL


def put(index: int) -> bytes:
    return b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)


def call(dotted: str, *arguments: bytes) -> bytes:
    return name(dotted) + tuple_of(*arguments) + REDUCE


def persistent(*parts: bytes) -> bytes:
    return tuple_of(*parts) + BINPERSID


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4, location: str = "cpu") -> bytes:
    return persistent(text("storage"), name(f"torch.{kind}"), text(key), text(location), integer(count))


HOOKS = call("collections.OrderedDict")


def tensor(
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    *,
    of: bytes | None = None,
    requires_grad: bytes = FALSE,
    hooks: bytes = HOOKS,
    more: tuple[bytes, ...] = (),
) -> bytes:
    """What torch.save writes for a tensor. `of`: its storage; `more`: further arguments."""
    if strides is None:
        strides = tuple(_product(shape[axis + 1 :]) for axis in range(len(shape)))
    arguments = (
        of or storage(),
        integer(offset),
        numbers(shape),
        numbers(strides),
        requires_grad,
        hooks,
        *more,
    )
    return call("torch._utils._rebuild_tensor_v2", *arguments)


def state(*items: tuple[str, bytes]) -> bytes:
    """A dict by name."""
    return dict_of(*((text(key), value) for key, value in items))


def _product(sides: tuple[int, ...]) -> int:
    product = 1
    for side in sides:
        product *= side
    return product
