"""The one form in which a checkpoint is kept: safetensors, names sorted, every tensor contiguous.

The same weights give the same bytes, whatever container, prefix, order or strides they came in. Workers open only this.
"""

import array
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from worker.gate.limits import Limits
from worker.gate.refusal import unreadable, unsafe
from worker.gate.tensors import ITEM_BYTES, Storage, Tensor, c_strides
from worker.whole_files import appears_whole

Open = Callable[[Storage, int], AbstractContextManager[IO[bytes]]]
"""A storage's bytes as a stream, from the byte of that number on; there may be more behind them."""

_CHUNK = 1 << 20
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def write_canonical(tensors: dict[str, Tensor], open_storage: Open, path: Path, limits: Limits) -> None:
    """Write the file, whole or not at all. Raises Refused when a storage is shorter than it was said to be."""
    names = sorted(tensors)
    _check_reordered([tensor for tensor in tensors.values() if not tensor.is_contiguous], limits)
    with appears_whole(path) as out:
        header = _header({name: tensors[name] for name in names})
        out.write(struct.pack("<Q", len(header)) + header)
        for name in names:
            _write(tensors[name], open_storage, out)


def _check_reordered(tensors: list[Tensor], limits: Limits) -> None:
    """What is not in C order is held in memory, and moved in a loop of Python's."""
    most = max((_reach(tensor) * ITEM_BYTES[tensor.dtype] for tensor in tensors), default=0)
    rows = sum(tensor.num_elements // max(tensor.shape) for tensor in tensors)
    if most > limits.reordered_bytes or rows > limits.reordered_rows:
        raise unsafe(
            "TENSOR_STRIDES",
            f"its tensors that are not contiguous look into {most} bytes, by {rows} rows",
            "Call .contiguous() on them before torch.save.",
        )


def _header(tensors: dict[str, Tensor]) -> bytes:
    entries, position = {}, 0
    for name, tensor in tensors.items():
        end = position + tensor.num_bytes
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # as the library pads it, so that data are aligned


def _write(tensor: Tensor, open_storage: Open, out: IO[bytes]) -> None:
    if not tensor.num_elements:
        return
    if not tensor.is_contiguous:
        out.write(_in_c_order(tensor, open_storage))
        return
    for chunk in _chunks(tensor, tensor.num_bytes, open_storage):
        out.write(chunk)


def _chunks(tensor: Tensor, count: int, open_storage: Open) -> Iterator[bytes | memoryview]:
    """`count` bytes of a tensor's storage, from its first element on."""
    first = tensor.offset * ITEM_BYTES[tensor.dtype]
    if tensor.storage.data is not None:
        yield tensor.storage.data[first : first + count]
        return
    with open_storage(tensor.storage, first) as stream:
        while count:
            chunk = stream.read(min(count, _CHUNK))
            if not chunk:
                raise unreadable("DATA_TRUNCATED", "it ends within a tensor; was the upload complete?")
            yield chunk
            count -= len(chunk)


def _whole_items(chunks: Iterator[bytes | memoryview], item_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces that end where an element ends: a deflated stream stops anywhere."""
    rest = b""
    for chunk in chunks:
        piece = rest + chunk
        whole = len(piece) - len(piece) % item_bytes
        rest = piece[whole:]
        yield piece[:whole]
    assert not rest


def _reach(tensor: Tensor) -> int:
    """Elements of the storage from the tensor's first to its last."""
    return 1 + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))


def _in_c_order(tensor: Tensor, open_storage: Open) -> "array.array[int]":
    """The elements in C order. Rows along the longest side move at once, as slices with a step."""
    code = _CODES[ITEM_BYTES[tensor.dtype]]
    source = array.array(code)
    for chunk in _whole_items(
        _chunks(tensor, _reach(tensor) * source.itemsize, open_storage), source.itemsize
    ):
        source.frombytes(chunk)
    target = array.array(code, bytes(tensor.num_bytes))
    steps = c_strides(tensor.shape)
    longest = max(range(len(tensor.shape)), key=lambda axis: tensor.shape[axis])
    side, read_step, write_step = tensor.shape[longest], tensor.strides[longest], steps[longest]
    reads, writes = (
        _row_starts(tensor.shape, tensor.strides, longest),
        _row_starts(tensor.shape, steps, longest),
    )
    for read, write in zip(reads, writes, strict=True):
        target[write : write + (side - 1) * write_step + 1 : write_step] = source[
            read : read + (side - 1) * read_step + 1 : read_step
        ]
    return target


def _row_starts(shape: tuple[int, ...], strides: tuple[int, ...], along: int) -> list[int]:
    """Where each row along an axis begins, in elements."""
    starts = [0]
    for axis, (side, stride) in enumerate(zip(shape, strides, strict=True)):
        if axis != along:
            starts = [start + index * stride for start in starts for index in range(side)]
    return starts
