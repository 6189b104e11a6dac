"""Rounding weights up or down so that a layer's output, not each weight, stays close.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
https://arxiv.org/abs/2004.10568: a rectified sigmoid h(V) between rounding down and up, the squared error of the
layer's output with the inputs that the quantized layers before it give (section 3.3), and the regulariser
1 - |2 h - 1|^beta whose beta falls from 20 to 2 and drives h to 0 or 1. Changed: the error comes from second moments
of the inputs, which are gathered once, so that every step sees all images; it is measured in units of nearest
rounding's; the activation that follows is not part of it; and nearest rounding stays where it is no worse.

Shapes: G groups of a convolution, R sampled positions, D = in_channels / G * k_h * k_w inputs of a position, M =
out_channels / G.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.grids import Grid

MAX_INPUTS = 4608
"""Inputs a group of a layer may have: its second moments are that many squared floats."""
# h(V) reaches 0 and 1 at finite V (equation 23 there).
_ZETA, _GAMMA = 1.1, -0.1
_STEPS = 1000
_WARM_STEPS = 200  # without the regulariser, a fifth as there
_LEARNING_RATE = 1e-2
_FIRST_BETA, _LAST_BETA = 20.0, 2.0
# Of the regulariser's mean over the weights. On the report's student at 4 bits by channel (64 noise images, random
# weights) the squared error of the logits was 0.7, 0.4, 0.2, 0.06, 0.05 of nearest rounding's at 0.1, 1, 10, 100, 1000.
_REGULARISER = 100.0
# Positions for each input: fewer leave the second moments singular, more no longer change the rounding.
_ROWS_AN_INPUT = 4
_LEAST_ROWS = 2048


@dataclass
class Moments:
    """The squared error of a layer's output as a function of its weights' error E [G, M, D], summed over positions:
    sum(E @ gram * E) + 2 * sum(E * cross) + rest."""

    gram_GDD: Tensor
    cross_GMD: Tensor
    rest: Tensor
    """What the layers before have already done."""

    def error(self, difference_GMD: Tensor) -> Tensor:
        quadratic = (difference_GMD @ self.gram_GDD * difference_GMD).sum()
        return quadratic + 2 * (difference_GMD * self.cross_GMD).sum() + self.rest

    def gradient(self, difference_GMD: Tensor) -> Tensor:
        """Of the error; one product, where autograd would take two."""
        return 2 * (difference_GMD @ self.gram_GDD + self.cross_GMD)


@torch.no_grad()
def gather_moments(
    layer: nn.Conv2d | nn.Linear, inputs: Iterable[tuple[Tensor, Tensor]], *, num_images: int, seed: int
) -> Moments:
    """`inputs`: batches of what the layer gets now that those before it are quantized, and what it got before."""
    weight_GMD = in_groups(layer, layer.weight)
    num_inputs = weight_GMD.shape[2]
    moments = Moments(
        weight_GMD.new_zeros(len(weight_GMD), num_inputs, num_inputs),
        torch.zeros_like(weight_GMD),
        weight_GMD.new_zeros(()),
    )
    generator = torch.Generator().manual_seed(seed)
    rows_an_image = -(-max(_LEAST_ROWS, _ROWS_AN_INPUT * num_inputs) // num_images)
    for now, before in inputs:
        patches_GRD, wanted_GRD = _sampled(layer, now, before, rows_an_image, generator)
        # How far the output is off with the weights as they were.
        off_GRM = (patches_GRD - wanted_GRD) @ weight_GMD.transpose(1, 2)
        moments.gram_GDD += patches_GRD.transpose(1, 2) @ patches_GRD
        moments.cross_GMD += off_GRM.transpose(1, 2) @ patches_GRD
        moments.rest += off_GRM.square().sum()
    return moments


def adaround(
    layer: nn.Conv2d | nn.Linear, grid: Grid, moments: Moments, *, keep_zeros: bool = False
) -> tuple[Tensor, float]:
    """Codes (uint8, as the weight) and their output error, in units of nearest rounding's (at most 1).

    `keep_zeros`: weights that are 0 stay so, whatever the grid makes of them.
    """
    positions_GMD = in_groups(
        layer, grid.positions(grid.rows(layer.weight)).reshape(layer.weight.shape).float()
    )
    steps = grid.steps.float().reshape(-1, *[1] * (layer.weight.dim() - 1)).expand(layer.weight.shape)
    steps_GMD = in_groups(layer, steps)
    if keep_zeros:
        steps_GMD = steps_GMD * (in_groups(layer, layer.weight) != 0)

    def difference(codes_GMD: Tensor) -> Tensor:
        return (codes_GMD - positions_GMD) * steps_GMD

    nearest_GMD = positions_GMD.round().clamp(0, grid.levels)
    unit = moments.error(difference(nearest_GMD)).clamp(min=torch.finfo(torch.float32).tiny)
    floors_GMD = positions_GMD.floor()
    shares_GMD = (positions_GMD - floors_GMD).clamp(0.01, 0.99)
    # h(V) begins at the weights as they were.
    v_GMD = torch.logit((shares_GMD - _GAMMA) / (_ZETA - _GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([v_GMD], lr=_LEARNING_RATE)
    for step in range(_STEPS):
        h_GMD = _rectified(v_GMD)
        soft_GMD = difference((floors_GMD + h_GMD).clamp(0, grid.levels))
        loss = (soft_GMD * moments.gradient(soft_GMD.detach())).sum() / unit  # has the error's gradient
        if step >= _WARM_STEPS:
            loss = loss + _REGULARISER * (1 - (2 * h_GMD - 1).abs() ** _beta(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        rounded_GMD = (floors_GMD + (_rectified(v_GMD) >= 0.5)).clamp(0, grid.levels)
        share = float(moments.error(difference(rounded_GMD)) / unit)
    if share >= 1:
        rounded_GMD, share = nearest_GMD, 1.0
    return rounded_GMD.reshape(layer.weight.shape).to(torch.uint8), share


def in_groups(layer: nn.Conv2d | nn.Linear, weight: Tensor) -> Tensor:
    """[G, M, D]"""
    num_groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return weight.detach().reshape(num_groups, len(weight) // num_groups, -1)


def _rectified(v: Tensor) -> Tensor:
    return (torch.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _beta(step: int) -> float:
    share = (step - _WARM_STEPS) / (_STEPS - _WARM_STEPS)
    return _LAST_BETA + (_FIRST_BETA - _LAST_BETA) * (1 - share)


def _sampled(
    layer: nn.Conv2d | nn.Linear, now: Tensor, before: Tensor, rows_an_image: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same positions of both, [G, R, D]."""
    if isinstance(layer, nn.Linear):
        now_NLD, before_NLD = (
            values.reshape(len(values), -1, values.shape[-1])[:, None] for values in (now, before)
        )
    else:
        now_NLD, before_NLD = (_patches(layer, values) for values in (now, before))
    num_positions = now_NLD.shape[2]
    chosen = torch.randperm(num_positions, generator=generator)[:rows_an_image].to(now.device)
    now_GRD, before_GRD = (
        values_NGLD[:, :, chosen].transpose(0, 1).flatten(1, 2) for values_NGLD in (now_NLD, before_NLD)
    )
    return now_GRD, before_GRD


def _patches(layer: nn.Conv2d, inputs_NCHW: Tensor) -> Tensor:
    """[N, G, L, D]: what each of the L positions of the output is computed from."""
    border: list[int] = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded_NCHW = F.pad(inputs_NCHW, border, mode=mode)
    unfolded = F.unfold(padded_NCHW, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    return unfolded.reshape(len(unfolded), layer.groups, -1, unfolded.shape[-1]).transpose(2, 3)
