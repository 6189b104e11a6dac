"""The Python objects that a checkpoint may name, and the plain value that each becomes. No other name is taken.

What training scripts save beside the weights (options, counters, paths, times) becomes `Inert`: it is not
looked into. Weights become `Tensor`.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from worker.gate.refusal import Refused, is_code, shown, unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage, Tensor, c_strides


@dataclass(eq=False, slots=True)
class Inert:
    """A value that is carried along unread. `what` is for messages."""

    what: str


@dataclass(eq=False)
class Name:
    """A name on the list; `call` is what a call of it becomes."""

    name: str
    call: Callable[..., Any]


@dataclass(eq=False)
class NumpyType:
    """`numpy.dtype`. `dtype` is None for what is no plain number: text, objects, records."""

    dtype: str | None
    big_endian: bool = False


@dataclass(eq=False)
class UnfilledArray:
    """What numpy's `_reconstruct` makes; a BUILD gives it its content."""

    tensor: Tensor | Inert | None = None


def find(name: str) -> Name | None:
    """The entry of a dotted name, or None."""
    return _NAMES.get(name.replace("__builtin__.", "builtins.", 1))


def refusal(name: str) -> Refused:
    """Why a name that is not on the list is refused."""
    for pattern, rule, why in _FOREIGN:
        if re.fullmatch(pattern, name):
            return unreadable(rule, why)
    return is_code(
        "GLOBAL_FORBIDDEN",
        f"a pickle that needs the Python object {shown(name, 120)}: reading it would run its code",
    )


def build(target: Any, state: Any) -> None:
    """A BUILD: the attributes of `target`. Raises Refused where that could mean anything."""
    if isinstance(target, UnfilledArray) and target.tensor is None:
        target.tensor = _filled(state)
    elif isinstance(target, NumpyType):
        _check_type_state(target, state)
    elif isinstance(target, Inert):
        pass
    elif isinstance(target, dict) and (state is None or isinstance(state, dict | tuple)):
        pass  # a state_dict's _metadata, a Counter's attributes
    elif isinstance(target, Tensor) and isinstance(state, dict | tuple):
        raise unreadable("TENSOR_ATTRIBUTES", "a tensor in it has attributes of its own")
    else:
        raise is_code("BUILD_FORBIDDEN", "a pickle that sets the state of something that has none")


def _lies(what: str) -> NoReturn:
    raise unsafe("TENSOR_DAMAGED", f"its pickle describes {what} as no program writes it")


# ---- torch

_TYPED_STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
}
_TORCH_TYPES = {
    "float32": "F32",
    "float": "F32",
    "float64": "F64",
    "double": "F64",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int": "I32",
    "int16": "I16",
    "short": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}


@dataclass(eq=False)
class StorageType(Name):
    """`torch.FloatStorage` and the like: the dtype of a storage; never called."""

    dtype: str | None = None
    """None: bytes without a type."""


@dataclass(eq=False)
class TorchType(Name):
    """`torch.float32` and the like, a value; never called."""

    dtype: str = ""


@dataclass(eq=False)
class StorageView:
    """A storage with the type under which the pickle refers to it."""

    storage: Storage
    dtype: str | None


_MAX_SIDES = 64


def _not_called(*_: Any) -> NoReturn:
    raise is_code("REDUCE_FORBIDDEN", "a pickle that calls a type which PyTorch never calls when it loads")


def _numbers(value: Any) -> tuple[int, ...]:
    # More than numpy's 64 sides, and multiplying them alone would take half a minute.
    if isinstance(value, tuple) and len(value) > _MAX_SIDES:
        raise unsafe("TENSOR_DIMENSIONS", f"a tensor has {len(value)} dimensions")
    if not isinstance(value, tuple) or not all(
        type(number) is int and abs(number) < 2**62 for number in value
    ):
        _lies("the sides of a tensor")
    return value


def _rebuild_tensor(view: Any, offset: Any, size: Any, stride: Any, dtype: str) -> Tensor:
    if not isinstance(view, StorageView) or type(offset) is not int or abs(offset) >= 2**62:
        _lies("a tensor")
    return Tensor(dtype, _numbers(size), _numbers(stride), offset, view.storage)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)


