"""New weights in place: as PyTorch's constructors draw them, decided by the seed alone."""

import pytest
import torch
from torch import nn

from models import Network, as_network, build, encode
from models.architectures import create_network
from models.initialise import reinitialise


def _network() -> Network:
    """Every kind of layer with weights, and a token that belongs to none."""
    layers = {
        "conv": {"type": "Conv2d", "arguments": {"in_channels": 3, "out_channels": 8, "kernel_size": 3}},
        "norm": {"type": "BatchNorm2d", "arguments": {"num_features": 8}},
        "slope": {"type": "PReLU", "arguments": {"num_parameters": 8}},
        "pool": {"type": "AdaptiveAvgPool2d", "arguments": {"output_size": 1}},
        "flat": {"type": "Flatten"},
        "line": {"type": "LayerNorm", "arguments": {"normalized_shape": 8}},
        "head": {"type": "Linear", "arguments": {"in_features": 8, "out_features": 3}},
    }
    nodes = [{"name": "x", "op": "input"}]
    for name in layers:
        nodes.append({"name": name, "op": "layer", "target": name, "args": [{"node": nodes[-1]["name"]}]})
    nodes += [
        {"name": "token", "op": "tensor", "target": "token"},
        {"name": "add", "op": "function", "target": "add", "args": [{"node": "head"}, {"node": "token"}]},
        {"name": "output", "op": "output", "args": [{"node": "add"}]},
    ]
    return build({"input_shape": [3, 9, 9], "layers": layers, "parameters": {"token": [3]}, "nodes": nodes})


def _spoilt(network: Network) -> Network:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(7)
    return network


def test_every_layers_tensors_are_new_and_the_loose_ones_stay():
    network = _spoilt(_network())
    reinitialise(network, seed=3)
    assert (network.token == 7).all()
    assert (network.norm.running_mean == 0).all()
    assert (network.norm.running_var == 1).all()
    assert network.norm.num_batches_tracked == 0
    assert (network.line.weight == 1).all()
    assert (network.slope.weight == 0.25).all()
    for layer in (network.conv, network.head):
        assert not (layer.weight == 7).any()
        assert not (layer.bias == 7).any()


def test_a_layer_is_drawn_as_its_constructor_draws_it():
    """The same number of the same generator: a single layer is the one that PyTorch makes."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, images):
            return self.head(images.flatten(1))

    network = as_network(One().eval(), torch.rand(1, 3, 2, 2))
    reinitialise(network, seed=5)
    torch.manual_seed(5)
    expected = nn.Linear(12, 3)
    assert torch.equal(network.head.weight, expected.weight)
    assert torch.equal(network.head.bias, expected.bias)


def test_attention_begins_as_torchs_own():
    """Its biases are 0 and its projections within Glorot's bound, whatever order its parts are drawn in."""
    network = create_network("vit_b_16", num_classes=3, image_size=32, seed=0)
    layer = next(module for module in network.modules() if isinstance(module, nn.MultiheadAttention))
    with torch.no_grad():
        layer.in_proj_bias.fill_(7)
        layer.out_proj.bias.fill_(7)
    reinitialise(network, seed=1)
    assert (layer.in_proj_bias == 0).all()
    assert (layer.out_proj.bias == 0).all()
    bound = (6 / (layer.embed_dim * 4)) ** 0.5
    assert bound * 0.99 < layer.in_proj_weight.abs().max() <= bound


def test_the_seed_decides_and_torchs_random_state_stays():
    first, second, other = (_spoilt(_network()) for _ in range(3))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    reinitialise(first, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    reinitialise(second, seed=4)
    reinitialise(other, seed=5)
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)


def test_stored_forms_of_the_old_weights_are_dropped():
    network = _network()
    network.encoded = {"head.weight": encode(network.head.weight.detach(), {"name": "fp16"})}
    reinitialise(network, seed=0)
    assert network.encoded == {}


def test_parameters_stay_the_same_objects():
    """An optimizer that was built before goes on with them."""
    network = _network()
    before = list(network.parameters())
    reinitialise(network, seed=0)
    assert all(a is b for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_device_draws_the_same():
    here, there = _network(), _network().to("cuda")
    reinitialise(here, seed=9)
    reinitialise(there, seed=9)
    assert there.conv.weight.is_cuda
    assert torch.equal(here.conv.weight, there.conv.weight.cpu())
