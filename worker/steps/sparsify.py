"""Sparsity: the smallest weights become zero, one by one, and only the others are stored.

Magnitude pruning as in Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks",
https://arxiv.org/abs/1506.02626; two of four as in Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks",
https://arxiv.org/abs/2104.08378 (groups of four along the input channels, layers whose inputs 4 does not divide are
passed by). Changed: a bit an element says which weights are stored, for both patterns; deflating the file shortens the
map of two of four to about two thirds of that.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import Problem
from app.spec.networks import Student
from app.spec.steps.sparsify import Sparsify
from models import Encoded, Network, encode
from worker.chosen_layers import chosen_layers
from worker.quantization.stored_form import check_finite, in_half, keeping_zeros, pays_as_sparse, settle
from worker.run import Run, Stopped
from worker.training.loop import concatenated, train
from worker.training.losses import hard_loss
from worker.training.students import build_student

Masks = dict[str, Tensor]
"""Weight's name → which of its elements stay."""


def apply(model: Network | None, spec: Sparsify, run: Run) -> Network:
    """A copy of `model` with zeros, trained where the spec says so, that computes with the stored values.

    Notes the share of zeros among the chosen layers' weights, the largest error of an element and the mean bits of one.
    Raises Problem NO_SUCH_LAYER for a pattern that matches nothing, NOTHING_TO_SPARSIFY where no layer can take the zeros,
    and NOT_QUANTIZABLE where a tensor holds NaN or infinity.
    """
    network = build_student(Student(previous=True), model, run)
    check_finite(network.state_dict())
    layers = _sparse_layers(network, spec, run)
    weights = {f"{layer}.weight": network.state_dict()[f"{layer}.weight"] for layer in layers}
    masks = _masks(weights, spec)
    _apply_masks(network, masks)()
    try:
        if spec.training is not None:
            _finetune(network, masks, spec, run)
    except Stopped as stopped:
        raise Stopped(
            stopped.stop, None if stopped.model is None else _settled(network, masks, spec, run)
        ) from None
    return _settled(network, masks, spec, run)


def _sparse_layers(network: Network, spec: Sparsify, run: Run) -> list[str]:
    """The chosen convolutions and linear layers, without those that the pattern does not fit."""
    weighted = [
        name
        for name in chosen_layers(network, spec)
        if isinstance(network.get_submodule(name), nn.Conv2d | nn.Linear)
    ]
    if spec.pattern == "unstructured":
        fitting = weighted
    else:
        fitting = [name for name in weighted if network.get_parameter(f"{name}.weight").shape[1] % 4 == 0]
    passed_by = [name for name in weighted if name not in fitting]
    if not fitting:
        raise Problem(
            422,
            "NOTHING_TO_SPARSIFY",
            f"None of the {len(weighted)} convolutions and linear layers that were chosen can take pattern "
            f"{spec.pattern!r}"
            + (
                ": 4 must divide the inputs of one. Take pattern 'unstructured'."
                if passed_by
                else ": choose others."
            ),
        )
    if passed_by:
        run.log(f"4 does not divide the inputs of {', '.join(passed_by)}: they stay whole", "warning")
    return fitting


def _masks(weights: dict[str, Tensor], spec: Sparsify) -> Masks:
    if spec.pattern == "2:4":
        return {name: two_of_four(weight) for name, weight in weights.items()}
    if spec.ranking == "layer":
        return {name: largest([weight], spec.removed_share)[0] for name, weight in weights.items()}
    return dict(zip(weights, largest(list(weights.values()), spec.removed_share), strict=True))


def two_of_four(weight: Tensor) -> Tensor:
    """Bool, true at the two largest magnitudes of each four along dimension 1; of equals the first."""
    fours = weight.detach().abs().movedim(1, -1)
    order = fours.reshape(-1, 4).argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :2], True)
    return mask.reshape(fours.shape).movedim(-1, 1).contiguous()


def largest(weights: list[Tensor], removed_share: float) -> list[Tensor]:
    """Bool, false at the share of all elements that is smallest in magnitude (of equals, the first); each tensor keeps
    its largest element."""
    magnitudes = [weight.detach().abs().flatten() for weight in weights]
    for magnitude in magnitudes:
        magnitude[magnitude.argmax()] = float("inf")
    together = torch.cat(magnitudes)
    num_removed = min(round(removed_share * len(together)), len(together) - len(weights))
    keep = torch.ones_like(together, dtype=torch.bool)
    keep[together.argsort(stable=True)[:num_removed]] = False
    parts = keep.split([len(magnitude) for magnitude in magnitudes])
    return [part.reshape(weight.shape).clone() for part, weight in zip(parts, weights, strict=True)]


def _apply_masks(network: Network, masks: Masks) -> Callable[[], None]:
    """What puts the zeros back after a step of the optimizer."""

    @torch.no_grad()
    def put_back() -> None:
        for name, mask in masks.items():
            weight = network.get_parameter(name)
            weight.masked_fill_(~mask.to(weight.device), 0.0)

    return put_back


def _finetune(network: Network, masks: Masks, spec: Sparsify, run: Run) -> None:
    assert spec.training is not None
    assert network.preprocessing is not None
    on_device = {name: mask.to(run.device) for name, mask in masks.items()}
    train(
        network,
        spec.training,
        run,
        images=concatenated(run, ["train"], spec.training),
        preprocessing=network.preprocessing,
        batch_loss=hard_loss,
        after_step=_apply_masks(network, on_device),
    )


def _settled(network: Network, masks: Masks, spec: Sparsify, run: Run) -> Network:
    """The network with its tensors as they are stored."""
    state = network.state_dict()
    encoded = {name: _stored(name, tensor, name in masks, spec) for name, tensor in state.items()}
    rows = [_row(name, mask) for name, mask in masks.items()]
    run.details["layers"] = rows
    run.note("sparsity", sum(row["removed"] for row in rows) / sum(row["weights"] for row in rows))
    return settle(network, encoded, state, run)


def _row(name: str, mask: Tensor) -> dict[str, Any]:
    return {"layer": name.removesuffix(".weight"), "weights": mask.numel(), "removed": int((~mask).sum())}


def _stored(name: str, tensor: Tensor, is_sparse: bool, spec: Sparsify) -> Encoded:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return encode(tensor, {"name": "raw"}) if spec.store == "raw" else in_half(name, tensor)
    encoding: dict[str, Any] = {"name": spec.store}
    if spec.store == "minmax":
        encoding["bits"] = spec.stored_bits
    # Levels between a minimum and a maximum need not hold 0; numbers do, and few zeros are not worth a map.
    if is_sparse and (spec.store == "minmax" or pays_as_sparse(tensor, spec.stored_bits)):
        encoding = keeping_zeros(encoding)
    return encode(tensor, encoding)
