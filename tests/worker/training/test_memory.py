"""Running out of memory: what counts as that, and how a batch is divided."""

import pytest
import torch

from worker.training.memory import is_out_of_memory, parts_of


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 7 bytes."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_the_allocators_errors_are_known(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_allocation_that_is_too_large_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    ("num_images", "num_parts", "lengths"),
    [(8, 1, [8]), (8, 2, [4, 4]), (7, 2, [4, 3]), (7, 8, [3, 2, 2]), (3, 4, [3]), (1, 2, [1])],
)
def test_parts_cover_the_batch_and_none_is_a_single_image(num_images, num_parts, lengths):
    parts = list(parts_of(num_images, num_parts))
    assert [part.stop - part.start for part in parts] == lengths
    assert torch.cat([torch.arange(num_images)[part] for part in parts]).tolist() == list(range(num_images))
