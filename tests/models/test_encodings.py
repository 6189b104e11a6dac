"""Stored forms of tensors, against loops over plain Python numbers."""

import math
import struct

import pytest
import torch
from torch import Tensor

import models


def _weights(*shape: int, seed: int = 0, spread: float = 0.1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


def _as_float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.mark.parametrize(
    "tensor",
    [
        _weights(3, 4),
        _weights(5).double(),
        _weights(5).half(),
        _weights(5).bfloat16(),
        torch.arange(7),
        torch.tensor(True),
        torch.empty(0, 3),
        torch.tensor(12345),
        _weights(4, 6).t(),
    ],
    ids=lambda t: f"{t.dtype}{list(t.shape)}",
)
def test_raw_gives_back_every_dtype_and_shape(tensor: Tensor) -> None:
    encoded = models.encode(tensor, {"name": "raw"})
    assert encoded.decode().dtype == tensor.dtype
    assert torch.equal(encoded.decode(), tensor)
    assert encoded.data.numel() == tensor.numel() * tensor.element_size()


def test_fp16_is_two_bytes_a_number_and_rounds_as_ieee_half() -> None:
    tensor = _weights(50)
    encoded = models.encode(tensor, {"name": "fp16"})
    assert encoded.data.numel() == 100
    assert encoded.decode().tolist() == [struct.unpack("e", struct.pack("e", v))[0] for v in tensor.tolist()]
    assert encoded.decode().dtype == torch.float32


def test_fp16_keeps_what_it_cannot_hold_raw() -> None:
    for tensor in (torch.tensor([1.0, 70000.0]), torch.arange(3)):
        encoded = models.encode(tensor, {"name": "fp16"})
        assert encoded.encoding == {"name": "raw"}
        assert torch.equal(encoded.decode(), tensor)


def test_minmax_equals_a_loop_over_python_numbers() -> None:
    tensor = _weights(40)
    encoded = models.encode(tensor, {"name": "minmax", "bits": 8})
    low, high = min(tensor.tolist()), max(tensor.tolist())
    expected = []
    for value, q in zip(tensor.tolist(), encoded.data.tolist(), strict=True):
        assert abs(q - (value - low) / (high - low) * 255) <= 0.5
        expected.append(_as_float32(low + q * (high - low) / 255))
    assert encoded.decode().tolist() == expected


@pytest.mark.parametrize(
    "tensor",
    [
        _weights(64, 3, 3, 3),
        _weights(100_000, spread=3.0),
        1000 + _weights(1000),
        _weights(1000, spread=1e-30),
        torch.tensor([-3e38, 1.0, 3e38]),
        _weights(1000).half(),
    ],
    ids=["weights", "many", "far from zero", "tiny", "huge", "half"],
)
def test_minmax_error_is_at_most_half_a_level(tensor: Tensor) -> None:
    """(max - min) / 510, plus the rounding of the decoded value to the tensor's own dtype."""
    values = tensor.double()
    decoded = models.encode(tensor, {"name": "minmax"}).decode()
    level = float(values.max() - values.min()) / 255
    rounding = float(values.abs().max()) * torch.finfo(tensor.dtype).eps / 2
    assert float((decoded.double() - values).abs().max()) <= level / 2 * (1 + 1e-12) + rounding
    assert decoded.dtype == tensor.dtype


@pytest.mark.parametrize("value", [0.0, -1.5, 3e38, 1e-45, 0.1])
def test_a_constant_tensor_survives_minmax_exactly(value: float) -> None:
    tensor = torch.full((4, 2), value)
    assert torch.equal(models.encode(tensor, {"name": "minmax"}).decode(), tensor)


@pytest.mark.parametrize("to", ["int8", "uint8"])
def test_cast_truncates_and_wraps_as_a_c_cast(to: str) -> None:
    tensor = torch.tensor([0.9, -0.9, 1.5, -1.5, 127.9, 128.0, 255.0, 256.0, -129.0, -300.7, 1e6])
    expected = []
    for value in tensor.tolist():
        byte = math.trunc(value) % 256
        expected.append(float(byte - 256 if to == "int8" and byte > 127 else byte))
    assert models.encode(tensor, {"name": "cast", "to": to}).decode().tolist() == expected


def test_cast_zeroes_ordinary_weights() -> None:
    """Why it is the negative control."""
    decoded = models.encode(_weights(1000), {"name": "cast", "to": "int8"}).decode()
    assert float((decoded == 0).float().mean()) > 0.95


@pytest.mark.parametrize(
    ("tensor", "encoding", "message"),
    [
        (torch.ones(2), {"name": "zip"}, "unknown"),
        (torch.ones(2), {"name": "minmax", "bits": 4}, "8 bits"),
        (torch.tensor([1.0, float("nan")]), {"name": "minmax"}, "NaN"),
        (torch.tensor([1.0, float("inf")]), {"name": "cast"}, "infinity"),
        (torch.ones(2, dtype=torch.int64), {"name": "minmax"}, "floating-point"),
        (torch.empty(0), {"name": "minmax"}, "with elements"),
        (torch.ones(2), {"name": "cast", "to": "int4"}, "int4"),
    ],
)
def test_what_an_encoding_cannot_hold_is_refused(tensor: Tensor, encoding: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.encode(tensor, encoding)
