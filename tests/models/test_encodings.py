"""Stored forms of tensors, against loops over plain Python numbers."""

import math
import struct
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from models import codebook, encodings, load_artifact


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
        (torch.ones(2), {"name": "minmax", "bits": 9}, "2 to 8 bits"),
        (torch.ones(2), {"name": "codebook", "bits": 1}, "2 to 8 bits"),
        (torch.ones(2), {"name": "symmetric", "axis": 1}, "axis 1"),
        (torch.ones(2), {"name": "minmax", "clip": "kl"}, "'kl'"),
        (torch.ones(2), {"name": "sparse", "values": {"name": "sparse", "values": {}}}, "unknown"),
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


# ------------------------------------------------------------------------------------ fewer bits, more grids

GRIDS = [(name, bits, axis) for name in ("minmax", "symmetric") for bits in range(2, 9) for axis in (None, 0)]


def _options(axis: int | None, **options: Any) -> dict[str, Any]:
    return options if axis is None else {"axis": axis, **options}


def _step(row: list[float], name: str, bits: int) -> float:
    """The finest grid that reaches over a row, worked out on Python numbers."""
    if name == "minmax":
        return (max(row) - min(row)) / (2**bits - 1)
    return max(max(row) / (2 ** (bits - 1) - 1), -min(row) / 2 ** (bits - 1))


@pytest.mark.parametrize(("name", "bits", "axis"), GRIDS)
def test_no_element_is_further_than_half_a_step(name: str, bits: int, axis: int | None) -> None:
    """Element by element; a grid by row may be 1 % coarser, as its numbers are stored in half precision."""
    tensor = _weights(6, 3, 5, seed=bits) * torch.tensor([1.0, 1e-2, 30.0, 1e-5, 0.0, 1.0])[:, None, None]
    tensor[5] += 7
    encoded = models.encode(tensor, {"name": name, "bits": bits, **_options(axis)})
    rows = tensor.flatten(1) if axis == 0 else tensor.reshape(1, -1)
    decoded = encoded.decode().reshape(rows.shape)
    for row, back in zip(rows.tolist(), decoded.tolist(), strict=True):
        half = _step(row, name, bits) / 2 * (1.01 if axis == 0 else 1)
        rounding = max(map(abs, row)) * torch.finfo(torch.float32).eps
        for value, found in zip(row, back, strict=True):
            assert abs(value - found) <= half + rounding


