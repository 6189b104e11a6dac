"""Means that quantized weights moved come back; where nothing can take them, nothing changes."""

import copy

import pytest
import torch
from torch import nn

from models import as_network
from worker.quantization.bias_correction import correct_bias, mean_output
from worker.quantization.calibration import values_of, weighted_layers


class Layers(nn.Module):
    """A biased convolution, one before a norm, one with neither, called twice, and a linear layer; ReLUs in place."""

    def __init__(self):
        super().__init__()
        self.biased = nn.Conv2d(3, 4, 3)
        self.normed = nn.Conv2d(4, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.bare = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.biased(x))
        x = self.relu(self.norm(self.normed(x)))
        x = self.bare(self.relu(self.bare(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def networks():
    """(original, the same with rounded weights)"""
    torch.manual_seed(0)
    original = as_network(Layers().eval(), torch.rand(2, 3, 8, 8))
    original.norm.running_var.uniform_(0.05, 0.2)
    rounded = copy.deepcopy(original)
    with torch.no_grad():
        for layer in weighted_layers(rounded):
            weight = rounded.get_parameter(f"{layer}.weight")
            weight.copy_((weight * 3).round() / 3)
    return original, rounded


@pytest.fixture
def images():
    return list(torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(4))


def test_a_biased_layer_gives_the_same_means_again(networks, images):
    original, rounded = networks
    whole = torch.cat(images)
    for layer, dims in (("biased", (0, 2, 3)), ("head", (0,))):
        wanted = values_of(original, layer, whole).outputs.mean(dims)
        assert not torch.allclose(values_of(rounded, layer, whole).outputs.mean(dims), wanted, atol=1e-3)
        before = rounded.get_parameter(f"{layer}.bias").clone()
        moved = correct_bias(rounded, layer, original, images)
        assert torch.allclose(values_of(rounded, layer, whole).outputs.mean(dims), wanted, atol=1e-6)
        assert torch.allclose(rounded.get_parameter(f"{layer}.bias") - before, moved.float(), atol=1e-6)


def test_without_a_bias_the_norm_behind_takes_it(networks, images):
    """Seen behind the norm: its outputs have the original's means again."""
    original, rounded = networks

    def means(network):
        seen = {}
        network.run(torch.cat(images), lambda name, value: seen.update({name: value.clone()}))
        return seen["norm"].mean((0, 2, 3))

    correct_bias(rounded, "biased", original, images)
    with torch.no_grad():
        assert not torch.allclose(means(rounded), means(original), atol=1e-3)
        correct_bias(rounded, "normed", original, images)
        assert torch.allclose(means(rounded), means(original), atol=1e-6)
    assert torch.equal(rounded.normed.weight, (rounded.normed.weight * 3).round() / 3)


def test_a_layer_that_nothing_can_shift_is_left_as_it_is(networks, images):
    original, rounded = networks
    before = {name: tensor.clone() for name, tensor in rounded.state_dict().items()}
    assert correct_bias(rounded, "bare", original, images) is None
    assert all(torch.equal(before[name], tensor) for name, tensor in rounded.state_dict().items())


def test_a_layer_that_is_called_twice_is_seen_twice(networks, images):
    """Its mean is over both calls, and what layers in place do afterwards is not in it."""
    original, _ = networks
    seen = values_of(original, "bare", images[0])
    assert seen.inputs.shape == seen.outputs.shape == (8, 4, 6, 6)
    with torch.no_grad():
        assert torch.equal(nn.functional.conv2d(seen.inputs, original.bare.weight), seen.outputs)
    assert torch.allclose(
        mean_output(original, "bare", [images[0]]), seen.outputs.double().mean((0, 2, 3)), atol=1e-6
    )
    assert (seen.outputs < 0).any()