def _rebuild_tensor_v2(*arguments: Any) -> Tensor:
    if len(arguments) not in (6, 7):
        _lies("a tensor")
    view, offset, size, stride, requires_grad, hooks, *metadata = arguments
    if not isinstance(view, StorageView) or view.dtype is None or type(requires_grad) is not bool:
        _lies("a tensor")
    if not _is_empty(hooks):
        raise is_code("TENSOR_HOOKS", "a pickle with a tensor that brings functions to call (backward hooks)")
    if not all(map(_is_empty, metadata)):
        raise unreadable("TENSOR_METADATA", "a tensor in it is conjugated, negated or of another backend")
    return _rebuild_tensor(view, offset, size, stride, view.dtype)


def _rebuild_tensor_v3(*arguments: Any) -> Tensor:
    if len(arguments) not in (7, 8):
        _lies("a tensor")
    view, offset, size, stride, requires_grad, hooks, dtype, *metadata = arguments
    if not isinstance(dtype, TorchType) or type(requires_grad) is not bool:
        _lies("a tensor")
    if not _is_empty(hooks):
        raise is_code("TENSOR_HOOKS", "a pickle with a tensor that brings functions to call (backward hooks)")
    if not all(map(_is_empty, metadata)):
        raise unreadable("TENSOR_METADATA", "a tensor in it is conjugated, negated or of another backend")
    return _rebuild_tensor(view, offset, size, stride, dtype.dtype)


def _rebuild_parameter(*arguments: Any) -> Tensor:
    if len(arguments) != 3 or not isinstance(arguments[0], Tensor) or type(arguments[1]) is not bool:
        _lies("a parameter")
    if not _is_empty(arguments[2]):
        raise is_code(
            "TENSOR_HOOKS", "a pickle with a parameter that brings functions to call (backward hooks)"
        )
    return arguments[0]


def _rebuild_parameter_with_state(*arguments: Any) -> Tensor:
    if len(arguments) != 4 or not _is_empty(arguments[3]):
        raise unreadable("TENSOR_ATTRIBUTES", "a parameter in it has attributes of its own")
    return _rebuild_parameter(*arguments[:3])


def _size(*arguments: Any) -> Any:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        _lies("a size")
    return arguments[0]


# ---- numpy: the course's files hold their weights so, training scripts their scores

_NUMPY_TYPES = {
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
    "i1": "I8",
    "i2": "I16",
    "i4": "I32",
    "i8": "I64",
    "u1": "U8",
    "b1": "BOOL",
    "u2": "U16",
    "u4": "U32",
    "u8": "U64",
    "c8": "C64",
    "c16": "C128",
    "?": "BOOL",
}
_SCALARS = {
    "F16": "<e",
    "F32": "<f",
    "F64": "<d",
    "I8": "<b",
    "I16": "<h",
    "I32": "<i",
    "I64": "<q",
    "U8": "<B",
    "U16": "<H",
    "U32": "<I",
    "U64": "<Q",
    "BOOL": "<?",
}


def _numpy_type(*arguments: Any) -> NumpyType:
    kind = arguments[0] if arguments else None
    if not isinstance(kind, str) or not re.fullmatch(
        r"[<>|=]?[?a-zA-Z][0-9]{0,7}(\[[a-zA-Z0-9]{1,8}\])?", kind
    ):
        _lies("a type of numpy's")
    return NumpyType(_NUMPY_TYPES.get(kind.lstrip("<>|=")), kind.startswith(">"))


def _check_type_state(target: NumpyType, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 2:
        _lies("a type of numpy's")
    target.big_endian = target.big_endian or state[1] == ">"
    if any(part is not None for part in state[2:5]):
        target.dtype = None  # a record of fields


def _elements(data: Any, kind: Any, shape: Any, in_fortran_order: bool) -> Tensor | Inert:
    if not isinstance(kind, NumpyType):
        _lies("an array of numpy's")
    if kind.dtype is None or not isinstance(data, bytes | memoryview):
        return Inert("array")
    if kind.big_endian and ITEM_BYTES[kind.dtype] > 1:
        raise unreadable("BIG_ENDIAN", "an array in it is big-endian: save it on a little-endian machine")
    sides = _numbers(shape)
    if any(side < 0 for side in sides):
        _lies("an array of numpy's")
    if math.prod(sides) * ITEM_BYTES[kind.dtype] != len(data):
        raise unsafe("ARRAY_SIZE", f"an array of {shown(list(sides))} has {len(data)} bytes in it")
    strides = c_strides(sides[::-1])[::-1] if in_fortran_order else c_strides(sides)
    return Tensor(kind.dtype, sides, strides, 0, Storage("", len(data), data))


def _filled(state: Any) -> Tensor | Inert:
    if not isinstance(state, tuple) or len(state) != 5:
        _lies("an array of numpy's")
    _, shape, kind, in_fortran_order, data = state
    return _elements(data, kind, shape, bool(in_fortran_order))


def _from_buffer(*arguments: Any) -> Tensor | Inert:
    if len(arguments) != 4:
        _lies("an array of numpy's")
    data, kind, shape, order = arguments
    return _elements(data, kind, shape, order == "F")


def _reconstruct(*arguments: Any) -> UnfilledArray:
    if len(arguments) != 3 or not isinstance(arguments[0], Name) or arguments[0].name != "numpy.ndarray":
        _lies("an array of numpy's")
    return UnfilledArray()


def _scalar(*arguments: Any) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], NumpyType):
        _lies("a number of numpy's")
    kind, data = arguments
    if kind.dtype not in _SCALARS or kind.big_endian or not isinstance(data, bytes | memoryview):
        return Inert("scalar")
    if len(data) != ITEM_BYTES[kind.dtype]:
        _lies("a number of numpy's")
    return struct.unpack(_SCALARS[kind.dtype], data)[0]


