"""Every family of torchvision's convolutional networks can be pruned as far as one likes, and stored.

The largest are made narrower first, on the meta device, by the same code.
"""

import io

import pytest
import torch

import models
from models.architectures import create_skeleton
from models.channels import Channels, analyse, narrow, scaled
from models.graph import trace

from .conftest import lively, random_units, silenced

SIDES = {"inception_v3": 75, "squeezenet1_1": 33, "alexnet": 63}
WIDTHS = {
    "alexnet": 0.25,
    "vgg11_bn": 0.25,
    "wide_resnet50_2": 0.25,
    "convnext_tiny": 0.25,
    "resnext50_32x4d": 0.5,
}
FAMILIES = [
    *("alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121"),
    *("squeezenet1_1", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small"),
    *("shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf", "regnet_x_400mf", "efficientnet_b0"),
    "convnext_tiny",
]
# A layer norm over channels sees how many there are.
NOT_EXACT = {"convnext_tiny"}


def _network(name: str, side: int) -> models.Network:
    """With random weights."""
    skeleton = create_skeleton(name, num_classes=10, image_size=side)
    graph = trace(skeleton, torch.empty(1, 3, side, side, device="meta"))
    if name in WIDTHS:
        with torch.device("meta"):
            blueprint = models.build(graph)
        graph = scaled(blueprint, WIDTHS[name]).graph
    torch.manual_seed(0)
    return lively(models.build(graph))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_can_be_pruned_down_to_one_channel(name: str) -> None:
    """At 30 %, 50 %, 90 % and all but one unit a group: as many channels fewer as asked, and the file gives the
    same logits. Where half of the channels were 0 before, by their weights and shifts, the logits without them
    differ by at most 1e-5 of the largest."""
    side = SIDES.get(name, 32)
    network, images = _network(name, side), torch.rand(1, 3, side, side)
    channels = analyse(network)
    for ratio in (0.3, 0.5, 0.9, 1.0):
        removed = random_units(channels, ratio)
        before = silenced(network, channels, removed) if ratio == 0.5 else network
        narrowed = narrow(before, channels, removed)
        _check_sizes(network, narrowed, channels, removed)
        with torch.no_grad():
            logits = narrowed(images)
            assert logits.shape == (1, 10)
            if ratio == 0.5 and name not in NOT_EXACT:
                expected = before(images)
                scale = max(1.0, float(expected.abs().max()))
                torch.testing.assert_close(logits / scale, expected / scale, rtol=0, atol=1e-5)
            if ratio == 1.0:
                packed = models.pack(narrowed, preprocessing=None, class_names=None)
                assert torch.equal(models.load(io.BytesIO(packed))(images), logits)


def _check_sizes(
    network: models.Network, narrowed: models.Network, channels: Channels, removed: dict[str, list[int]]
) -> None:
    """Each tensor lost exactly the positions of the removed units; the layers say so, too."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for group in channels.groups:
        for member in group.members:
            counts = torch.bincount(member.unit, minlength=group.num_units)
            shapes[member.tensor][member.dim] -= int(counts[removed[group.name]].sum())
    assert {name: list(tensor.shape) for name, tensor in narrowed.state_dict().items()} == shapes
    for name, layer in narrowed.graph["layers"].items():
        if layer["type"] == "Conv2d":
            arguments, shape = layer["arguments"], shapes[f"{name}.weight"]
            assert [arguments["out_channels"], arguments["in_channels"] // arguments["groups"]] == shape[:2]
