"""safetensors, with limits of our own: https://github.com/huggingface/safetensors#format.

Its library refuses structural lies, but took 36 s and 1.5 GB for a header of a million empty tensors.
"""

import json
import os
import struct
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from worker.gate.limits import Limits
from worker.gate.refusal import shown, unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage, Tensor, c_strides

_LENGTH = struct.Struct("<Q")


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a length and the brace of a JSON object begin the file."""
    return len(head) > 9 and head[8:9] == b"{" and _LENGTH.unpack(head[:8])[0] < 1 << 40


@dataclass
class Safetensors:
    """Tensors by name, in the file's order; `open` gives a tensor's bytes."""

    tensors: dict[str, Tensor]
    file: BinaryIO
    start: int

    def open(self, storage: Storage, first: int) -> AbstractContextManager[BinaryIO]:
        self.file.seek(self.start + int(storage.key) + first)
        return nullcontext(self.file)


def read_safetensors(file: BinaryIO, limits: Limits) -> Safetensors:
    """Parse and check the header. Raises Refused."""
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    (length,) = _LENGTH.unpack(file.read(8))
    if length > limits.safetensors_header_bytes:
        raise unsafe(
            "HEADER_BYTES", f"its header has {length} bytes, more than {limits.safetensors_header_bytes}"
        )
    if 8 + length > file_bytes:
        raise unreadable("HEADER_TRUNCATED", "it ends within its header; was the upload complete?")
    header = _parsed(file.read(length))
    if len(header) > limits.tensors + 1:
        raise unsafe("TENSOR_COUNT", f"it has {len(header)} tensors, more than {limits.tensors}")
    _check_metadata(header.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry, limits) for name, entry in header.items()}
    _check_layout(list(tensors.values()), file_bytes - 8 - length)
    return Safetensors(tensors, file, 8 + length)


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        value = json.loads(header.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise unreadable("HEADER_JSON", f"its header is no JSON ({shown(error)})") from None
    if not isinstance(value, dict):
        raise unreadable("HEADER_JSON", "its header is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise unsafe("KEY_DUPLICATE", "its header has a name twice")
    return value


def _no_constant(_: str) -> NoReturn:
    raise unreadable("HEADER_JSON", "its header holds NaN or Infinity")


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise unreadable("HEADER_METADATA", "its __metadata__ is no object of strings")


def _tensor(name: str, entry: Any, limits: Limits) -> Tensor:
    """A tensor whose storage is named by its first byte."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise unreadable("HEADER_ENTRY", f"the entry of {shown(name)} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise unreadable("DTYPE_UNKNOWN", f"the tensor {shown(name)} has the type {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > limits.dimensions:
        raise unsafe(
            "TENSOR_DIMENSIONS", f"the tensor {shown(name)} has no shape of at most {limits.dimensions} sides"
        )
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**62 for number in numbers
        ):
            raise unsafe(
                "TENSOR_GEOMETRY", f"the tensor {shown(name)} has a side or an offset that is no such number"
            )
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise unsafe("TENSOR_GEOMETRY", f"the tensor {shown(name)} has no data_offsets [first, last]")
    sides = tuple(shape)
    tensor = Tensor(dtype, sides, c_strides(sides), 0, Storage(str(offsets[0]), offsets[1] - offsets[0]))
    if tensor.num_bytes != tensor.storage.num_bytes:
        raise unsafe(
            "STORAGE_SIZE",
            f"the tensor {shown(name)} claims {tensor.num_bytes} bytes and has {tensor.storage.num_bytes}",
        )
    return tensor


def _check_layout(tensors: list[Tensor], data_bytes: int) -> None:
    """Each byte belongs to exactly one tensor."""
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (int(tensor.storage.key), tensor.num_bytes)):
        if int(tensor.storage.key) != position:
            raise unsafe("STORAGE_LAYOUT", "its tensors overlap, or leave holes")
        position += tensor.num_bytes
    if position > data_bytes:
        raise unreadable(
            "DATA_TRUNCATED",
            f"its tensors need {position} bytes and {data_bytes} are there; was the upload complete?",
        )
    if position != data_bytes:
        raise unsafe("STORAGE_LAYOUT", f"{data_bytes - position} bytes belong to none of its tensors")
