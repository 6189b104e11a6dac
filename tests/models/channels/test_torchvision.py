"""Every family of torchvision's convolutional networks can be pruned as far as one likes, and stored."""

import io

import pytest
import torch
import torchvision
from torch import nn

import models
from models.channels import analyse, narrow

from .conftest import lively, random_units, silenced

SIDES = {"inception_v3": 75, "squeezenet1_1": 33, "alexnet": 63}
FAMILIES = [
    *(
        "alexnet",
        "vgg11_bn",
        "resnet18",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "densenet121",
        "squeezenet1_1",
    ),
    *("googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"),
    *("regnet_y_400mf", "regnet_x_400mf", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"),
]
RATIOS = (0.3, 0.5, 0.9, 1.0)
# A layer norm over channels sees how many there are.
NOT_EXACT = {"convnext_tiny"}


def _original(name: str) -> nn.Module:
    """As torchvision makes it, the very large ones shorter or narrower."""
    if name in ("resnext50_32x4d", "wide_resnet50_2"):
        width = (
            {"groups": 32, "width_per_group": 4} if name == "resnext50_32x4d" else {"width_per_group": 128}
        )
        return torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=10, **width
        )
    if name == "convnext_tiny":
        setting = torchvision.models.convnext.CNBlockConfig
        blocks = [setting(24, 48, 2), setting(48, 96, 1), setting(96, None, 1)]
        return torchvision.models.ConvNeXt(blocks, num_classes=10)
    if name in ("alexnet", "vgg11_bn"):
        module = (
            torchvision.models.get_model(name, weights=None, num_classes=10, init_weights=False)
            if (name == "vgg11_bn")
            else torchvision.models.alexnet(num_classes=10)
        )
        position, channels = (0, 512) if name == "vgg11_bn" else (1, 256)
        module.avgpool = nn.AdaptiveAvgPool2d(2)
        module.classifier[position] = nn.Linear(4 * channels, 64)
        module.classifier[position + 3] = nn.Linear(64, 48)
        module.classifier[-1] = nn.Linear(48, 10)
        return module
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_can_be_pruned_down_to_one_channel(name: str) -> None:
    """At 30 %, 50 %, 90 % and all but one unit a group: fewer channels as asked, the file gives the same logits,
    and where the removed channels were zero the logits are those of the network before."""
    torch.manual_seed(0)
    side = SIDES.get(name, 32)
    network = lively(models.as_network(_original(name), torch.rand(2, 3, side, side)))
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    channels = analyse(network)
    for ratio in RATIOS:
        removed = random_units(channels, ratio)
        silent = silenced(network, channels, removed) if ratio == 0.5 else network
        narrowed = narrow(silent, channels, removed)
        with torch.no_grad():
            logits = narrowed(images)
            assert logits.shape == (2, 10)
            if ratio == 0.5 and name not in NOT_EXACT:
                torch.testing.assert_close(logits, silent(images), rtol=1e-7, atol=1e-7)
        _check_sizes(network, narrowed, channels, removed)
        if ratio >= 0.9:  # writing takes time by the size
            packed = models.pack(narrowed, preprocessing=None, class_names=None)
            again = models.load(io.BytesIO(packed))
            assert torch.equal(again(images), logits)


def _check_sizes(
    network: models.Network,
    narrowed: models.Network,
    channels: models.channels.Channels,
    removed: dict[str, list[int]],
) -> None:
    """Each tensor lost exactly the positions of the removed units; the layers say so, too."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for group in channels.groups:
        for member in group.members:
            counts = torch.bincount(member.unit, minlength=group.num_units)
            shapes[member.tensor][member.dim] -= int(counts[removed[group.name]].sum())
    assert {name: list(tensor.shape) for name, tensor in narrowed.state_dict().items()} == shapes
    for row in models.layer_table(narrowed)["rows"]:
        if row["type"] in ("Conv2d", "Linear"):
            layer = narrowed.get_submodule(row["name"])
            dim = 0 if row["type"] == "Conv2d" else -1
            assert row["output_shape"][dim] == layer.weight.shape[0]
