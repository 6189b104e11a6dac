"""Built-in architectures as networks: the module's logits, the hooks' counts, weights by seed."""

import pytest
import torch

from models.architectures import ARCHITECTURES, create, create_network, create_skeleton
from models.graph import as_network, trace
from models.layers import layer_table
from models.load_artifact import build

from .test_architectures import OURS_BUT_THE_DEEP, count_macs, num_parameters

SOME_OF_TORCHVISION = [
    "resnet18",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "regnet_x_400mf",
]


@pytest.mark.parametrize("name", [*OURS_BUT_THE_DEEP, *SOME_OF_TORCHVISION])
def test_the_network_computes_what_the_module_computes(name: str) -> None:
    """Equal logits to the bit in eval mode, under the same keys."""
    side = max(ARCHITECTURES[name].minimum_image_size, 64)
    module = create(name, num_classes=5, image_size=side).eval()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    network = as_network(module, images[:1]).eval()
    assert list(network.state_dict()) == list(module.state_dict())
    with torch.no_grad():
        assert torch.equal(network(images), module(images))


@pytest.mark.parametrize("name", [*OURS_BUT_THE_DEEP, *SOME_OF_TORCHVISION])
def test_the_layer_table_counts_what_the_hooks_count(name: str) -> None:
    """Parameters and multiply-adds of the table equal an independent count."""
    side = ARCHITECTURES[name].image_size
    skeleton = create_skeleton(name, num_classes=11)
    with torch.device("meta"):
        network = build(trace(skeleton, torch.empty(1, 3, side, side)))
    table = layer_table(network)
    assert (table["parameters"], table["macs"]) == (num_parameters(skeleton), count_macs(skeleton, side))


@pytest.mark.parametrize("name", ["report/final", "cifar/resnet20", "mobilenet_v3_small"])
def test_the_seed_fixes_the_weights_and_nothing_else(name: str) -> None:
    """One seed, one network; another seed, another; the global generator is left where it was."""
    before = torch.get_rng_state()
    first, again, other = (create_network(name, num_classes=3, seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_options_and_size_reach_the_network() -> None:
    """A narrower student at its own size, trained one step."""
    network = create_network(
        "course/studentnet", num_classes=11, image_size=32, seed=0, width_mult=0.5
    ).train()
    assert num_parameters(network) < 256_779
    logits = network(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 11)
    logits.logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
