"""How much each channel matters: one score a unit, the smallest goes first.

The sums over coupled layers follow torch-pruning 1.6 (Fang et al. 2023, https://arxiv.org/abs/2301.12900) with its defaults:
each layer that a unit lives in gives a number, the unit's score is their mean, and scores are divided by their mean over the
group. As there, depthwise filters and group norms give none, nor batch norms under `taylor_weight`. Changed: `fpgm` takes
the distances of the filters themselves (there, of their squares), and `hessian` the mean over all images (there, the last).

Shapes: U units of a group, C channels along one dimension of a tensor.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from models import Network
from models.channels import Group, Member

Coupling = Literal["group", "producers"]

_FILTERS = (nn.Conv2d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_COUNTED: dict[str, tuple[type[nn.Module], ...]] = {
    "bn_gamma_signed": _BATCH_NORMS,
    "bn_gamma": _BATCH_NORMS,
    "l1": (*_FILTERS, *_BATCH_NORMS, nn.LayerNorm),
    "l2": (*_FILTERS, *_BATCH_NORMS, nn.LayerNorm),
    "lamp": (*_FILTERS, *_BATCH_NORMS, nn.LayerNorm),
    "hessian": (*_FILTERS, *_BATCH_NORMS, nn.LayerNorm),
    "taylor_weight": (*_FILTERS, nn.LayerNorm),
    "fpgm": _FILTERS,
}


@dataclass(frozen=True)
class Evidence:
    """What scores are computed from: the network as it is, and what images said about it (`worker.pruning.saliency`)."""

    network: Network
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameter name -> gradient of the mean loss."""
    squared_gradients: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameter name -> mean over the images of the squared gradient of one image's loss."""
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    """Layer -> [C]: the sum over the images of mean activation * gradient."""
    seed: int = 0
    """Of `random`."""


def score(
    group: Group,
    criterion: str,
    evidence: Evidence,
    *,
    coupling: Coupling = "group",
    normalise: Literal["mean", "none"] = "mean",
) -> Tensor | None:
    """Float64 [U] on the CPU; None where the criterion has nothing to read, as `bn_gamma` without a batch norm.

    `group`: with the positions of `evidence.network`'s own tensors.
    """
    if criterion == "random":
        digest = hashlib.sha256(f"{evidence.seed} random {group.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.rand(group.num_units, generator=generator, dtype=torch.float64)
    if criterion == "taylor":
        return _taylor(group, evidence, coupling)
    parts = [
        _of_member(member, criterion, evidence) * (member.repeats / multiplicity(group))
        for member in _counted(group, criterion, evidence.network, coupling)
    ]
    if not parts:
        return None
    scores_U = torch.stack(parts).mean(dim=0)
    if criterion == "lamp":
        return lamp(scores_U)
    if criterion == "bn_gamma_signed" or normalise == "none":
        return scores_U
    mean = scores_U.mean()
    return scores_U / mean if mean > 0 else scores_U


def can_score(group: Group, criterion: str, network: Network, coupling: Coupling) -> bool:
    """Whether `score` finds something to read."""
    if criterion in ("random", "taylor"):
        return True
    return any(True for _ in _counted(group, criterion, network, coupling))


def multiplicity(group: Group) -> int:
    """How many channels of its first layer a unit is: more than 1 where grouped convolutions are narrowed evenly."""
    first = next(
        member for member in group.members if member.layer == group.layers[0] and member.role == "out"
    )
    return int((first.unit == 0).sum())


def per_unit(values_C: Tensor, member: Member) -> Tensor:
    """[U]: the sum over the channels of each unit, of one number a channel."""
    sums_U = values_C.new_zeros(member.num_units)
    device = values_C.device
    return sums_U.index_add(0, member.unit.to(device), values_C[member.index.to(device)])


def lamp(squares_U: Tensor) -> Tensor:
    """Each of [U] divided by the sum of itself and all that are larger (Lee et al. 2021, equation 2)."""
    order = squares_U.argsort(stable=True)
    ascending = squares_U[order]
    tail = ascending.flip(0).cumsum(0).flip(0)
    scores_U = torch.zeros_like(squares_U)
    scores_U[order] = torch.where(tail > 0, ascending / tail, torch.zeros_like(tail))
    return scores_U


def _counted(group: Group, criterion: str, network: Network, coupling: Coupling) -> Iterable[Member]:
    for member in group.members:
        if member.tensor != f"{member.layer}.weight" or member.role not in ("out", "in", "norm"):
            continue
        if coupling == "producers" and not (member.role == "out" and member.layer in group.layers):
            continue
        if isinstance(network.get_submodule(member.layer), _COUNTED[criterion]):
            yield member


def _of_member(member: Member, criterion: str, evidence: Evidence) -> Tensor:
    """Float64 [U]: one layer's number for each unit."""
    weight = _as_rows(evidence.network.get_parameter(member.tensor), member.dim)
    if criterion == "fpgm":
        return _distances(weight, member)
    if criterion in ("l1", "bn_gamma"):
        values = weight.abs()
    elif criterion in ("l2", "lamp"):
        values = weight.square()
    elif criterion == "bn_gamma_signed":
        # The course has one batch norm a block; where a unit has several, the mean of them is taken.
        values = weight
    elif criterion == "taylor_weight":
        values = (weight * _as_rows(evidence.gradients[member.tensor], member.dim)).abs()
    else:
        values = weight.square() * _as_rows(evidence.squared_gradients[member.tensor], member.dim)
    return per_unit(values.sum(dim=1, dtype=torch.float64), member)


def _as_rows(tensor: Tensor, dim: int) -> Tensor:
    """[C, everything else] on the CPU."""
    return tensor.detach().cpu().movedim(dim, 0).reshape(tensor.shape[dim], -1)


def _distances(rows_CK: Tensor, member: Member) -> Tensor:
    """[U]: the sum of the Euclidean distances from a unit's weights to every other unit's."""
    positions_of = member.positions
    longest = max(len(positions) for positions in positions_of)
    vectors = torch.zeros(member.num_units, longest * rows_CK.shape[1], dtype=torch.float64)
    for vector, positions in zip(vectors, positions_of, strict=True):
        values = rows_CK[positions].flatten()
        vector[: len(values)] = values
    # In float64, as cdist goes by products: in float32 their rounding makes near filters equal.
    return torch.cdist(vectors, vectors).sum(dim=1)


def _taylor(group: Group, evidence: Evidence, coupling: Coupling) -> Tensor | None:
    parts = []
    for member in group.members:
        makes = member.layer in group.layers or (coupling == "group" and member.role == "depthwise")
        if not makes or member.role not in ("out", "depthwise") or member.tensor != f"{member.layer}.weight":
            continue
        values_C = evidence.activations[member.layer].cpu().double().abs()
        norm = values_C.norm()
        parts.append(per_unit(values_C / norm if norm > 0 else values_C, member))
    return torch.stack(parts).mean(dim=0) / multiplicity(group) if parts else None
