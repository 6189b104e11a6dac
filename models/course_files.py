"""The files of NTU Machine Learning 2020, homework 7 ("network compression"): pickles of numpy arrays by name.

* 8 bits: name -> (minimum, maximum, uint8 array), value = minimum + q / 255 * (maximum - minimum) in float64; a
  scalar is a float64. A constant tensor's q mean nothing there: the course's encoder divides 0 by 0.
* 16 bits: name -> float16 array.

Written without numpy (`plain_pickle`); read by the gate, as every upload. Ours differ from the course's in what its encoder
would break: integers and half-precision overflows are arrays of their own type, which its decoders pass through.
"""

import ctypes

import torch
from torch import Tensor

from .encodings import encode
from .load_artifact import Network
from .plain_pickle import Array, write_plain_pickle

_KINDS = {
    torch.uint8: "u1",
    torch.int8: "i1",
    torch.bool: "b1",
    torch.float16: "f2",
    torch.int16: "i2",
    torch.float32: "f4",
    torch.int32: "i4",
    torch.float64: "f8",
    torch.int64: "i8",
}
_MINMAX_PER_TENSOR = {"name", "bits", "minimum", "maximum"}


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
