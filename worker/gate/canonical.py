"""The one form in which a checkpoint is kept: safetensors, names sorted, every tensor contiguous.

The same weights give the same bytes, whatever container, prefix, order or strides they came in. Workers open only this.
"""

import array
import itertools
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, BinaryIO

from worker.gate.limits import Limits
from worker.gate.refusal import unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage, Tensor, c_strides

Open = Callable[[Storage], AbstractContextManager[IO[bytes]]]
"""A storage's bytes as a stream, from its begin; there may be more behind them."""

_CHUNK = 1 << 20
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def write_canonical(tensors: dict[str, Tensor], open_storage: Open, path: Path, limits: Limits) -> None:
    """Write the file. Raises Refused when a storage is shorter than it was said to be."""
    names = sorted(tensors)
    with path.open("wb") as out:
        header = _header({name: tensors[name] for name in names})
        out.write(struct.pack("<Q", len(header)) + header)
        for name in names:
            _write(tensors[name], open_storage, out, limits)


def _header(tensors: dict[str, Tensor]) -> bytes:
    entries, position = {}, 0
    for name, tensor in tensors.items():
        end = position + tensor.num_bytes
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # as the library pads it, so that data are aligned


def _write(tensor: Tensor, open_storage: Open, out: BinaryIO, limits: Limits) -> None:
    if not tensor.num_elements:
        return
    if tensor.is_contiguous:
        first = tensor.offset * ITEM_BYTES[tensor.dtype]
        for chunk in _chunks(tensor.storage, first, first + tensor.num_bytes, open_storage):
            out.write(chunk)
        return
    if tensor.storage.num_bytes > limits.reordered_bytes:
        raise unsafe(
            "TENSOR_STRIDES",
            f"a tensor that is not contiguous looks into {tensor.storage.num_bytes} bytes",
            "Call .contiguous() on it before torch.save.",
        )
    out.write(_in_c_order(tensor, open_storage))


def _chunks(storage: Storage, first: int, end: int, open_storage: Open) -> Iterator[bytes | memoryview]:
    """The bytes of a storage from `first` up to `end`."""
    if storage.data is not None:
        yield storage.data[first:end]
        return
    with open_storage(storage) as stream:
        for skipped, count in ((True, first), (False, end - first)):
            while count:
                chunk = stream.read(min(count, _CHUNK))
                if not chunk:
                    raise unreadable("DATA_TRUNCATED", "it ends within a tensor; was the upload complete?")
                if not skipped:
                    yield chunk
                count -= len(chunk)


def _in_c_order(tensor: Tensor, open_storage: Open) -> "array.array[int]":
    """The elements in C order. Rows along the longest side move at once, as slices with a step."""
    code = _CODES[ITEM_BYTES[tensor.dtype]]
    source = array.array(code)
    for chunk in _chunks(tensor.storage, 0, tensor.storage.num_bytes, open_storage):
        source.frombytes(chunk)
    target = array.array(code, bytes(tensor.num_bytes))
    steps = c_strides(tensor.shape)
    longest = max(range(len(tensor.shape)), key=lambda axis: tensor.shape[axis])
    side, read_step, write_step = tensor.shape[longest], tensor.strides[longest], steps[longest]
    others = [axis for axis in range(len(tensor.shape)) if axis != longest]
    for index in itertools.product(*(range(tensor.shape[axis]) for axis in others)):
        read = tensor.offset + sum(i * tensor.strides[axis] for i, axis in zip(index, others, strict=True))
        write = sum(i * steps[axis] for i, axis in zip(index, others, strict=True))
        target[write : write + (side - 1) * write_step + 1 : write_step] = source[
            read : read + (side - 1) * read_step + 1 : read_step
        ]
    return target
