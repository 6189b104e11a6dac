"""Tensors that say other things than are there: sizes, strides, offsets, types, whose bytes they read."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from tests.corpus.case import Case
from tests.corpus.checkpoints.calls import saved
from tests.corpus.checkpoints.containers import NUMBERS, STATE, WEIGHT, checkpoint, zip_of, zipped
from tests.corpus.checkpoints.opcodes import (
    FALSE,
    HOOKS,
    NONE,
    TRUE,
    call,
    dict_of,
    integer,
    list_of,
    name,
    numbers,
    persistent,
    pickled,
    state,
    storage,
    tensor,
    text,
    tuple_of,
)
from tests.corpus.checkpoints.verdicts import dtype, is_code, unreadable, unsafe


def cases() -> Iterator[Case]:
    yield from _shapes()
    yield from _storages()
    yield from _arguments()
    yield from _types()
    yield from _kinds()


def _shapes() -> Iterator[Case]:
    shapes: dict[str, tuple[bytes, str]] = {
        "stride 0 over 100 GB": (tensor((25_000_000_000,), (0,)), "TENSOR_SIZE"),
        "stride 0 over a million": (tensor((1_000_000,), (0,)), "TENSOR_EXPANDED"),
        "stride 0 in one of two": (tensor((2, 2), (0, 1)), "TENSOR_EXPANDED"),
        "rows that overlap": (tensor((2, 3), (1, 1)), "TENSOR_EXPANDED"),
        "a window that slides": (tensor((2, 2), (1, 1)), "TENSOR_EXPANDED"),
        "a negative stride": (tensor((4,), (-1,), 3), "TENSOR_GEOMETRY"),
        "a negative offset": (tensor((4,), (1,), -4), "TENSOR_GEOMETRY"),
        "a negative size": (tensor((-4,), (1,)), "TENSOR_GEOMETRY"),
        "two negative sizes": (tensor((-2, -2), (2, 1)), "TENSOR_GEOMETRY"),
        "an offset past the end": (tensor((4,), (1,), 1), "TENSOR_OUT_OF_STORAGE"),
        "an offset far past the end": (tensor((1,), (1,), 2**40), "TENSOR_OUT_OF_STORAGE"),
        "one element more than there are": (tensor((5,), (1,)), "TENSOR_OUT_OF_STORAGE"),
        "a stride past the end": (tensor((2,), (4,)), "TENSOR_OUT_OF_STORAGE"),
        "a product beyond 2**64 that wraps to 4": (
            tensor((2**30, 2**30, 2**4, 4), (0, 0, 0, 1)),
            "TENSOR_EXPANDED",
        ),
        "sizes whose product wraps to 0": (tensor((2**31, 2**31, 4), (1, 1, 1)), "TENSOR_OUT_OF_STORAGE"),
        "more strides than sizes": (tensor((4,), (1, 1)), "TENSOR_GEOMETRY"),
        "fewer strides than sizes": (tensor((2, 2), (1,)), "TENSOR_GEOMETRY"),
        "nine dimensions": (tensor((1,) * 8 + (4,)), "TENSOR_DIMENSIONS"),
        "1,000 dimensions": (tensor((1,) * 999 + (4,)), "TENSOR_DIMENSIONS"),
        "empty, with a side of 2**40": (tensor((0, 2**40), (1, 1)), "TENSOR_SIZE"),
    }
    for what, (value, rule) in shapes.items():
        yield unsafe(f"tensor: {what}", partial(zip_of, pickled(state(("w", value)))), rule)
    huge = {"size": ((2**62,), (1,), 0), "stride": ((1,), (2**63,), 0), "offset": ((1,), (1,), 2**63)}
    for what, (shape, strides, offset) in huge.items():
        value = tensor(shape, strides, offset)
        yield unsafe(f"tensor: a {what} beyond 62 bits", partial(zip_of, pickled(state(("w", value)))))
    both = state(("w", WEIGHT), ("x", tensor(of=storage("IntStorage"))))
    yield unsafe("tensor: two read the same bytes as floats and as integers", partial(zip_of, pickled(both)))
    halves = state(("w", WEIGHT), ("x", tensor((8,), of=storage("HalfStorage", count=8))))
    yield unsafe("tensor: two read the same bytes as floats and as halves", partial(zip_of, pickled(halves)))


def _storages() -> Iterator[Case]:
    claims: dict[str, tuple[bytes, str]] = {
        "more elements than are there": (storage(count=1 << 20), "STORAGE_SIZE"),
        "fewer elements than are there": (storage(count=3), "STORAGE_SIZE"),
        "2**47 elements": (storage(count=2**47), "STORAGE_SIZE"),
        "2**63 elements": (storage(count=2**63), "STORAGE_SIZE"),
        "a negative number of elements": (storage(count=-4), "STORAGE_SIZE"),
        "elements that wrap to the right number of bytes": (storage(count=2**62 + 4), "STORAGE_SIZE"),
        "doubles where floats are": (storage("DoubleStorage"), "STORAGE_SIZE"),
        "bytes where floats are": (storage("ByteStorage"), "STORAGE_SIZE"),
        "a key that is not in the file": (storage(key="7"), "STORAGE_MISSING"),
        "a key that is a path": (storage(key="../../../../etc/passwd"), "STORAGE_MISSING"),
        "a key that is another member": (storage(key="../data.pkl"), "STORAGE_MISSING"),
        "an empty key": (storage(key=""), "STORAGE_MISSING"),
        "something that is no storage": (
            persistent(text("module"), name("torch.FloatStorage"), text("0"), text("cpu"), integer(4)),
            "STORAGE_ID",
        ),
        "two parts": (persistent(text("storage"), text("0")), "STORAGE_ID"),
        "no parts": (persistent(), "STORAGE_ID"),
        "a list of parts": (list_of(text("storage")) + b"Q", "STORAGE_ID"),
        "a number": (integer(5) + b"Q", "STORAGE_ID"),
        "a type by its name": (
            persistent(text("storage"), text("FloatStorage"), text("0"), text("cpu"), integer(4)),
            "STORAGE_ID",
        ),
        "a function for its type": (
            persistent(text("storage"), name("torch.Size"), text("0"), text("cpu"), integer(4)),
            "STORAGE_ID",
        ),
        "a number for its key": (
            persistent(text("storage"), name("torch.FloatStorage"), integer(0), text("cpu"), integer(4)),
            "STORAGE_ID",
        ),
        "a dict for its place": (
            persistent(text("storage"), name("torch.FloatStorage"), text("0"), b"}", integer(4)),
            "STORAGE_ID",
        ),
        "a text for its size": (
            persistent(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), text("4")),
            "STORAGE_SIZE",
        ),
        "True for its size": (
            persistent(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), TRUE),
            "STORAGE_SIZE",
        ),
    }
    for what, (value, rule) in claims.items():
        whole = pickled(state(("w", tensor(of=value))))
        yield unsafe(f"storage: it claims {what}", partial(zip_of, whole), rule)
    yield unsafe(
        "storage: the member is empty", partial(zipped, checkpoint(STATE, {"0": b""})), "STORAGE_SIZE"
    )
    yield unsafe(
        "storage: the member ends early",
        partial(zipped, checkpoint(STATE, {"0": NUMBERS[:-1]})),
        "STORAGE_SIZE",
    )
    outside = state(("w", storage()))
    yield unreadable("storage: it stands where a tensor belongs", partial(zip_of, pickled(outside)))


def _arguments() -> Iterator[Case]:
    """Calls that torch.save does not write."""
    rebuild = "torch._utils._rebuild_tensor_v2"
    good = (storage(), integer(0), numbers((4,)), numbers((1,)), FALSE, HOOKS)

    def with_argument(index: int, value: bytes) -> bytes:
        return call(rebuild, *good[:index], value, *good[index + 1 :])

    strange = {
        "no arguments": call(rebuild),
        "nine arguments": call(rebuild, *good, NONE, NONE, NONE),
        "a number for its storage": with_argument(0, integer(0)),
        "another tensor for its storage": with_argument(0, WEIGHT),
        "a text for its offset": with_argument(1, text("0")),
        "a float for its offset": with_argument(1, b"G" + bytes(8)),
        "True for its offset": with_argument(1, TRUE),
        "a list for its size": with_argument(2, list_of(integer(4))),
        "floats in its size": with_argument(2, tuple_of(b"G\x40\x10" + bytes(6))),
        "booleans in its size": with_argument(2, tuple_of(TRUE)),
        "a dict for its strides": with_argument(3, b"}"),
        "a text for requires_grad": with_argument(4, text("yes")),
        "a number for requires_grad": with_argument(4, integer(1)),
    }
    for what, value in strange.items():
        yield unsafe(f"tensor: {what}", partial(zip_of, pickled(state(("w", value)))), "TENSOR_DAMAGED")
    hooks = with_argument(5, dict_of((integer(0), text("hook"))))
    yield is_code("tensor: backward hooks", partial(zip_of, pickled(state(("w", hooks)))), "TENSOR_HOOKS")
    listed = with_argument(5, list_of(text("hook")))
    yield is_code(
        "tensor: a list of backward hooks", partial(zip_of, pickled(state(("w", listed)))), "TENSOR_HOOKS"
    )
    conjugated = call(rebuild, *good, dict_of((text("conj"), TRUE)))
    yield unreadable(
        "tensor: it is conjugated", partial(zip_of, pickled(state(("w", conjugated)))), "TENSOR_METADATA"
    )
    version_3 = call(
        "torch._utils._rebuild_tensor_v3",
        persistent(
            text("storage"), name("torch.storage.UntypedStorage"), text("0"), text("cpu"), integer(16)
        ),
        *good[1:],
        text("float32"),
    )
    yield unsafe(
        "tensor: a text for its type", partial(zip_of, pickled(state(("w", version_3)))), "TENSOR_DAMAGED"
    )


def _types() -> Iterator[Case]:
    odd: dict[str, Callable[[], torch.Tensor]] = {
        "complex64": lambda: torch.zeros(2, dtype=torch.complex64),
        "complex128": lambda: torch.zeros(2, dtype=torch.complex128),
        "float8_e4m3fn": lambda: torch.zeros(2).to(torch.float8_e4m3fn),
        "float8_e5m2": lambda: torch.zeros(2).to(torch.float8_e5m2),
        "uint16": lambda: torch.zeros(2, dtype=torch.uint16),
        "uint64": lambda: torch.zeros(2, dtype=torch.uint64),
    }
    for what, make in odd.items():
        yield dtype(f"weights in {what}", lambda make=make: saved({"w": make()}), "TENSOR_DTYPE")


def _kinds() -> Iterator[Case]:
    """Tensors that are more, or less, than numbers in memory, as PyTorch writes them."""
    odd: dict[str, Callable[[], Any]] = {
        "sparse COO": lambda: torch.eye(3).to_sparse(),
        "sparse CSR": _sparse_csr,
        "quantized": _quantized,
        "meta": lambda: torch.empty(2, 2, device="meta"),
        "nested": _nested,
        "conjugated": lambda: torch.zeros(2, dtype=torch.complex64).conj(),
    }
    for what, make in odd.items():
        if what == "conjugated":  # complex as well: refused for what is seen first
            yield Case(
                f"a {what} tensor", lambda make=make: saved({"w": make()}), 422, "CHECKPOINT_UNREADABLE"
            )
            continue
        yield unreadable(f"a {what} tensor", lambda make=make: saved({"w": make()}), "TENSOR_KIND")
    yield unreadable("a tensor with an attribute", lambda: saved({"w": _with_attribute()}))


def _quietly(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these kinds are in beta, or on their way out
        return make()


def _sparse_csr() -> torch.Tensor:
    return _quietly(lambda: torch.eye(3).to_sparse_csr())


def _quantized() -> torch.Tensor:
    return _quietly(lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))


def _nested() -> torch.Tensor:
    return _quietly(lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))


def _with_attribute() -> torch.Tensor:
    tensor_ = torch.nn.Parameter(torch.zeros(2))
    tensor_.origin = "elsewhere"  # type: ignore[attr-defined]
    return tensor_
