"""ResNets for 32x32 images (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

6n + 2 layers: a 3x3 convolution, three stages of n basic blocks with 16, 32 and 64 channels, global average
pooling, one linear layer. Shortcuts that change shape are the paper's option A ("identity shortcuts in all
cases"): every second pixel, missing channels filled with zeros; no parameters. Option B (a 1x1 convolution
with BN) is the option `shortcut="conv"`. The zeros go half before, half after the channels, as in the
widely used port https://github.com/akamaster/pytorch_resnet_cifar10; the paper does not say. Keys follow
torchvision's ResNet.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .blueprint import Architecture, Option


class PadShortcut(nn.Module):
    """Option A: halve the side by taking every second pixel, and add zero channels on both sides."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.before = (num_outputs - num_inputs) // 2
        self.after = num_outputs - num_inputs - self.before

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return F.pad(x_NCHW[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 and shortcut == "pad":
            self.downsample = PadShortcut(num_inputs, num_outputs)
        elif stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(num_outputs)
            )

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        y_NCHW = self.relu(self.bn1(self.conv1(x_NCHW)))
        y_NCHW = self.bn2(self.conv2(y_NCHW))
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        result: torch.Tensor = self.relu(y_NCHW + shortcut)
        return result


class CifarResNet(nn.Module):
    """[N, 3, S, S] -> logits [N, num_classes]. `depth` is 6n + 2."""

    def __init__(self, depth: int, num_classes: int, width: int = 16, shortcut: str = "pad") -> None:
        super().__init__()
        assert (depth - 2) % 6 == 0, depth
        num_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, 1, num_blocks, shortcut)
        self.layer2 = _stage(width, 2 * width, 2, num_blocks, shortcut)
        self.layer3 = _stage(2 * width, 4 * width, 2, num_blocks, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        x_NCHW = self.relu(self.bn1(self.conv1(images_NCHW)))
        x_NCHW = self.layer3(self.layer2(self.layer1(x_NCHW)))
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x_NCHW), 1))
        return logits


def _stage(num_inputs: int, num_outputs: int, stride: int, num_blocks: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(num_inputs, num_outputs, stride, shortcut)
    return nn.Sequential(
        first, *(BasicBlock(num_outputs, num_outputs, 1, shortcut) for _ in range(num_blocks - 1))
    )


def _build(depth: int, *, num_classes: int, image_size: int, width: int, shortcut: str) -> nn.Module:
    # Global pooling: the size does not shape the network.
    return CifarResNet(depth, num_classes, width, shortcut)


ARCHITECTURES = [
    Architecture(
        name=f"cifar/resnet{depth}",
        family="cifar_resnet",
        source="He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2",
        image_size=32,
        num_classes=10,
        build=partial(_build, depth),
        options={
            "width": Option(
                "integer", 16, "Channels of the first stage; the others have 2 and 4 times as many.", 1, 256
            ),
            "shortcut": Option(
                "string",
                "pad",
                "How a shortcut changes shape: `pad` (option A) takes every second pixel and adds zero "
                "channels; `conv` (option B) is a 1x1 convolution with BN.",
                choices=("pad", "conv"),
            ),
        },
    )
    for depth in (20, 32, 44, 56, 110)
]