def _encode(*arguments: Any) -> bytes:
    """How protocol 2 spells bytes."""
    if len(arguments) != 2 or arguments[1] not in ("latin1", "latin-1") or not isinstance(arguments[0], str):
        raise unsafe("CODEC_FORBIDDEN", "its pickle encodes text in another way than Python's pickle does")
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        _lies("bytes")


# ---- what else training scripts keep


def _plain_dict(*arguments: Any) -> Any:
    """OrderedDict, Counter, defaultdict: a dict, of what is given or filled by SETITEMS later."""
    given = [argument for argument in arguments if isinstance(argument, dict)]
    return given[0] if given else {}  # not a copy: a million copies of one dict would be a bomb


def _inert(what: str) -> Callable[..., Inert]:
    return lambda *_: Inert(what)


_INERT = (
    *(
        "argparse.Namespace",
        "types.SimpleNamespace",
        "easydict.EasyDict",
        "builtins.complex",
        "builtins.slice",
    ),
    *(
        "builtins.set",
        "builtins.frozenset",
        "builtins.range",
        "builtins.bytearray",
        "builtins.bytes",
        "collections.deque",
    ),
    *("builtins.object", "builtins.list", "builtins.tuple"),
    *(
        f"pathlib.{kind}"
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *(
        f"pathlib._local.{kind}"
        for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone"),
    *("uuid.UUID", "decimal.Decimal", "fractions.Fraction", "torch.device"),
    "torch.torch_version.TorchVersion",
)
# Named as a default factory (`defaultdict(int)`) or as the type of a value; calling them makes nothing.
_TYPES = ("builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.dict", "builtins.type")

_FOREIGN = (
    (
        r"torch\.storage\._load_from_bytes",
        "PLAIN_PICKLE",
        "it was written by pickle.dump, which hides tensors in code; torch.save writes what can be read",
    ),
    (
        r"torch\._utils\._rebuild_(sparse_\w+|qtensor|nested_tensor|device_tensor\w*|meta_tensor\w*|wrapper_subclass|\w*xla\w*)",
        "TENSOR_KIND",
        "a tensor in it is sparse, quantized, nested, of another device or without values; plain dense tensors are read",
    ),
    (
        r"torch\.(Q\w+Storage|sparse\.\w+|storage\.\w+)|torch\._tensor\._rebuild_from_type(_v2)?",
        "TENSOR_KIND",
        "a tensor in it is quantized, sparse or of a class of its own; plain dense tensors are read",
    ),
)

_NAMES: dict[str, Name] = {
    name: Name(name, call)
    for name, call in {
        "collections.OrderedDict": _plain_dict,
        "collections.Counter": _plain_dict,
        "collections.defaultdict": _plain_dict,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
        "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
        "torch.Size": _size,
        "numpy.ndarray": _not_called,
        "numpy.dtype": _numpy_type,
        **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
        "_codecs.encode": _encode,
        **{name: _inert(name) for name in _INERT},
        **{name: _inert(name) for name in _TYPES},
    }.items()
}
_NAMES |= {
    f"torch.{name}": StorageType(f"torch.{name}", _not_called, dtype)
    for name, dtype in _TYPED_STORAGES.items()
}
_NAMES |= {
    f"torch.{name}": TorchType(f"torch.{name}", _not_called, dtype) for name, dtype in _TORCH_TYPES.items()
}
_NAMES["torch.storage.UntypedStorage"] = StorageType("torch.storage.UntypedStorage", _not_called)
_NAMES["torch.UntypedStorage"] = StorageType("torch.UntypedStorage", _not_called)
