"""Tensors as a file describes them, and whether what it says can be true. Exact integers; nothing is allocated.

dtypes are spelled as in safetensors (https://github.com/huggingface/safetensors): F32, BF16, I64, ...
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.gate.limits import Limits
from worker.gate.refusal import shown, unsafe

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    # Read, so that they can be refused by name.
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "C32": 4,
    "C64": 8,
    "C128": 16,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
}
KEPT = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""The dtypes of a canonical file."""


@dataclass(eq=False)
class Storage:
    """Bytes that tensors look into. `key`: where the container has them; `data`: they stood in the pickle itself."""

    key: str
    num_bytes: int
    data: bytes | memoryview | None = None


@dataclass(eq=False)
class Tensor:
    """`shape`, `strides` and `offset` count elements, as PyTorch's do."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: Storage

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * ITEM_BYTES[self.dtype]

    @property
    def is_contiguous(self) -> bool:
        """In C order. Of a side of 1 the stride means nothing."""
        return not self.num_elements or all(
            side == 1 or stride == wanted
            for side, stride, wanted in zip(self.shape, self.strides, c_strides(self.shape), strict=True)
        )


@dataclass
class Geometry:
    """Checks tensors one by one; all of one storage must agree on what its bytes are."""

    limits: Limits
    dtypes: dict[Storage, str] = field(default_factory=dict)

    def check(self, tensor: Tensor) -> None:
        """Raises Refused CHECKPOINT_UNSAFE naming the rule."""
        if len(tensor.shape) > self.limits.dimensions:
            raise unsafe("TENSOR_DIMENSIONS", f"a tensor has {len(tensor.shape)} dimensions")
        if len(tensor.strides) != len(tensor.shape):
            raise unsafe("TENSOR_GEOMETRY", "a tensor has more sides than strides, or fewer")
        numbers = (tensor.offset, *tensor.shape, *tensor.strides)
        if any(number < 0 for number in numbers):
            raise unsafe("TENSOR_GEOMETRY", "a tensor has a negative size, stride or offset")
        if any(side > self.limits.side for side in tensor.shape):
            raise unsafe("TENSOR_SIZE", f"a tensor claims the shape {shown(list(tensor.shape))}")
        if self.dtypes.setdefault(tensor.storage, tensor.dtype) != tensor.dtype:
            raise unsafe("STORAGE_RETYPED", "two tensors read the same bytes as different types")
        if not tensor.num_elements:
            return
        last = tensor.offset + sum(
            (side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if (last + 1) * ITEM_BYTES[tensor.dtype] > tensor.storage.num_bytes:
            raise unsafe(
                "TENSOR_OUT_OF_STORAGE",
                f"a tensor of {shown(list(tensor.shape))} reaches beyond the {tensor.storage.num_bytes} bytes that it "
                "looks into",
            )
        if _overlaps_itself(tensor):
            raise unsafe(
                "TENSOR_EXPANDED",
                f"a tensor of {shown(list(tensor.shape))} shows the same bytes as several elements",
                "Call .contiguous() on it before torch.save.",
            )


def check_total(tensors: Iterable[Tensor], file_bytes: int, limits: Limits) -> None:
    """Tensors may share bytes (tied weights), but not so that a small file becomes a large network."""
    total = sum(tensor.num_bytes for tensor in tensors)
    if total > limits.tensor_bytes:
        raise unsafe("TENSOR_BYTES", f"its tensors have {total} bytes, more than {limits.tensor_bytes}")
    if total > limits.aliasing * file_bytes + (1 << 20):
        raise unsafe("TENSOR_ALIASING", f"it has {file_bytes} bytes and claims tensors of {total}")


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two indices may mean one element: each stride must step over all that the smaller ones reach."""
    reach = 0
    sides = sorted(
        (stride, side) for stride, side in zip(tensor.strides, tensor.shape, strict=True) if side > 1
    )
    for stride, side in sides:
        if stride <= reach:
            return True
        reach += stride * (side - 1)
    return False


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor in C order."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)
