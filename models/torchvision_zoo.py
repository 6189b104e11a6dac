"""torchvision's classifiers by torchvision's own names (https://pytorch.org/vision/stable/models.html).

`torchvision` is imported only when one is built: the names and default sides below are copied from its
weights' metadata (0.29), so that listing the architectures needs no torchvision; the tests compare the two.
The smallest sides were found by trying (for efficientnet_v2 the metadata says 33, and 1 works). Auxiliary
classifiers (googlenet, inception_v3) are left off: they serve training only, and never reach an artifact.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from .blueprint import Architecture, Option

_ARXIV = "https://arxiv.org/abs/"

# Trained with them, never asked in eval mode: checkpoints have them, the networks here do not.
AUXILIARY_HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_AUXILIARY_OFF: dict[str, Any] = {"aux_logits": False, "init_weights": True}
_BUILD_ARGUMENTS: dict[str, dict[str, Any]] = {"googlenet": _AUXILIARY_OFF, "inception_v3": _AUXILIARY_OFF}

_WIDTH_MULT = {
    "width_mult": Option("number", 1.0, "Factor on all channels, rounded to multiples of 8.", 0.1, 4.0)
}
_OPTIONS = dict.fromkeys(("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"), _WIDTH_MULT)


def _build(name: str, *, num_classes: int, image_size: int, **options: Any) -> nn.Module:
    # These networks pool globally: the size does not shape them.
    from torchvision.models import get_model

    arguments = {**_BUILD_ARGUMENTS.get(name, {}), **options}
    model: nn.Module = get_model(name, weights=None, num_classes=num_classes, **arguments)
    return model


def _family(
    family: str, paper: str, sizes: dict[str, int], minimum_image_size: int = 1
) -> list[Architecture]:
    """Architectures of one paper; `sizes` maps each name to its default side."""
    return [
        Architecture(
            name=name,
            family=f"torchvision/{family}",
            source=f"torchvision.models.{name}; {paper}",
            image_size=image_size,
            num_classes=1000,
            build=partial(_build, name),
            options=_OPTIONS.get(name, {}),
            minimum_image_size=minimum_image_size,
        )
        for name, image_size in sizes.items()
    ]


def _build_vit(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    # A position embedding for each patch: the size does shape this one.
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None, num_classes=num_classes, image_size=image_size)
    return model


def _vit(name: str, image_size: int, patch: int) -> Architecture:
    (plain,) = _family(
        "vit", f"Dosovitskiy et al. 2020, {_ARXIV}2010.11929", {name: image_size}, minimum_image_size=patch
    )
    return replace(plain, build=partial(_build_vit, name), image_size_multiple=patch)


def _at(image_size: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, image_size)


ARCHITECTURES = [
    *_family("alexnet", f"Krizhevsky 2014, {_ARXIV}1404.5997", _at(224, "alexnet"), 63),
    *_family(
        "convnext",
        f"Liu et al. 2022, {_ARXIV}2201.03545",
        _at(224, "convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
        32,
    ),
    *_family(
        "densenet",
        f"Huang et al. 2016, {_ARXIV}1608.06993",
        _at(224, "densenet121", "densenet161", "densenet169", "densenet201"),
        29,
    ),
    *_family(
        "efficientnet",
        f"Tan & Le 2019, {_ARXIV}1905.11946",
        {
            "efficientnet_b0": 224,
            "efficientnet_b1": 240,
            "efficientnet_b2": 288,
            "efficientnet_b3": 300,
            "efficientnet_b4": 380,
            "efficientnet_b5": 456,
            "efficientnet_b6": 528,
            "efficientnet_b7": 600,
        },
    ),
    *_family(
        "efficientnet_v2",
        f"Tan & Le 2021, {_ARXIV}2104.00298",
        {"efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480},
    ),
    *_family("googlenet", f"Szegedy et al. 2014, {_ARXIV}1409.4842", _at(224, "googlenet"), 15),
    *_family("inception", f"Szegedy et al. 2015, {_ARXIV}1512.00567", _at(299, "inception_v3"), 75),
    *_family(
        "mnasnet",
        f"Tan et al. 2018, {_ARXIV}1807.11626",
        _at(224, "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    ),
    *_family("mobilenet_v2", f"Sandler et al. 2018, {_ARXIV}1801.04381", _at(224, "mobilenet_v2")),
    *_family(
        "mobilenet_v3",
        f"Howard et al. 2019, {_ARXIV}1905.02244",
        _at(224, "mobilenet_v3_small", "mobilenet_v3_large"),
    ),
    *_family(
        "regnet",
        f"Radosavovic et al. 2020, {_ARXIV}2003.13678",
        {
            **_at(
                224, "regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf", "regnet_x_8gf"
            ),
            **_at(224, "regnet_x_16gf", "regnet_x_32gf"),
            **_at(
                224, "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf", "regnet_y_8gf"
            ),
            **_at(224, "regnet_y_16gf", "regnet_y_32gf"),
            "regnet_y_128gf": 384,
        },
    ),
    *_family(
        "resnet",
        f"He et al. 2015, {_ARXIV}1512.03385",
        _at(224, "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ),
    *_family(
        "resnext",
        f"Xie et al. 2016, {_ARXIV}1611.05431",
        _at(224, "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    ),
    *_family(
        "shufflenet_v2",
        f"Ma et al. 2018, {_ARXIV}1807.11164",
        _at(224, "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
    ),
    *_family("squeezenet", f"Iandola et al. 2016, {_ARXIV}1602.07360", _at(224, "squeezenet1_0"), 21),
    *_family("squeezenet", f"Iandola et al. 2016, {_ARXIV}1602.07360", _at(224, "squeezenet1_1"), 17),
    *_family(
        "vgg",
        f"Simonyan & Zisserman 2014, {_ARXIV}1409.1556",
        _at(224, "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
        32,
    ),
    _vit("vit_b_16", 224, 16),
    _vit("vit_b_32", 224, 32),
    _vit("vit_l_16", 224, 16),
    _vit("vit_l_32", 224, 32),
    _vit("vit_h_14", 518, 14),
    *_family(
        "wide_resnet",
        f"Zagoruyko & Komodakis 2016, {_ARXIV}1605.07146",
        _at(224, "wide_resnet50_2", "wide_resnet101_2"),
    ),
]