def _read_bits(data: bytes, bits: int, count: int) -> list[int]:
    """The documented stream, bit by bit."""
    return [
        sum(
            (data[(number * bits + bit) // 8] >> ((number * bits + bit) % 8) & 1) << bit
            for bit in range(bits)
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 13, 64])
def test_codes_are_packed_bit_after_bit(bits: int, count: int) -> None:
    """Three bits really take three bits."""
    codes = torch.randint(
        0, 2**bits, (count,), generator=torch.Generator().manual_seed(bits), dtype=torch.uint8
    )
    packed = encodings.pack_bits(codes, bits)
    assert packed.numel() == math.ceil(count * bits / 8)
    assert _read_bits(bytes(packed.tolist()), bits, count) == codes.tolist()
    assert torch.equal(load_artifact.unpack_bits(packed, bits, count), codes)


def test_long_streams_are_packed_in_pieces() -> None:
    codes = torch.randint(0, 8, (8 * (1 << 17) + 21,), dtype=torch.uint8)
    assert torch.equal(load_artifact.unpack_bits(encodings.pack_bits(codes, 3), 3, codes.numel()), codes)


@pytest.mark.parametrize(
    ("name", "bits", "axis"),
    [("minmax", 3, None), ("minmax", 5, 0), ("symmetric", 3, None), ("symmetric", 4, 0)],
)
def test_the_bytes_are_those_that_formats_md_describes(name: str, bits: int, axis: int | None) -> None:
    """Decoded by hand with struct, from docs/formats.md alone."""
    tensor = _weights(3, 7)
    encoded = models.encode(tensor, {"name": name, "bits": bits, **_options(axis)})
    data, encoding = bytes(encoded.data.tolist()), encoded.encoding
    shift = 2 ** (bits - 1) if name == "symmetric" else 0
    firsts = [0.0] * 3
    if axis is None:
        assert encoded.data.numel() == math.ceil(21 * bits / 8)
        steps = [encoding["scale"] if name == "symmetric" else None] * 3
        if name == "minmax":
            firsts = [encoding["minimum"]] * 3
            steps = [(encoding["maximum"] - encoding["minimum"]) / (2**bits - 1)] * 3
    else:
        assert encoding["numbers"] == "float16"
        if name == "minmax":
            firsts, data = list(struct.unpack("<3e", data[:6])), data[6:]
        steps, data = list(struct.unpack("<3e", data[:6])), data[6:]
        assert len(data) == math.ceil(21 * bits / 8)
    codes = _read_bits(data, bits, 21)
    expected = [firsts[n // 7] + (code - shift) * steps[n // 7] for n, code in enumerate(codes)]
    assert encoded.decode().flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_eight_bits_a_tensor_is_stored_as_ever() -> None:
    """One byte an element and four fields, which files of before have."""
    encoded = models.encode(torch.tensor([[0.0, 1.0], [0.25, 0.5]]), {"name": "minmax"})
    assert encoded.encoding == {"name": "minmax", "bits": 8, "minimum": 0.0, "maximum": 1.0}
    assert encoded.data.tolist() == [0, 255, 64, 128]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_encoding_again_changes_nothing(bits: int) -> None:
    """Values that 8 bits gave have the same minimum, maximum and codes, so importing and exporting is exact."""
    first = models.encode(_weights(50, 40, seed=bits, spread=3.0), {"name": "minmax", "bits": bits})
    second = models.encode(first.decode(), {"name": "minmax", "bits": bits})
    assert second.encoding == first.encoding
    assert torch.equal(second.data, first.data)


@pytest.mark.parametrize("name", ["minmax", "symmetric"])
def test_numbers_too_small_or_large_for_half_precision_are_stored_longer(name: str) -> None:
    """Steps and minima: 2 bytes each where that is exact enough, else 4, else 8."""
    found = {}
    for spread in (0.1, 1e-9, 1e8, 1e-44):
        tensor = _weights(4, 9, spread=spread)
        encoded = models.encode(tensor, {"name": name, "bits": 8, "axis": 0})
        found[spread] = encoded.encoding["numbers"]
        error = (encoded.decode() - tensor).abs().amax()
        assert error <= 1.01 * (tensor.amax() - tensor.amin()) / 2 / 100 + 1e-45
    assert found == {0.1: "float16", 1e-9: "float32", 1e8: "float32", 1e-44: "float64"}


@pytest.mark.parametrize("name", ["minmax", "symmetric", "codebook", "float8_e4m3"])
@pytest.mark.parametrize("axis", [None, 0])
def test_constant_tensors_are_safe(name: str, axis: int | None) -> None:
    options = _options(axis) if name in ("minmax", "symmetric") else {}
    for value in (0.0, -0.375, 2.0):
        tensor = torch.full((3, 4), value)
        decoded = models.encode(tensor, {"name": name, **options}).decode()
        assert torch.allclose(decoded, tensor, rtol=0.01), value
    mixed = torch.stack([torch.zeros(4), torch.arange(4.0)])
    assert models.encode(mixed, {"name": name, **options}).decode()[0].tolist() == [0.0] * 4


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_keeps_zero_zero(bits: int) -> None:
    tensor = _weights(8, 8)
    tensor[tensor.abs() < 0.05] = 0
    for axis in (None, 0):
        decoded = models.encode(tensor, {"name": "symmetric", "bits": bits, **_options(axis)}).decode()
        assert (decoded[tensor == 0] == 0).all()


@pytest.mark.parametrize("name", ["minmax", "symmetric"])
@pytest.mark.parametrize("axis", [None, 0])
def test_clipping_never_errs_more_and_mostly_less(name: str, axis: int | None) -> None:
    """Against a search over Python's own loops: no span it tried for a row has a smaller squared error."""
    tensor = _weights(5, 400, seed=4)
    tensor[0, 0] = 0.8  # an outlier, that clipping is for
    tensor[1] = torch.linspace(-0.3, 0.3, 400)  # nothing to clip
    tensor[2] = 0.25
    errors = {}
    for clip in ("none", "mse"):
        decoded = models.encode(tensor, {"name": name, "bits": 3, "clip": clip, **_options(axis)}).decode()
        squared = (tensor - decoded).double().square()
        errors[clip] = squared.sum(1) if axis == 0 else squared.sum()[None]
    assert (errors["mse"] <= errors["none"]).all()
    assert errors["mse"][0] < 0.7 * errors["none"][0]
    if (name, axis) == ("symmetric", 0):
        best = min(_squared_error_of(tensor[0].tolist(), step / 1000) for step in range(20, 700))
        assert float(errors["mse"][0]) <= 1.1 * best


def _squared_error_of(row: list[float], step: float) -> float:
    return sum((value - step * min(max(round(value / step), -4), 3)) ** 2 for value in row)


def test_float8_is_e4m3_times_a_scale() -> None:
    """Three bits of mantissa: a relative error of 1/16 at most among the normal numbers; the largest is exact."""
    tensor = _weights(1000)
    encoded = models.encode(tensor, {"name": "float8_e4m3"})
    assert encoded.data.numel() == 1000
    scale = float(tensor.abs().max()) / 448
    assert encoded.encoding == {"name": "float8_e4m3", "scale": pytest.approx(scale)}
    is_normal = tensor.abs() >= scale * 2**-6
    relative = ((encoded.decode() - tensor).abs() / tensor.abs())[is_normal]
    assert is_normal.sum() > 900
    assert 0.04 < float(relative.max()) <= 1 / 16 + 1e-6
    assert encoded.decode().abs().max() == pytest.approx(float(tensor.abs().max()))


def test_bf16_is_the_upper_half_of_a_float() -> None:
    tensor = torch.tensor([1.0, -0.15625, 3.0e38, 1e-30])
    encoded = models.encode(tensor, {"name": "bf16"})
    assert encoded.data.numel() == 8
    assert [int.from_bytes(bytes(encoded.data[n : n + 2].tolist()), "little") for n in (0, 2)] == [
        0x3F80,
        0xBE20,
    ]
    assert torch.allclose(encoded.decode(), tensor, rtol=2**-8)
    assert models.encode(torch.tensor([torch.finfo(torch.float32).max]), {"name": "bf16"}).encoding == {
        "name": "raw"
    }


# ------------------------------------------------------------------------------------------------- codebooks


def _lloyd(values: list[float], size: int) -> list[float]:
    """k-means as the textbook has it, one value at a time, from evenly spread centres."""
    low, high = min(values), max(values)
    centres = [low + (high - low) * k / (size - 1) for k in range(size)]
    while True:
        groups: list[list[float]] = [[] for _ in centres]
        for value in values:
            distances = [abs(value - centre) for centre in centres]
            groups[distances.index(min(distances))].append(value)
        moved = [
            sum(group) / len(group) if group else centre
            for group, centre in zip(groups, centres, strict=True)
        ]
        if max(abs(a - b) for a, b in zip(moved, centres, strict=True)) < 1e-12:
            return [centre for group, centre in zip(groups, centres, strict=True) if group]
        centres = moved


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_k_means_ends_where_a_naive_lloyd_does(size: int) -> None:
    values = _weights(120, seed=size).double()
    assert codebook.k_means(values, size).tolist() == pytest.approx(_lloyd(values.tolist(), size), abs=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_codebook_errs_less_than_even_levels(bits: int) -> None:
    tensor = _weights(4000)
    error = {
        name: float((models.encode(tensor, {"name": name, "bits": bits}).decode() - tensor).square().sum())
        for name in ("codebook", "minmax")
    }
    assert error["codebook"] < error["minmax"]


def test_a_codebook_stores_few_different_values_as_they_are() -> None:
    tensor = torch.tensor([0.5, -1.0, 0.0, 0.5, 0.5, -1.0])
    encoded = models.encode(tensor, {"name": "codebook", "bits": 2})
    assert torch.equal(encoded.decode(), tensor)
    assert encoded.encoding == {"name": "codebook", "bits": 2, "size": 3, "numbers": "float16"}
    assert encoded.data.numel() == 3 * 2 + 2


# --------------------------------------------------------------------------------------------------- sparsity


@pytest.mark.parametrize(
    "values",
    [
        {"name": "raw"},
        {"name": "fp16"},
        {"name": "float8_e4m3"},
        {"name": "minmax", "bits": 4},
        {"name": "minmax", "bits": 8, "axis": 0},
        {"name": "symmetric", "bits": 3, "axis": 0},
        {"name": "codebook", "bits": 3},
    ],
    ids=lambda v: f"{v['name']}-{v.get('bits')}-{v.get('axis')}",
)
def test_sparse_costs_a_bit_for_a_zero_and_keeps_it(values: dict[str, Any]) -> None:
    """Zeros come back exactly, whatever the other elements are stored as; those err as they do by themselves."""
    tensor = _weights(6, 21)
    tensor[torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)) < 0.7] = 0
    tensor[2] = 0  # a row of nothing
    encoded = models.encode(tensor, {"name": "sparse", "values": values})
    decoded = encoded.decode()
    assert (decoded[tensor == 0] == 0).all()
    kept = [(row, back) for row, back in zip(tensor, decoded, strict=True) if row.any()]
    for row, back in kept:
        if values.get("axis") == 0:
            inner = models.encode(row[row != 0], {**values, "axis": None}).decode()
            assert torch.allclose(
                back[row != 0],
                inner,
                atol=0.02 * float(row.abs().max())
                + 0.5 * _step(row[row != 0].tolist(), values["name"], values["bits"]),
            )
    if "axis" not in values:
        assert torch.equal(decoded[tensor != 0], models.encode(tensor[tensor != 0], values).decode())
    num_bits = {"raw": 32, "fp16": 16, "float8_e4m3": 8}.get(values["name"]) or values["bits"]
    numbers = {"minmax": 24, "symmetric": 12}.get(values["name"], 0) if values.get("axis") == 0 else 0
    numbers += 2 * 8 if values["name"] == "codebook" else 0
    count = int((tensor != 0).sum())
    assert encoded.data.numel() == math.ceil(tensor.numel() / 8) + math.ceil(count * num_bits / 8) + numbers


def test_an_all_zero_tensor_is_a_map_of_nothing() -> None:
    for values in ({"name": "fp16"}, {"name": "minmax"}, {"name": "codebook"}):
        encoded = models.encode(torch.zeros(4, 4), {"name": "sparse", "values": values})
        assert torch.equal(encoded.decode(), torch.zeros(4, 4))


# ------------------------------------------------------------------------------------------------ hostile data

_ROWS = {"name": "minmax", "bits": 4, "axis": 0, "numbers": "float32"}
_NAN = [0, 0, 192, 127]


@pytest.mark.parametrize(
    ("encoding", "shape", "data", "message"),
    [
        ({"name": "minmax", "bits": 9, "minimum": 0.0, "maximum": 1.0}, [8], [0] * 9, "bits"),
        ({"name": "minmax", "bits": 1, "minimum": 0.0, "maximum": 1.0}, [8], [0], "bits"),
        ({"name": "minmax", "bits": True, "minimum": 0.0, "maximum": 1.0}, [8], [0], "bits"),
        ({"name": "minmax", "bits": 4, "minimum": 1.0, "maximum": 0.0}, [8], [0] * 4, "minimum <= maximum"),
        ({"name": "minmax", "bits": 4, "minimum": 0, "maximum": 1.0}, [8], [0] * 4, "finite float"),
        ({"name": "minmax", "bits": 3, "minimum": 0.0, "maximum": 1.0}, [9], [0] * 3, "needs 4"),
        ({**_ROWS, "axis": 1}, [2, 2], [0] * 18, "axis"),
        ({**_ROWS, "numbers": "int8"}, [2, 2], [0] * 18, "numbers"),
        ({**_ROWS, "minimum": 0.0}, [2, 2], [0] * 18, "unknown fields"),
        (_ROWS, [2, 2], [0] * 17, "needs 18"),
        (_ROWS, [], [0] * 18, "axis 0"),
        (_ROWS, [0, 4], [], "axis 0"),
        (_ROWS, [2, 2], [*_NAN, *[0] * 14], "finite"),
        (_ROWS, [2, 2], [*[0] * 12, *_NAN, 0, 0], "finite"),
        (_ROWS, [2, 2], [*[0] * 12, 0, 0, 128, 191, 0, 0], "negative step"),
        ({"name": "symmetric", "bits": 4, "scale": float("nan")}, [2], [0], "scale"),
        ({"name": "symmetric", "bits": 4, "scale": -1.0}, [2], [0], "scale"),
        ({"name": "float8_e4m3", "scale": float("inf")}, [2], [0, 0], "scale"),
        ({"name": "codebook", "bits": 2, "size": 5, "numbers": "float16"}, [2], [0] * 11, "tell apart"),
        ({"name": "codebook", "bits": 2, "size": 0, "numbers": "float16"}, [2], [0], "size"),
        ({"name": "codebook", "bits": 2, "size": 3, "numbers": "float16"}, [2], [0] * 6 + [15], "lacks"),
        ({"name": "codebook", "bits": 2, "size": 1, "numbers": "float32"}, [2], [*_NAN, 0], "finite"),
        ({"name": "sparse", "values": {"name": "fp16"}}, [9], [1], "map alone"),
        ({"name": "sparse", "values": {"name": "fp16"}}, [9], [1, 0, 0], "needs 2"),
        ({"name": "sparse", "values": {"name": "fp16"}}, [9], [1, 2, 0, 0], "beyond"),
        (
            {"name": "sparse", "values": {"name": "sparse", "values": {"name": "raw"}}},
            [8],
            [0],
            "another sparse",
        ),
        ({"name": "sparse", "values": {"name": "zip"}}, [8], [0], "zip"),
        ({"name": "sparse", "values": {}}, [8], [0], "unknown"),
        ({"name": "sparse", "values": "raw"}, [8], [0], "not an encoding"),
        ({"name": "bf16", "scale": 1.0}, [1], [0, 0], "unknown fields"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_bytes_that_lie_are_refused(encoding: dict, shape: list[int], data: list[int], message: str) -> None:
    with pytest.raises(models.GraphError, match=message):
        load_artifact.decode(encoding, shape, "float32", torch.tensor(data, dtype=torch.uint8))
