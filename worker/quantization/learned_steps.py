"""A network whose weights are rounded to a few levels in every forward pass, and learn through that.

Esser et al. 2020, "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153: a weight w becomes
round(clip(w / s, -Qn, Qp)) * s with Qn = 2^(bits-1), Qp = 2^(bits-1) - 1; the step s has a gradient of its own
(equation 3), scaled by 1 / sqrt(weights * Qp) (section 2.2); rounding passes the gradient of w on where it did not
clip. Changed: weights alone are quantized, by output channel if asked; a step is held in half precision from the
start, as it will be stored; and what is trained is the step relative to its beginning, because AdamW moves a parameter
by about the learning rate, which would throw a step of 0.01 about. Under SGD the first update is the paper's.

Shapes: R steps of a weight (1, or one for each output channel).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models import Encoded, Network
from models.encodings import encode_codes
from models.grids import fit_grid, grid_of_steps
from worker.quantization.stored_form import in_half, survives_half

_LEAST_STEP = 2.0**-24  # half precision's smallest positive number
_LARGEST_STEP = 65504.0
# Between these a step may shrink or grow by half a dozen factors of 2 and is still kept to 11 bits.
_HALF_PRECISION = (2.0**-10, 2.0**10)


class LearnedRounding(torch.autograd.Function):
    """Weights and their steps (which broadcast) → rounded weights; the paper's gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, steps: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight, steps)
        ctx.bits = bits
        return codes_of(weight, steps, bits) * steps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, steps = ctx.saved_tensors
        (gradient,) = gradients
        low, high = -(2 ** (ctx.bits - 1)), 2 ** (ctx.bits - 1) - 1
        position = weight / steps
        is_inside = (position > low) & (position < high)
        slope = torch.where(is_inside, position.round() - position, position.clamp(low, high))
        rows = [dim for dim in range(weight.dim()) if steps.shape[dim] == 1]
        steps_gradient = (gradient * slope).sum(dim=rows, keepdim=True)
        num_weights = weight.numel() // steps.numel()
        return gradient * is_inside, steps_gradient / math.sqrt(num_weights * high), None


def codes_of(weight: Tensor, steps: Tensor, bits: int) -> Tensor:
    """Whole numbers from -2^(bits-1) to 2^(bits-1) - 1, in the weight's type."""
    return (weight / steps).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def first_steps(weight: Tensor, bits: int, *, by_row: bool, init: str) -> Tensor:
    """float64 [R], positive: `lsq`: 2 * mean|w| / sqrt(Qp); `mse`: of the grid with the least squared error."""
    if init == "lsq":
        rows = weight.detach().double().reshape(len(weight) if by_row else 1, -1)
        steps_R = 2 * rows.abs().mean(dim=1) / math.sqrt(2 ** (bits - 1) - 1)
    else:
        steps_R = fit_grid(weight, "symmetric", bits, by_row=by_row, clip="mse").steps[:, 0]
    # A channel of zeros has no size of its own: it takes the others', so that it can still grow.
    fallback = steps_R[steps_R > 0].mean() if bool((steps_R > 0).any()) else steps_R.new_tensor(1e-3)
    return torch.where(steps_R > 0, steps_R, fallback)


class Stepped(nn.Module):
    """The steps of one weight, [R, 1, 1, ...]."""

    start: Tensor

    def __init__(self, weight: Tensor, bits: int, *, by_row: bool, init: str) -> None:
        super().__init__()
        self.bits = bits
        self.by_row = by_row
        start_R = first_steps(weight.detach().cpu(), bits, by_row=by_row, init=init)
        low, high = _HALF_PRECISION
        self.numbers = "float16" if low < float(start_R.min()) and float(start_R.max()) < high else "float32"
        shape = (-1, *[1] * (weight.dim() - 1))
        self.register_buffer("start", start_R.float().reshape(shape))
        self.relative = nn.Parameter(
            torch.ones_like(self.start).flatten()
        )  # one dimension: it is not decayed

    def steps(self) -> Tensor:
        """Float32, positive, exact in the type that they are stored in; differentiable."""
        relative = self.relative.reshape(self.start.shape)
        # So that an update of SGD changes start * relative as LSQ's changes s: by the gradient of s.
        steps = self.start * _with_gradient_over(relative, self.start.square())
        steps = steps.abs().clamp(min=_LEAST_STEP)
        if self.numbers == "float32":
            return steps
        stored = steps.detach().half().float().clamp(_LEAST_STEP, _LARGEST_STEP)
        return steps + (stored - steps.detach())  # exactly `stored`: the two are within a factor of 2

    def forward(self, weight: Tensor) -> Tensor:
        rounded: Tensor = LearnedRounding.apply(weight, self.steps(), self.bits)
        return rounded

    @torch.no_grad()
    def encoded(self, weight: Tensor) -> Encoded:
        """The stored form: it decodes to what `forward` gives, to the bit."""
        steps = self.steps()
        codes = codes_of(weight, steps, self.bits) + 2 ** (self.bits - 1)
        grid = grid_of_steps(steps, self.bits, by_row=self.by_row, numbers=self.numbers)
        return encode_codes(weight, grid, codes.to(torch.uint8))


class QuantizedNetwork(nn.Module):
    """A network that computes with rounded weights, and in eval mode with everything else as it will be stored too."""

    def __init__(self, network: Network, bits: Mapping[str, int], *, by_row: bool, init: str) -> None:
        """`bits`: weight's name → its bits."""
        super().__init__()
        self.network = network
        self._names = list(bits)
        weights = dict(network.named_parameters())
        self.stepped = nn.ModuleList(
            Stepped(weights[name], own, by_row=by_row, init=init) for name, own in bits.items()
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        weights = dict(self.network.named_parameters())
        tensors = {name: stepped(weights[name]) for name, stepped in self._pairs()}
        if not self.training:
            tensors = self._others_as_stored() | tensors
        logits_NC: Tensor = functional_call(self.network, tensors, (images_NCHW,))
        return logits_NC

    def _pairs(self) -> Iterator[tuple[str, Stepped]]:
        for name, stepped in zip(self._names, self.stepped, strict=True):
            assert isinstance(stepped, Stepped)
            yield name, stepped

    def _others_as_stored(self) -> dict[str, Tensor]:
        others = {n: t for n, t in self.network.state_dict().items() if n not in self._names}
        return {
            name: tensor.half().to(tensor.dtype)
            for name, tensor in others.items()
            if tensor.is_floating_point() and survives_half(name, tensor)
        }

    def encoded(self) -> dict[str, Encoded]:
        """Every tensor of the network in its stored form."""
        state = self.network.state_dict()
        encoded = {name: in_half(name, tensor) for name, tensor in state.items() if name not in self._names}
        return encoded | {name: stepped.encoded(state[name]) for name, stepped in self._pairs()}


def _with_gradient_over(values: Tensor, divisor: Tensor) -> Tensor:
    """The same values, whose gradient arrives divided by `divisor`."""
    passed = values.view_as(values)
    if passed.requires_grad:
        passed.register_hook(lambda gradient: gradient / divisor)
    return passed
