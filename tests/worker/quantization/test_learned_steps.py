"""Learned step sizes, against the paper's formulas on single numbers."""

import copy
import math

import pytest
import torch

from models import as_network
from tests.worker.quantization.test_bias_correction import Layers
from worker.quantization.learned_steps import LearnedRounding, QuantizedNetwork, Stepped, first_steps


def _by_hand(w: float, s: float, low: int, high: int) -> tuple[float, float, float]:
    """Rounded weight, its derivative in w, its derivative in s: equations 1 to 3 of Esser et al. 2020."""
    if w / s <= low:
        return low * s, 0.0, low
    if w / s >= high:
        return high * s, 0.0, high
    return round(w / s) * s, 1.0, -w / s + round(w / s)


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("by_row", [True, False])
def test_values_and_gradients_are_the_papers(bits, by_row):
    torch.manual_seed(bits)
    weight = torch.randn(3, 2, 2, requires_grad=True)
    shape = (3, 1, 1) if by_row else (1, 1, 1)
    steps = torch.rand(shape).mul_(0.3).add_(0.05).requires_grad_()
    gradient = torch.randn(3, 2, 2)
    rounded = LearnedRounding.apply(weight, steps, bits)
    rounded.backward(gradient)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    of_steps = torch.zeros(shape)
    for row in range(3):
        for a in range(2):
            for b in range(2):
                at = (row if by_row else 0, 0, 0)
                value, of_weight, of_step = _by_hand(weight[row, a, b].item(), steps[at].item(), low, high)
                incoming = gradient[row, a, b].item()
                assert rounded[row, a, b].item() == pytest.approx(value, rel=1e-6)
                assert weight.grad[row, a, b].item() == pytest.approx(incoming * of_weight)
                of_steps[at] += incoming * of_step
    scale = 1 / math.sqrt((4 if by_row else 12) * high)
    assert torch.allclose(steps.grad, of_steps * scale, rtol=1e-4, atol=1e-6)


def test_an_update_of_sgd_is_the_papers_update_of_the_step():
    """s - rate * gradient of s, though what is trained is s over its first value."""
    weight = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    stepped = Stepped(weight, 3, by_row=True, init="lsq")
    stepped.numbers = "float32"  # or rounding to half precision hides a small update
    before = stepped.steps().detach().clone()
    reference = before.clone().requires_grad_()
    gradient = torch.randn(2, 6)
    LearnedRounding.apply(weight, reference, 3).backward(gradient)
    stepped(weight).backward(gradient)
    torch.optim.SGD(stepped.parameters(), lr=1e-3).step()
    assert torch.allclose(stepped.steps() - before, -1e-3 * reference.grad, rtol=1e-3)


def test_the_first_steps():
    weight = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    steps = first_steps(weight, 4, by_row=True, init="lsq")
    wanted = [2 * sum(map(abs, row)) / 300 / math.sqrt(7) for row in weight[:3].tolist()]
    assert steps[:3].tolist() == pytest.approx(wanted, rel=1e-6)
    assert steps[3].item() == pytest.approx(sum(wanted) / 3)
    found = first_steps(weight, 4, by_row=True, init="mse")[0].item()

    def error(step):
        return sum((w - step * min(max(round(w / step), -8), 7)) ** 2 for w in weight[0].tolist())

    assert error(found) <= 1.05 * min(error(n / 500) for n in range(50, 300))
    assert first_steps(torch.zeros(2, 2), 4, by_row=False, init="mse").item() > 0


@pytest.fixture
def network():
    torch.manual_seed(3)
    return as_network(Layers().eval(), torch.rand(2, 3, 8, 8))


def quantized_of(network, **changes) -> QuantizedNetwork:
    bits = {"biased.weight": 8, "normed.weight": 3, "bare.weight": 2, "head.weight": 4}
    return QuantizedNetwork(network, bits, **{"by_row": True, "init": "mse", **changes})


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1e-4, 1e6])
@torch.no_grad()
def test_what_it_computes_with_is_what_is_stored(network, by_row, factor):
    """To the bit, also where steps leave half precision's range."""
    for name in ("biased.weight", "bare.weight", "head.bias"):
        network.state_dict()[name].mul_(factor)
    quantized = quantized_of(network, by_row=by_row)
    for stepped in quantized.stepped:
        stepped.relative.mul_(torch.rand_like(stepped.relative) + 0.5)  # as if trained
    stored = copy.deepcopy(network)
    encoded = quantized.encoded()
    stored.load_state_dict({name: each.decode() for name, each in encoded.items()})
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(quantized.eval()(images), stored.eval()(images))
    assert {name: each.encoding.get("bits") for name, each in encoded.items() if "weight" in name} == {
        "biased.weight": 8,
        "normed.weight": 3,
        "norm.weight": None,
        "bare.weight": 2,
        "head.weight": 4,
    }


def test_training_moves_weights_steps_and_running_means(network):
    quantized = quantized_of(network).train()
    means = network.norm.running_mean.clone()
    quantized(torch.rand(4, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in quantized.parameters())
    assert all(stepped.relative.grad.abs().sum() > 0 for stepped in quantized.stepped)
    assert not torch.equal(network.norm.running_mean, means)
