"""How many bytes a network's file has before it is finished: for budgets.

The file is really packed, with everything that the job puts beside the network (`Run.packed_with`), because what deflate
makes of graph and index cannot be reckoned.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from app.spec.budget import StoredBits
from models import Encoded, Network, encode, pack
from worker.quantization.stored_form import (
    check_finite,
    in_half,
    keeping_zeros,
    loses_variance,
    pays_as_sparse,
)
from worker.run import Run

# A grid's minimum and maximum, counters and digests deflate a few bytes more or less than their stand-ins.
_SLACK = 64


def packed_bytes(network: Network, bits: StoredBits, run: Run) -> int:
    """Bytes of the job's file with this network, stored as a `quantize` step stores at `bits` by default. Raises Problem 422
    NOT_QUANTIZABLE where a tensor holds NaN or infinity."""
    check_finite(network.state_dict())
    return _packed(
        network, {name: default_form(name, tensor, bits) for name, tensor in _state(network).items()}, run
    )


def most_packed_bytes(network: Network, bits: StoredBits, run: Run) -> int:
    """As `packed_bytes`, whatever the values of the weights: random bits, which do not deflate.

    A new network's own weights would not do: its norms are all ones and zeros, and weights from a normal distribution
    deflate better at 8 bits than what training makes of them may.
    """
    generator = torch.Generator().manual_seed(0)
    encoded = {
        name: _incompressible(name, tensor, bits, generator) for name, tensor in _state(network).items()
    }
    return _packed(network, encoded, run) + _SLACK


def least_weight_bytes(network: Network, bits: StoredBits) -> int:
    """Of the parameters alone, before deflating: no more than `most_packed_bytes`, and at once."""
    return sum(_bits_of(tensor, bits) * tensor.numel() // 8 for tensor in network.parameters())


def default_form(name: str, tensor: Tensor, bits: StoredBits) -> Encoded:
    """What a `quantize` step of the scheme minmax (2 to 8 bits) or fp16 (16) makes of a tensor; raw at 32 bits."""
    if bits == 32:
        return encode(tensor, {"name": "raw"})
    if not _is_weight(tensor):
        return in_half(name, tensor)
    encoding = _weight_encoding(bits)
    stored = encode(tensor, keeping_zeros(encoding) if pays_as_sparse(tensor, bits) else encoding)
    return in_half(name, tensor) if loses_variance(name, tensor, stored.decode()) else stored


def _is_weight(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() >= 2 and tensor.numel() > 0


def _weight_encoding(bits: StoredBits) -> dict[str, Any]:
    return {"name": "minmax", "bits": bits} if bits <= 8 else {"name": "fp16"}


def _bits_of(tensor: Tensor, bits: StoredBits) -> int:
    return bits if _is_weight(tensor) else min(max(bits, 16), 8 * tensor.element_size())


def _incompressible(name: str, tensor: Tensor, bits: StoredBits, generator: torch.Generator) -> Encoded:
    """Other values of the same shape and type, whose stored form is random."""
    if not tensor.is_floating_point():
        # Tables of positions and the like stay; a counter of batches is whatever training makes it.
        is_counter = name.endswith("num_batches_tracked")
        counted = torch.randint(1 << 24, tensor.shape, generator=generator).to(tensor.dtype)
        return encode(counted if is_counter else tensor, {"name": "raw"})
    if bits <= 8 and _is_weight(tensor):
        codes = torch.rand(tensor.shape, generator=generator).to(tensor.dtype)
        return encode(codes, _weight_encoding(bits))
    if bits == 32 or tensor.dim() == 0:
        return encode(_random_bits(tensor, tensor.dtype, generator), {"name": "raw"})
    return encode(_random_bits(tensor, torch.float16, generator).to(tensor.dtype), {"name": "fp16"})


def _random_bits(like: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Finite numbers: all bits are random but the exponent's highest, which is 0."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    limits = torch.iinfo(whole)
    bits = torch.randint(limits.min, limits.max, like.shape, generator=generator, dtype=whole)
    return (bits & ~(1 << (8 * dtype.itemsize - 2))).view(dtype)


def _state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def _packed(network: Network, encoded: dict[str, Encoded], run: Run) -> int:
    stored = copy.deepcopy(network).to("cpu").eval()
    stored.load_state_dict({name: each.decode() for name, each in encoded.items()})
    stored.encoded = {name: each for name, each in encoded.items() if each.encoding["name"] != "raw"}
    packed = pack(
        stored,
        preprocessing=network.preprocessing,
        class_names=run.data.class_names,
        **run.packed_with,
    )
    return len(packed)
