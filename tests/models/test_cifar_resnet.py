"""CIFAR ResNets against the paper's table and a hand-worked shortcut."""

import pytest
import torch

from models.architectures import create, create_skeleton
from models.cifar_resnet import PadShortcut

from .test_architectures import count_macs, num_parameters


def expected_parameters(depth: int, shortcut: str) -> int:
    """Counted by hand: bias-free 3x3 convolutions with a BN each, ten classes."""
    n = (depth - 2) // 6
    total = 3 * 16 * 9 + 2 * 16 + 64 * 10 + 10
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        total += inputs * outputs * 9 + (2 * n - 1) * outputs * outputs * 9 + 2 * n * 2 * outputs
        if shortcut == "conv" and inputs != outputs:
            total += inputs * outputs + 2 * outputs
    return total


@pytest.mark.parametrize("shortcut", ["pad", "conv"])
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_parameters_are_the_papers(depth: int, millions: str, shortcut: str) -> None:
    """Table 6 of the paper rounds to these millions; option B adds two small convolutions."""
    model = create_skeleton(f"cifar/resnet{depth}", num_classes=10, shortcut=shortcut)
    assert num_parameters(model) == expected_parameters(depth, shortcut)
    if shortcut == "pad":
        assert f"{num_parameters(model) / 1e6:.{len(millions) - 2}f}" == millions


def test_resnet56_multiply_adds() -> None:
    """125.49 M at 32x32, as published beside pruned ResNet-56 (e.g. FPGM, https://arxiv.org/abs/1811.00250)."""
    assert round(count_macs(create_skeleton("cifar/resnet56", num_classes=10), 32) / 1e6, 2) == 125.49


def test_pad_shortcut_takes_every_second_pixel_between_zero_channels() -> None:
    """Worked by hand: one channel of a 4x4 image, padded to three."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    result = PadShortcut(1, 3)(image)
    assert result.tolist() == [[[[0, 0], [0, 0]], [[0, 2], [8, 10]], [[0, 0], [0, 0]]]]


def test_keys_are_torchvisions() -> None:
    """`layer2.0.conv1.weight` and `fc.bias`, so that common checkpoints need no key map."""
    state = create("cifar/resnet20", num_classes=10).state_dict()
    assert state["layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert state["fc.bias"].shape == (10,)
