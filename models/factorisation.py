"""Layers as candidates for factorisation: what each rank costs and keeps, and the chain of layers it gives.

Three schemes (`low_rank.py` has the papers and the mathematics), each exact at full rank, whatever the stride, padding,
padding mode and dilation:

* `svd`: linear I→O into I→R→O; a 1x1 convolution likewise.
* `spatial_svd`: a k x k convolution into k x 1, I→R, and 1 x k, R→O.
* `tucker2`: a k x k convolution into 1x1, I→R; k x k, R→S; 1x1, S→O. At R = I or S = O that 1x1 would be a mere rotation:
  it is left out, and the core takes it in.

Only the last piece has a bias, and only where the layer had one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import low_rank
from .surgery import Piece

Ranks = tuple[int, ...]


class Options(NamedTuple):
    """What a layer can become, one entry a choice of ranks."""

    ranks: Tensor
    """int64 [K, 1], or [K, 2] for Tucker-2: input and output channels of the core."""
    parameters: Tensor
    """int64 [K], bias included."""
    energy: Tensor
    """float64 [K]: the share of the weight's squared norm that is kept, from 0 to 1."""


class Factorisable(ABC):
    """One layer under one scheme. `type` and `arguments` as the graph has them; `weight` [O, I, ...]."""

    scheme: str

    def __init__(self, type: str, arguments: dict[str, Any], weight: Tensor, bias: Tensor | None) -> None:
        self.type = type
        self.arguments = arguments
        self.weight = weight.detach().to("cpu", torch.float64)
        self.bias = None if bias is None else bias.detach()
        self.num_outputs, self.num_inputs = weight.shape[:2]
        self.num_biases = 0 if bias is None else bias.numel()

    @property
    def num_parameters(self) -> int:
        return self.weight.numel() + self.num_biases

    @property
    @abstractmethod
    def largest_rank(self) -> int: ...

    @abstractmethod
    def parameters(self, ranks: Tensor) -> Tensor:
        """[K] of ranks [K, 1 or 2]: how many parameters the chain has, bias included."""

    def size(self, ranks: Ranks) -> int:
        """The same for one choice of ranks."""
        return int(self.parameters(torch.tensor([ranks])))

    @abstractmethod
    def options(self) -> Options:
        """Every choice of ranks."""

    @abstractmethod
    def ranks(self, rank: int) -> Ranks:
        """One number as ranks of this scheme; at most `largest_rank`."""

    @abstractmethod
    def chain(self, ranks: Ranks) -> tuple[list[Piece], float]:
        """The layers that take the layer's place, and the relative error of the weight that they make together."""

    def _of_matrix(self, energies: Tensor) -> Options:
        """Options of a scheme that keeps the first r singular values."""
        ranks = torch.arange(1, len(energies) + 1)[:, None]
        return Options(ranks, self.parameters(ranks), _shares(energies.cumsum(0)))

    def _ended(self, *pieces: Piece) -> list[Piece]:
        """The pieces, the last one with the layer's bias."""
        last = pieces[-1]
        if self.bias is not None:
            last = last._replace(
                arguments={**last.arguments, "bias": True}, values={**last.values, "bias": self.bias}
            )
        return [*pieces[:-1], last]

    def _convolution(self, suffix: str, weight: Tensor, **changes: Any) -> Piece:
        """A convolution without bias, of stride 1 and no padding unless `changes` says otherwise."""
        arguments = {
            "in_channels": weight.shape[1],
            "out_channels": weight.shape[0],
            "kernel_size": list(weight.shape[2:]),
            "bias": False,
            **changes,
        }
        return Piece(suffix, "Conv2d", arguments, {"weight": weight})

    def _window(self, *axes: int) -> dict[str, Any]:
        """Stride, padding and dilation of the layer along the axes (0 height, 1 width), neutral along the others."""
        neutral = {"stride": 1, "padding": 0, "dilation": 1}
        found: dict[str, Any] = {"padding_mode": self.arguments.get("padding_mode", "zeros")}
        for key, default in neutral.items():
            value = self.arguments.get(key, default)
            if isinstance(value, str):  # "same" and "valid" say the same of every axis
                found[key] = value
                continue
            pair = value if isinstance(value, list) else [value, value]
            found[key] = [pair[axis] if axis in axes else default for axis in (0, 1)]
        return found


class Svd(Factorisable):
    """A linear layer or a 1x1 convolution."""

    scheme = "svd"

    @property
    def largest_rank(self) -> int:
        return min(self.num_outputs, self.num_inputs)

    def ranks(self, rank: int) -> Ranks:
        return (rank,)

    def parameters(self, ranks: Tensor) -> Tensor:
        return ranks[:, 0] * (self.num_inputs + self.num_outputs) + self.num_biases

    def options(self) -> Options:
        return self._of_matrix(low_rank.squared_singular_values(self.weight.flatten(1)))

    def chain(self, ranks: Ranks) -> tuple[list[Piece], float]:
        (rank,) = ranks
        left_OR, right_RI = low_rank.low_rank(self.weight.flatten(1), rank)
        error = low_rank.relative_error(self.weight, left_OR @ right_RI)
        if self.type == "Linear":
            reduce = self._linear("reduce", right_RI)
            return self._ended(reduce, self._linear("expand", left_OR)), error
        # The stride comes first: fewer positions are left for both.
        reduce = self._convolution("reduce", right_RI[:, :, None, None], **self._window(0, 1))
        return self._ended(reduce, self._convolution("expand", left_OR[:, :, None, None])), error

    def _linear(self, suffix: str, weight: Tensor) -> Piece:
        num_outputs, num_inputs = weight.shape
        arguments = {"in_features": num_inputs, "out_features": num_outputs, "bias": False}
        return Piece(suffix, "Linear", arguments, {"weight": weight})


