"""AdaRound: the error it looks at is the layer's own, and its rounding beats the nearest."""

import pytest
import torch
from torch import nn

from models.grids import fit_grid
from worker.quantization.rounding import adaround, gather_moments

LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 9, 9)),
    "strided, dilated": (lambda: nn.Conv2d(3, 4, (3, 2), stride=2, padding=(2, 0), dilation=2), (3, 11, 9)),
    "same padding": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (3, 8, 8)),
    "reflecting": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2), (4, 8, 8)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, groups=5, bias=False), (5, 8, 8)),
    "linear": (lambda: nn.Linear(20, 7), (20,)),
    "linear over positions": (lambda: nn.Linear(6, 7), (5, 6)),
}


def make(name: str, num_images: int = 6) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A layer, what it gets now, and what it got before the layers in front of it were quantized."""
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    before = torch.randn(num_images, *shape).relu() + 0.3  # correlated through their mean, as activations are
    return build().eval(), before + 0.05 * torch.randn_like(before), before


def with_weight(layer: nn.Module, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(layer, {"weight": weight}, (inputs,))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # its uneven border is the point
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_the_error_is_that_of_the_layers_output(name):
    """From second moments it equals running the layer on every image: quantized inputs and weights against the originals."""
    layer, now, before = make(name)
    moments = gather_moments(layer, [(now[:4], before[:4]), (now[4:], before[4:])], num_images=6, seed=0)
    difference = torch.randn_like(layer.weight) * 0.1
    wanted = (with_weight(layer, layer.weight + difference, now) - layer(before)).square().sum()
    groups = getattr(layer, "groups", 1)
    in_groups = difference.reshape(groups, len(difference) // groups, -1)
    assert float(moments.error(in_groups)) == pytest.approx(float(wanted), rel=1e-4)
    slope = moments.gradient(in_groups)
    step = torch.randn_like(in_groups) * 1e-3
    rise = moments.error(in_groups + step) - moments.error(in_groups - step)
    assert float(rise) == pytest.approx(float(2 * (slope * step).sum()), rel=1e-2)


@pytest.mark.parametrize("name", ["conv", "depthwise", "linear"])
@pytest.mark.parametrize("scheme", ["minmax", "symmetric"])
def test_at_4_bits_the_output_is_closer_than_with_nearest(name, scheme):
    """On the images it saw, by a lot; every weight is rounded down or up, never further."""
    layer, now, before = make(name, num_images=16)
    weight = layer.weight.detach()
    grid = fit_grid(weight, scheme, 4, by_row=True)
    codes, share = adaround(layer, grid, gather_moments(layer, [(now, before)], num_images=16, seed=0))
    rows = grid.rows(weight)
    positions = grid.positions(rows).reshape(weight.shape)
    assert ((codes - positions).abs() < 1 + 1e-4).all()

    def error(code):
        rounded = grid.values(code.reshape(rows.shape)).reshape(weight.shape).float()
        with torch.no_grad():
            return float((with_weight(layer, rounded, now) - layer(before)).square().mean())

    # A depthwise output has nine weights to make up for what the layers before have done.
    assert error(codes) < (0.95 if name == "depthwise" else 0.8) * error(grid.codes(rows))
    assert share == pytest.approx(error(codes) / error(grid.codes(rows)), rel=0.02)


def test_zeros_are_left_alone():
    """Of a sparse weight: whatever becomes of the others, the error counts no zero, and nearest is no better."""
    layer, now, before = make("linear", num_images=16)
    with torch.no_grad():
        layer.weight[layer.weight.abs() < 0.12] = 0
    weight = layer.weight.detach()
    grid = fit_grid(weight, "minmax", 3, by_row=True, is_kept=weight != 0)
    codes, share = adaround(
        layer, grid, gather_moments(layer, [(now, before)], num_images=16, seed=0), keep_zeros=True
    )
    rounded = grid.values(codes.reshape(len(weight), -1)).reshape(weight.shape).float() * (weight != 0)
    nearest = grid.values(grid.codes(grid.rows(weight))).reshape(weight.shape).float() * (weight != 0)
    with torch.no_grad():
        errors = [(with_weight(layer, w, now) - layer(before)).square().mean() for w in (rounded, nearest)]
    assert share < 0.9
    assert float(errors[0] / errors[1]) == pytest.approx(share, rel=0.02)


def test_where_nearest_is_exact_it_stays():
    """Weights on the grid: no other rounding has a smaller error."""
    layer, now, _ = make("linear")
    grid = fit_grid(layer.weight, "minmax", 3)
    rows = grid.rows(layer.weight)
    with torch.no_grad():
        layer.weight.copy_(grid.values(grid.codes(rows)).reshape(layer.weight.shape))
    codes, share = adaround(layer, grid, gather_moments(layer, [(now, now)], num_images=6, seed=0))
    assert share == 1.0
    assert torch.equal(codes.flatten(), grid.codes(grid.rows(layer.weight)).flatten())
