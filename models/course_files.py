"""The files of NTU Machine Learning 2020, homework 7 ("network compression"): pickles of numpy arrays by name.

* 8 bits: name -> (minimum, maximum, uint8 array), value = minimum + q / 255 * (maximum - minimum) in float64; a
  scalar is a float64. A constant tensor's q mean nothing there: the course's encoder divides 0 by 0.
* 16 bits: name -> float16 array.

Read and written without numpy (`plain_pickle`). Ours differ from the course's in what its encoder would break:
integers and half-precision overflows are arrays of their own type, which its decoders pass through.
"""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from .encodings import encode
from .load_artifact import Encoded, Network
from .plain_pickle import Array, PickleError, read_plain_pickle, write_plain_pickle

_DTYPES = {
    "u1": torch.uint8,
    "i1": torch.int8,
    "b1": torch.bool,
    "f2": torch.float16,
    "i2": torch.int16,
    "f4": torch.float32,
    "i4": torch.int32,
    "f8": torch.float64,
    "i8": torch.int64,
}
_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}
_MINMAX_PER_TENSOR = {"name", "bits", "minimum", "maximum"}


def read_course_file(content: bytes) -> dict[str, Tensor | Encoded]:
    """Tensors by name; those of 8 and 16 bits in the form they are stored in, which decodes to float32.

    Scalars are float64 tensors [] (an integer counter has become one there). Raises PickleError for any other
    content, and for a range that is not finite or upside down.
    """
    values = read_plain_pickle(content)
    # Each name brings its own bytes. Without this a few bytes, referred to a million times, would fill the memory.
    if sum(array.num_elements for array in _arrays(values)) > len(content):
        raise PickleError(
            "several names share one array, so that the file claims more elements than it has bytes"
        )
    return {name: _read(name, value) for name, value in values.items()}


def _arrays(values: dict[str, Any]) -> list[Array]:
    flat = [part for value in values.values() for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in flat if isinstance(part, Array)]


def _read(name: str, value: Any) -> Tensor | Encoded:
    if isinstance(value, tuple):
        return _read_minmax(name, value)
    if not isinstance(value, Array):
        return torch.tensor(float(value), dtype=torch.float64)
    tensor = _tensor(value)
    if value.kind == "f2" and value.num_elements:
        return Encoded({"name": "fp16"}, list(value.shape), "float32", _bytes_of(tensor))
    return tensor


def _read_minmax(name: str, value: tuple[Any, ...]) -> Encoded:
    if len(value) != 3 or not isinstance(value[2], Array) or value[2].kind != "u1":
        raise PickleError(f"{name[:80]!r} is no (minimum, maximum, uint8 array)")
    low, high, array = value
    if isinstance(low, Array) or isinstance(high, Array):
        raise PickleError(f"{name[:80]!r} has an array for its minimum or maximum")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise PickleError(
            f"{name[:80]!r} has the range {low!r} to {high!r}: the network that was saved was broken"
        )
    encoding = {"name": "minmax", "bits": 8, "minimum": float(low), "maximum": float(high)}
    return Encoded(encoding, list(array.shape), "float32", _bytes_of(_tensor(array)))


def _tensor(array: Array) -> Tensor:
    dtype = _DTYPES[array.kind]
    if not array.num_elements:
        return torch.empty(array.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(array.data), dtype=torch.uint8).view(dtype)
    if not array.fortran:
        return flat.reshape(array.shape)
    return flat.reshape(array.shape[::-1]).permute(*range(len(array.shape))[::-1]).contiguous()


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8).clone()


def write_course_8bit(network: Network) -> bytes:
    """Every tensor with dimensions as (minimum, maximum, uint8 array), every scalar as float64.

    What is stored in 8 bits with one range a tensor already is written as it stands. Raises ValueError naming the
    tensor that holds NaN or infinity.
    """
    return write_plain_pickle({name: _write_8bit(network, name, t) for name, t in _state(network)})


def write_course_16bit(network: Network) -> bytes:
    """Every tensor with dimensions as a float16 array (float32 where half precision would overflow)."""
    return write_plain_pickle({name: _write_16bit(tensor) for name, tensor in _state(network)})


def _state(network: Network) -> list[tuple[str, Tensor]]:
    return [(name, tensor.detach().cpu()) for name, tensor in network.state_dict().items()]


def _write_8bit(network: Network, name: str, tensor: Tensor) -> float | Array | tuple[float, float, Array]:
    if tensor.dim() == 0:
        return float(tensor.item())
    if not tensor.is_floating_point() or not tensor.numel():
        return _array(tensor)
    stored = network.encoded.get(name)
    if stored is None or set(stored.encoding) != _MINMAX_PER_TENSOR or stored.encoding["bits"] != 8:
        try:
            stored = encode(tensor, {"name": "minmax", "bits": 8})
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
    array = Array("u1", tuple(stored.shape), _raw(stored.data))
    return stored.encoding["minimum"], stored.encoding["maximum"], array


def _write_16bit(tensor: Tensor) -> float | Array:
    if tensor.dim() == 0:
        return float(tensor.item())
    if not tensor.is_floating_point():
        return _array(tensor)
    half = tensor.half()
    return _array(tensor.float() if bool((half.isinf() & ~tensor.isinf()).any()) else half)


def _array(tensor: Tensor) -> Array:
    return Array(_KINDS[tensor.dtype], tuple(tensor.shape), _raw(tensor.contiguous()))


def _raw(tensor: Tensor) -> bytes:
    """The tensor's memory, without numpy."""
    return (
        ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size()) if tensor.numel() else b""
    )