class SpatialSvd(Factorisable):
    """A k x k convolution, k x 1 first."""

    scheme = "spatial_svd"

    @property
    def largest_rank(self) -> int:
        height, width = self.weight.shape[2:]
        return min(self.num_inputs * height, self.num_outputs * width)

    def ranks(self, rank: int) -> Ranks:
        return (rank,)

    def parameters(self, ranks: Tensor) -> Tensor:
        height, width = self.weight.shape[2:]
        return ranks[:, 0] * (self.num_inputs * height + self.num_outputs * width) + self.num_biases

    def options(self) -> Options:
        return self._of_matrix(low_rank.squared_singular_values(low_rank.spatial_matrix(self.weight)))

    def chain(self, ranks: Ranks) -> tuple[list[Piece], float]:
        vertical, horizontal = low_rank.spatial_svd(self.weight, *ranks)
        error = low_rank.relative_error(self.weight, low_rank.spatial_product(vertical, horizontal))
        first = self._convolution("vertical", vertical, **self._window(0))
        return self._ended(first, self._convolution("horizontal", horizontal, **self._window(1))), error


class Tucker2(Factorisable):
    """A k x k convolution, between two 1x1 ones."""

    scheme = "tucker2"

    @property
    def largest_rank(self) -> int:
        return max(self.num_outputs, self.num_inputs)

    def ranks(self, rank: int) -> Ranks:
        """(input, output) channels of the core; each at most what the layer has."""
        return min(rank, self.num_inputs), min(rank, self.num_outputs)

    def parameters(self, ranks: Tensor) -> Tensor:
        inputs, outputs = ranks.unbind(1)
        reduce = torch.where(inputs < self.num_inputs, inputs * self.num_inputs, 0)
        expand = torch.where(outputs < self.num_outputs, outputs * self.num_outputs, 0)
        core = inputs * outputs * self.weight[0, 0].numel()
        return reduce + core + expand + self.num_biases

    def options(self) -> Options:
        """Every pair of ranks; the energies are HOSVD's, which HOOI then only betters."""
        outputs, inputs = torch.meshgrid(
            torch.arange(1, self.num_outputs + 1), torch.arange(1, self.num_inputs + 1), indexing="ij"
        )
        ranks = torch.stack([inputs, outputs], dim=-1).reshape(-1, 2)
        energy = _shares(low_rank.tucker2_energies(self.weight))
        return Options(ranks, self.parameters(ranks), energy.reshape(-1))

    def chain(self, ranks: Ranks) -> tuple[list[Piece], float]:
        rank_in, rank_out = ranks
        basis_OR, core, basis_IR = low_rank.tucker2(self.weight, rank_out, rank_in)
        error = low_rank.relative_error(self.weight, low_rank.tucker2_product(basis_OR, core, basis_IR))
        pieces = self._pieces(basis_OR, core, basis_IR)
        return self._ended(*pieces), error

    def _pieces(self, basis_OR: Tensor, core: Tensor, basis_IR: Tensor) -> Iterator[Piece]:
        keeps_inputs = basis_IR.shape[1] == self.num_inputs
        keeps_outputs = basis_OR.shape[1] == self.num_outputs
        if keeps_inputs:
            core = torch.einsum("rshw,is->rihw", core, basis_IR)
        else:
            yield self._convolution("reduce", basis_IR.T[:, :, None, None])
        if keeps_outputs:
            core = torch.einsum("rshw,or->oshw", core, basis_OR)
        yield self._convolution("core", core, **self._window(0, 1))
        if not keeps_outputs:
            yield self._convolution("expand", basis_OR[:, :, None, None])


def _shares(energies: Tensor) -> Tensor:
    """Energies, the last of which is the whole, as shares of it; a weight of zeros loses nothing."""
    whole = energies.reshape(-1)[-1]
    return energies / whole if whole > 0 else torch.ones_like(energies)


@dataclass(frozen=True)
class Unfit:
    """Why a layer cannot be factorised under a scheme."""

    reason: str


SCHEMES: dict[str, type[Factorisable]] = {each.scheme: each for each in (Svd, SpatialSvd, Tucker2)}


def factorisable(
    layer: dict[str, Any], weight: Tensor, bias: Tensor | None, scheme: str
) -> Factorisable | Unfit:
    """The layer of a graph under a scheme, "auto" being `svd` for linear and 1x1 and `tucker2` for k x k."""
    arguments = layer.get("arguments", {})
    if arguments.get("groups", 1) != 1:
        return Unfit(f"it has {arguments['groups']} groups, and each of them is small already")
    is_pointwise = layer["type"] == "Linear" or weight[0, 0].numel() == 1
    if scheme == "auto":
        scheme = "svd" if is_pointwise else "tucker2"
    if is_pointwise != (scheme == "svd"):
        kind = "is linear or 1x1" if is_pointwise else "has a k x k kernel"
        return Unfit(f"it {kind}, and the scheme {scheme!r} is for the other kind: 'auto' takes both")
    return SCHEMES[scheme](layer["type"], arguments, weight, bias)
