"""Pickles of dicts of numpy arrays, read and written without numpy and without `pickle`.

Unpickling runs what a file asks for, so a stranger's file is never unpickled: its opcodes are walked
(`pickletools.genops` only parses them) and a handful of names are understood, those that numpy 1 and 2 write for
arrays, scalars and types under protocols 2 to 5. Whatever else a file names is refused by name. Nothing is
allocated by a size that a file claims: an array is as large as the bytes that stand in the file.
"""

import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_NAMES = {
    **{f"{module} _reconstruct": "reconstruct" for module in _MULTIARRAY},
    **{f"{module} scalar": "scalar" for module in _MULTIARRAY},
    **{f"{module} _frombuffer": "frombuffer" for module in _NUMERIC},
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    # How bytes are spelled in protocol 2, which has no opcode for them.
    "_codecs encode": "encode",
}
ITEM_BYTES = {"u1": 1, "i1": 1, "b1": 1, "f2": 2, "i2": 2, "f4": 4, "i4": 4, "f8": 8, "i8": 8}
_SCALARS = {"f2": "<e", "f4": "<f", "f8": "<d", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "u1": "<B"}
_MAX_DIMENSIONS = 8
_MAX_SIDE = 2**31


class PickleError(ValueError):
    """The pickle holds something else than arrays and numbers. `needs`: the Python object that it names, if any."""

    def __init__(self, message: str, needs: str | None = None) -> None:
        super().__init__(message)
        self.needs = needs


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


@dataclass(frozen=True)
class _Name:
    """A global that is understood, by what it does."""

    does: str


@dataclass
class _Type:
    kind: str


class _Unfilled:
    """What `_reconstruct` made; a BUILD gives it its content."""

    def __init__(self) -> None:
        self.array: Array | None = None


class _Mark:
    pass


def read_plain_pickle(content: bytes) -> dict[str, Any]:
    """The dict in the pickle: values are Array, numbers, and tuples of these. Raises PickleError."""
    try:
        return _Walk().walk(content)
    except PickleError:
        raise
    except (ValueError, OverflowError, struct.error) as error:  # pickletools, about bytes that are no pickle
        raise PickleError(f"the pickle is damaged ({str(error)[:120]})") from None


