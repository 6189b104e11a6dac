"""The networks of one report on compression (NTU Machine Learning 2020, homework 7, food-11 at 64x64).

`report/final` is the student that was handed in: conv 3-16-16-M-32-32-M-64-64-M-64-M, one linear layer,
120,859 parameters with 11 classes. The others are the report's comparison of architectures at about 1 MB: a
plain CNN, and the same with all but the first convolutions split into a grouped 3x3 convolution and a
pointwise one.

Every convolution has a bias. BN and ReLU follow the 3x3 convolutions only; a pointwise convolution has
neither. The flattened size follows from the image size: each of the four poolings halves the side, rounding
down.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

import torch
from torch import nn

from .blueprint import Architecture, Option

POOL: Final = "pool"
Plan = Sequence[int | Literal["pool"]]
Groups = Callable[[int], int]
"""Input channels of a 3x3 convolution -> its number of groups. Raises ValueError when they do not divide."""

PLAIN: Plan = (16, 16, POOL, 32, 32, POOL, 64, 64, POOL, 64, POOL)
MATCHED: Plan = (16, 16, POOL, 32, 32, POOL, 64, 64, POOL, 96, 96, POOL)

_SIDE_DIVISOR = 2**4


class ReportNet(nn.Module):
    """`features`, then `head`. [N, 3, S, S] -> logits [N, num_classes]."""

    def __init__(self, features: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images_NCHW))
        return logits


def _features(plan: Plan, groups: Groups | None, keep_first: int) -> nn.Sequential:
    """The convolutions of `plan`; those after the first `keep_first` are split, if `groups` is given."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, num_convs, num_pools = 3, 0, 0
    for item in plan:
        if isinstance(item, str):
            num_pools += 1
            layers[f"pool{num_pools}"] = nn.MaxPool2d(2)
            continue
        num_convs += 1
        split = groups if num_convs > keep_first else None
        middle = channels if split else item
        num_groups = split(channels) if split else 1
        layers[f"conv{num_convs}"] = nn.Conv2d(channels, middle, 3, padding=1, groups=num_groups)
        layers[f"bn{num_convs}"] = nn.BatchNorm2d(middle)
        layers[f"relu{num_convs}"] = nn.ReLU()
        if split:
            layers[f"pointwise{num_convs}"] = nn.Conv2d(middle, item, 1)
        channels = item
    return nn.Sequential(layers)


def _flat_size(plan: Plan, image_size: int) -> int:
    channels = [item for item in plan if not isinstance(item, str)][-1]
    return channels * (image_size // _SIDE_DIVISOR) ** 2


def _build_final(*, num_classes: int, image_size: int, dropout: float) -> nn.Module:
    head = OrderedDict[str, nn.Module](
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout),
        fc=nn.Linear(_flat_size(PLAIN, image_size), num_classes),
    )
    return ReportNet(_features(PLAIN, None, 0), nn.Sequential(head))


def _build(
    *,
    num_classes: int,
    image_size: int,
    dropout: float,
    plan: Plan,
    rule: Groups | None = None,
    keep_first: int = 0,
    groups: int | None = None,
) -> nn.Module:
    """A network of the comparison. Split convolutions have `groups` groups, or as many as `rule` says."""
    groups_of = _fixed(groups) if groups is not None else rule
    head = OrderedDict[str, nn.Module](
        dropout1=nn.Dropout2d(dropout),
        flatten=nn.Flatten(),
        fc1=nn.Linear(_flat_size(plan, image_size), 128),
        relu=nn.ReLU(),
        dropout2=nn.Dropout(dropout),
        fc2=nn.Linear(128, num_classes),
    )
    return ReportNet(_features(plan, groups_of, keep_first), nn.Sequential(head))


def _share(channels_per_group: int) -> Groups:
    """groups = in / `channels_per_group`."""

    def groups(channels: int) -> int:
        if channels % channels_per_group:
            raise ValueError(
                f"groups must divide in and out channels: in/{channels_per_group} of {channels} channels is "
                "not a whole number; raise keep_first, so that this convolution stays plain"
            )
        return channels // channels_per_group

    return groups


def _fixed(num_groups: int) -> Groups:
    """The same number of groups everywhere."""

    def groups(channels: int) -> int:
        if channels % num_groups:
            raise ValueError(
                f"groups must divide in and out channels: {num_groups} does not divide {channels}; "
                "choose groups that do, or raise keep_first, so that this convolution stays plain"
            )
        return num_groups

    return groups


_SOURCE = "NTU Machine Learning 2020, homework 7 (network compression), report"


def _architecture(name: str, build: Callable[..., nn.Module], options: dict[str, Option]) -> Architecture:
    return Architecture(
        name=f"report/{name}",
        family="report",
        source=_SOURCE,
        image_size=64,
        num_classes=11,
        build=build,
        options=options,
        minimum_image_size=_SIDE_DIVISOR,
    )


def _dropout(default: float, where: str) -> Option:
    return Option("number", default, f"Dropout probability {where}.", 0.0, 0.9)


def _split_architecture(name: str, plan: Plan, rule: Groups | None, **extra: Option) -> Architecture:
    num_convs = sum(item != POOL for item in plan)
    keep_first = Option("integer", 4, "How many of the first convolutions stay plain.", 0, num_convs)
    options = {**extra, "keep_first": keep_first, "dropout": _HEAD_DROPOUT}
    return _architecture(name, partial(_build, plan=plan, rule=rule), options)


_HEAD_DROPOUT = _dropout(0.5, "before each of the two linear layers")

ARCHITECTURES = [
    _architecture("final", _build_final, {"dropout": _dropout(0.0, "before the linear layer")}),
    _architecture("plain", partial(_build, plan=PLAIN), {"dropout": _HEAD_DROPOUT}),
    _split_architecture("separable", PLAIN, _share(1)),
    _split_architecture("separable-matched", MATCHED, _share(1)),
    _split_architecture("groups-half", PLAIN, _share(2)),
    _split_architecture("groups-quarter", PLAIN, _share(4)),
    _split_architecture("groups-eighth", PLAIN, _share(8)),
    _split_architecture("groups-1", PLAIN, _fixed(1)),
    _split_architecture(
        "groups", PLAIN, None, groups=Option("integer", 4, "Groups of every split convolution.", 1, 64)
    ),
]
