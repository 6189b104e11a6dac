"""Every torchvision classifier as data: same logits, gradients and names, and the same again from a file.

One variant of every family runs, and every size up to 30 million parameters; what is larger differs from its
smaller siblings in widths and depths alone. Families that are over that line at any size run smaller: AlexNet
and VGG-11 with an average pool to 1x1 in front of their first Linear, Wide ResNet with one block a stage,
ViT-B/32 with two blocks.
"""

import io
import json

import pytest
import torch
import torchvision
from torch import Tensor, nn

import models
from models.graph import left_out

SMALL_ENOUGH = [
    *("convnext_tiny", "densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{n}" for n in range(5)),
    *("efficientnet_v2_s", "googlenet", "inception_v3"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"regnet_{kind}_{size}" for kind in "xy" for size in ("400mf", "800mf", "1_6gf", "3_2gf")),
    *("resnet18", "resnet34", "resnet50", "resnext50_32x4d"),
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    *("squeezenet1_0", "squeezenet1_1"),
]
SMALLEST_SIDE = {"inception_v3": 75, "alexnet": 63, "squeezenet1_0": 33, "squeezenet1_1": 33}
OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


def _original(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in ("alexnet", "vgg11", "vgg11_bn"):
        with torch.device("meta"):  # 60 and 130 million parameters that are thrown away
            module = torchvision.models.get_model(name, weights=None, num_classes=10)
            module.avgpool = nn.AdaptiveAvgPool2d(1)
            position, channels = (1, 256) if name == "alexnet" else (0, 512)
            module.classifier[position] = nn.Linear(channels, 4096)
        module = module.to_empty(device="cpu")
        for part in module.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        return module
    if name == "wide_resnet50_2":
        return torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=128
        )
    if name == "vit_b_32":
        module = torchvision.models.VisionTransformer(32, 32, 2, 12, 768, 256, dropout=0.1, num_classes=10)
        nn.init.normal_(module.heads.head.weight, std=0.1)  # torchvision's zeros would hide everything before
        return module
    return torchvision.models.get_model(name, weights=None, num_classes=10, **OPTIONS.get(name, {}))


def _images(name: str, num_images: int = 2) -> Tensor:
    side = SMALLEST_SIDE.get(name, 32)
    return torch.randn(num_images, 3, side, side, generator=torch.Generator().manual_seed(1))


def _gradients(module: nn.Module, images: Tensor) -> list[Tensor]:
    module.train()
    module.zero_grad()
    torch.manual_seed(7)  # dropout and stochastic depth draw from here
    module(images).square().sum().backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    "name", [*SMALL_ENOUGH, "alexnet", "vgg11", "vgg11_bn", "wide_resnet50_2", "vit_b_32"]
)
def test_a_torchvision_network_survives_as_data(name: str) -> None:
    """Traced, through JSON, built, loaded with its state_dict, packed, loaded: never a bit of difference."""
    original = _original(name)
    images = _images(name)
    graph = models.as_network(original, images).graph
    graph = json.loads(json.dumps(graph))

    with torch.device("meta"):
        network = models.build(graph)
    network = network.to_empty(device="cpu")
    network.load_state_dict(original.state_dict(), strict=True)
    assert list(network.state_dict()) == list(original.state_dict())
    assert [n for n, _ in network.named_parameters()] == [n for n, _ in original.named_parameters()]

    original.eval(), network.eval()
    with torch.no_grad():
        expected = original(images)
        assert torch.equal(network(images), expected)
        loaded = models.load(io.BytesIO(models.pack(network, preprocessing=None, class_names=None)))
        assert torch.equal(loaded(images), expected)
    del loaded

    batch = _images(name, 2)
    theirs, ours = _gradients(original, batch), _gradients(network, batch)
    assert len(theirs) == len(ours) == len(list(original.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    buffers = zip(original.buffers(), network.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers), "batch norm counted differently"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out_and_named(name: str) -> None:
    """The networks as torchvision makes them by default are traced as in eval mode."""
    original = torchvision.models.get_model(name, weights=None, init_weights=False, num_classes=10)
    network = models.as_network(original, _images(name))
    missing = left_out(original, network.graph)
    assert missing
    assert all("aux" in key.lower() for key in missing)


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t", "maxvit_t"])
def test_networks_outside_the_vocabulary_are_refused_by_node(name: str) -> None:
    with torch.device("meta"):
        original = torchvision.models.get_model(name, weights=None)
    with pytest.raises(models.GraphError, match=r"node '\w+': function 'torch\S+' is not in the vocabulary"):
        models.trace(original, torch.empty(2, 3, 224, 224))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_export_keeps_the_logits(name: str) -> None:
    """torch.export takes a Network, for any batch size."""
    network = models.as_network(_original(name).eval(), _images(name))
    exported = torch.export.export(
        network, (_images(name),), dynamic_shapes=({0: torch.export.Dim("N", min=2, max=64)},)
    )
    images = _images(name, 5)
    assert torch.equal(exported.module()(images), network(images))


def test_compile_captures_the_whole_graph() -> None:
    network = models.as_network(_original("squeezenet1_1").eval(), _images("squeezenet1_1"))
    images = _images("squeezenet1_1")
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images), network(images))
