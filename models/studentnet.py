"""StudentNet, the student of the course's homework 7 (NTU Machine Learning 2020, food-11 at 256x256).

After MobileNet (Howard et al. 2017, https://arxiv.org/abs/1704.04861), with BN and ReLU6 after the
depthwise convolution and nothing after the pointwise one. 256,779 parameters with 11 classes. Keys are the
course's own, so that its files load: `cnn.i.0` depthwise, `cnn.i.1` BN, `cnn.i.3` pointwise, `fc.0`.
"""

import torch
from torch import nn

from .blueprint import Architecture, Option

_MULTIPLIERS = (1, 2, 4, 8, 16, 16, 16, 16)
# The course narrows these only: the first three are small already, and the last one feeds the classifier.
_NARROWED = range(3, 7)


def widths(base: int, width_mult: float) -> list[int]:
    """Channels of the eight blocks, rounded down as the course's code does."""
    return [int(base * m * width_mult) if i in _NARROWED else base * m for i, m in enumerate(_MULTIPLIERS)]


class StudentNet(nn.Module):
    """[N, 3, S, S], S >= 16 -> logits [N, num_classes]."""

    def __init__(self, num_classes: int, base: int = 16, width_mult: float = 1.0) -> None:
        super().__init__()
        channels = widths(base, width_mult)
        blocks = [_first_block(channels[0])]
        for index in range(1, 8):
            blocks.append(_separable_block(channels[index - 1], channels[index], pool=index <= 3))
        self.cnn = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d((1, 1)))
        self.fc = nn.Sequential(nn.Linear(channels[-1], num_classes))

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(torch.flatten(self.cnn(images_NCHW), 1))
        return logits


def _first_block(num_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, num_channels, 3, padding=1), nn.BatchNorm2d(num_channels), nn.ReLU6(), nn.MaxPool2d(2)
    )


def _separable_block(num_inputs: int, num_outputs: int, *, pool: bool) -> nn.Sequential:
    layers = [
        nn.Conv2d(num_inputs, num_inputs, 3, padding=1, groups=num_inputs),
        nn.BatchNorm2d(num_inputs),
        nn.ReLU6(),
        nn.Conv2d(num_inputs, num_outputs, 1),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if pool else nn.Sequential(*layers)


def _build(*, num_classes: int, image_size: int, base: int, width_mult: float) -> nn.Module:
    # Global pooling: the size does not shape the network.
    if min(widths(base, width_mult)) < 1:
        raise ValueError(
            f"width_mult {width_mult} leaves no channel of {base * _MULTIPLIERS[3]} (base {base}): "
            f"raise width_mult to at least 1/{base * _MULTIPLIERS[3]}, or raise base"
        )
    return StudentNet(num_classes, base, width_mult)


ARCHITECTURES = [
    Architecture(
        name="course/studentnet",
        family="studentnet",
        source="NTU Machine Learning 2020, homework 7 (network compression), StudentNet",
        image_size=256,
        num_classes=11,
        build=_build,
        options={
            "base": Option(
                "integer", 16, "Channels of the first block; the others are multiples of it.", 1, 256
            ),
            "width_mult": Option("number", 1.0, "Factor on the channels of blocks 3 to 6.", 0.001, 8.0),
        },
        minimum_image_size=16,
    )
]
