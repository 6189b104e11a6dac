"""Writes a dict of numbers and arrays as a pickle that Python with numpy reads, without numpy.

Reading such files is the gate's (`worker.gate`), which unpickles nothing.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ITEM_BYTES = {"u1": 1, "i1": 1, "b1": 1, "f2": 2, "i2": 2, "f4": 4, "i4": 4, "f8": 8, "i8": 8}


@dataclass
class Array:
    """`data`: the elements' bytes, little-endian, in C order (`fortran`: first index fastest)."""

    kind: str
    """numpy's short name of the type, one of ITEM_BYTES."""
    shape: tuple[int, ...]
    data: bytes
    fortran: bool = False

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def write_plain_pickle(values: Mapping[str, float | Array | tuple[float, float, Array]]) -> bytes:
    """The same dict as a pickle that Python 3 with numpy reads, 1 or 2: floats as float64 scalars. Protocol 3."""
    return _Writer().write(values)


class _Writer:
    """Names and types are written once and referred to by number afterwards, as `pickle` does."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x03")
        self.known: dict[str, int] = {}

    def write(self, values: Mapping[str, float | Array | tuple[float, float, Array]]) -> bytes:
        self.out += b"}("
        for name, value in values.items():
            self._text(name)
            if isinstance(value, tuple):
                low, high, array = value
                self._scalar(low)
                self._scalar(high)
                self._array(array)
                self.out += b"\x87"
            elif isinstance(value, Array):
                self._array(value)
            else:
                self._scalar(value)
        self.out += b"u."
        return bytes(self.out)

    def _text(self, text: str) -> None:
        data = text.encode()
        self.out += b"X" + struct.pack("<I", len(data)) + data

    def _bytes(self, data: bytes) -> None:
        if len(data) >= 2**32:
            raise ValueError(
                f"a tensor of {len(data)} bytes is too large for this format, which ends at 2^32"
            )
        self.out += b"C" + bytes([len(data)]) if len(data) < 256 else b"B" + struct.pack("<I", len(data))
        self.out += data

    def _once(self, key: str, write: Callable[[], None]) -> None:
        if key in self.known:
            self.out += b"h" + bytes([self.known[key]])
            return
        write()
        self.known[key] = len(self.known)
        self.out += b"q" + bytes([self.known[key]])

    def _global(self, module: str, name: str) -> None:
        def write() -> None:
            self.out += f"c{module}\n{name}\n".encode()

        self._once(f"{module} {name}", write)

    def _type(self, kind: str) -> None:
        def write() -> None:
            self._global("numpy", "dtype")
            self._text(kind)
            self.out += b"\x89\x88\x87R(K\x03"  # (kind, False, True), called; then the state (3, order, ...
            self._text("|" if ITEM_BYTES[kind] == 1 else "<")
            self.out += b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"

        self._once(f"type {kind}", write)

    def _scalar(self, value: float) -> None:
        self._global("numpy.core.multiarray", "scalar")
        self._type("f8")
        self._bytes(struct.pack("<d", value))
        self.out += b"\x86R"

    def _array(self, array: Array) -> None:
        self._global("numpy.core.multiarray", "_reconstruct")
        self._global("numpy", "ndarray")
        self.out += b"K\x00\x85"
        self._bytes(b"b")
        self.out += b"\x87R(K\x01("
        for side in array.shape:
            self.out += b"J" + struct.pack("<i", side)
        self.out += b"t"
        self._type(array.kind)
        self.out += b"\x88" if array.fortran else b"\x89"
        self._bytes(array.data)
        self.out += b"tb"