class _Walk:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.root: dict[str, Any] | None = None

    def walk(self, content: bytes) -> dict[str, Any]:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                break
            if opcode.name in _PUSHES_ITS_ARGUMENT:
                self.stack.append(argument)
            else:
                do = _DOES.get(opcode.name)
                if do is None:
                    raise PickleError(f"the pickle uses {opcode.name}, which no dict of arrays needs")
                do(self, argument)
        if self.root is None or len(self.stack) != 1 or self.stack[0] is not self.root:
            raise PickleError("the pickle does not hold one dict")
        return {name: self._plain(value) for name, value in self.root.items()}

    def _plain(self, value: Any) -> Any:
        if isinstance(value, _Unfilled) and value.array is not None:
            return value.array
        if isinstance(value, tuple):
            return tuple(self._leaf(part) for part in value)
        return self._leaf(value)

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, _Unfilled) and value.array is not None:
            return value.array
        if isinstance(value, Array | bool | int | float):
            return value
        raise PickleError(
            f"the pickle holds a {type(value).__name__.strip('_')} where a number or array belongs"
        )

    # ---- the stack

    def pop(self) -> Any:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise PickleError("the pickle is damaged (its stack is empty)")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if isinstance(item, _Mark):
                return items[::-1]
            items.append(item)
        raise PickleError("the pickle is damaged (it has no mark)")

    def top(self) -> Any:
        item = self.pop()
        self.stack.append(item)
        return item

    # ---- opcodes

    def push_tuple(self, num_items: int) -> None:
        items = [self.pop() for _ in range(num_items)]
        self.stack.append(tuple(items[::-1]))

    def push_dict(self, argument: Any) -> None:
        if self.root is not None:
            raise PickleError("the pickle holds a dict in a dict")
        self.root = {}
        self.stack.append(self.root)

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise PickleError("the pickle is damaged (it refers to nothing)")
        self.stack.append(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2 or self.top() is not self.root:
            raise PickleError("the pickle is damaged (items without their dict)")
        assert self.root is not None
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise PickleError(f"the pickle has a key that is a {type(key).__name__}, not a name")
            if key in self.root:
                raise PickleError(f"the pickle has the key {key[:80]!r} twice")
            self.root[key] = value

    def push_global(self, name: str) -> None:
        does = _NAMES.get(name)
        if does is None:
            needs = name[:200].replace(" ", ".")
            raise PickleError(f"the pickle needs the Python object {needs}", needs=needs)
        self.stack.append(_Name(does))

    def stack_global(self, argument: Any) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("the pickle is damaged (a global without a name)")
        self.push_global(f"{module} {name}")

    def reduce(self, argument: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if not (isinstance(name, _Name) and isinstance(arguments, tuple)):
            raise PickleError("the pickle calls something that is no function of numpy's")
        self.stack.append(_CALLS[name.does](*arguments))

    def build(self, argument: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, _Type):
            _check_type_state(state)
        elif (
            isinstance(target, _Unfilled)
            and target.array is None
            and isinstance(state, tuple)
            and len(state) == 5
        ):
            _, shape, kind, is_fortran, data = state
            target.array = _array(data, kind, shape, is_fortran)
        else:
            raise PickleError("the pickle sets the state of something that has none")


_PUSHES_ITS_ARGUMENT = {
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
}
_DOES: dict[str, Callable[[_Walk, Any], None]] = {
    "PROTO": lambda walk, _: None,
    "FRAME": lambda walk, _: None,
    "NONE": lambda walk, _: walk.stack.append(None),
    "NEWTRUE": lambda walk, _: walk.stack.append(True),
    "NEWFALSE": lambda walk, _: walk.stack.append(False),
    "MARK": lambda walk, _: walk.stack.append(_Mark()),
    "EMPTY_DICT": _Walk.push_dict,
    "EMPTY_TUPLE": lambda walk, _: walk.push_tuple(0),
    "TUPLE1": lambda walk, _: walk.push_tuple(1),
    "TUPLE2": lambda walk, _: walk.push_tuple(2),
    "TUPLE3": lambda walk, _: walk.push_tuple(3),
    "TUPLE": lambda walk, _: walk.stack.append(tuple(walk.pop_to_mark())),
    "MEMOIZE": lambda walk, _: walk.put(len(walk.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Walk.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Walk.get),
    "GLOBAL": _Walk.push_global,
    "STACK_GLOBAL": _Walk.stack_global,
    "REDUCE": _Walk.reduce,
    "BUILD": _Walk.build,
    "SETITEM": lambda walk, _: walk.set_items([walk.pop(), walk.pop()][::-1]),
    "SETITEMS": lambda walk, _: walk.set_items(walk.pop_to_mark()),
}


def _damaged() -> NoReturn:
    raise PickleError("the pickle describes an array as numpy never does")


def _array(data: Any, kind: Any, shape: Any, is_fortran: Any) -> Array:
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type) or not isinstance(shape, tuple):
        _damaged()
    if len(shape) > _MAX_DIMENSIONS or not all(type(side) is int and 0 <= side < _MAX_SIDE for side in shape):
        _damaged()
    claimed = math.prod(shape) * ITEM_BYTES[kind.kind]
    if claimed != len(data):
        raise PickleError(f"an array of {list(shape)} needs {claimed} bytes, and {len(data)} are there")
    return Array(kind.kind, shape, bytes(data), bool(is_fortran))


def _reconstruct(*arguments: Any) -> _Unfilled:
    if len(arguments) != 3 or arguments[0] != _Name("ndarray"):
        _damaged()
    return _Unfilled()


def _from_buffer(*arguments: Any) -> Array:
    if len(arguments) != 4:
        _damaged()
    data, kind, shape, order = arguments
    return _array(data, kind, shape, order == "F")


def _type(*arguments: Any) -> _Type:
    kind = arguments[0] if arguments else None
    if not isinstance(kind, str):
        _damaged()
    if kind not in ITEM_BYTES:
        raise PickleError(f"an array has the type {kind[:20]!r}; known are {', '.join(ITEM_BYTES)}")
    return _Type(kind)


def _check_type_state(state: Any) -> None:
    if not (isinstance(state, tuple) and len(state) >= 2):
        _damaged()
    if state[1] not in ("<", "|", "="):
        raise PickleError("an array is big-endian: save it on a little-endian machine")
    if any(part is not None for part in state[2:5]):
        raise PickleError("an array has fields: only plain numbers are read")


def _scalar(*arguments: Any) -> float | int:
    if len(arguments) != 2 or not isinstance(arguments[0], _Type) or not isinstance(arguments[1], bytes):
        _damaged()
    kind, data = arguments[0].kind, arguments[1]
    if kind not in _SCALARS or len(data) != ITEM_BYTES[kind]:
        _damaged()
    value: float | int = struct.unpack(_SCALARS[kind], data)[0]
    return value


def _encode(*arguments: Any) -> bytes:
    if len(arguments) != 2 or arguments[1] not in ("latin1", "latin-1") or not isinstance(arguments[0], str):
        _damaged()
    return arguments[0].encode("latin-1")


def _not_called(*arguments: Any) -> NoReturn:
    _damaged()


_CALLS: dict[str, Callable[..., Any]] = {
    "reconstruct": _reconstruct,
    "frombuffer": _from_buffer,
    "dtype": _type,
    "scalar": _scalar,
    "encode": _encode,
    "ndarray": _not_called,
}


# ---- writing


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
