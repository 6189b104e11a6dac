"""Running out of memory: a batch in parts, without changing what a step computes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_SIGNS = (
    "not enough memory",  # the CPU's allocator on Windows and macOS
    "DefaultCPUAllocator",  # and on Linux
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised this because memory ran out; the CPU's allocator and cuBLAS have no type of their own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def parts_of(num_images: int, num_parts: int) -> Iterator[slice]:
    """`num_images` rows in `num_parts` runs whose lengths differ by at most one; fewer where a part would have a
    single image, on which batch normalisation cannot train."""
    num_parts = max(min(num_parts, num_images // 2), 1)
    start = 0
    for part in range(num_parts):
        stop = start + num_images // num_parts + (part < num_images % num_parts)
        yield slice(start, stop)
        start = stop


class Buffers:
    """A network's buffers as they are now: running means that a failed forward pass has moved can be put back."""

    def __init__(self, network: nn.Module) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, value in self._kept:
            buffer.copy_(value)
