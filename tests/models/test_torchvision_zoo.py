"""torchvision's classifiers: our list against torchvision's own metadata."""

import pytest
import torch
import torchvision
from torchvision.models import get_model_weights, list_models

from models.architectures import ARCHITECTURES, create_skeleton

from .test_architectures import count_macs, num_parameters

NAMES = [
    name for name, architecture in ARCHITECTURES.items() if architecture.family.startswith("torchvision/")
]
# One a family and smallest side: its other members differ in depth and width only.
SMALLEST_OF_FAMILY = list(
    {(ARCHITECTURES[n].family, ARCHITECTURES[n].minimum_image_size): n for n in reversed(NAMES)}.values()
)
# Its parameters are published with the auxiliary classifier that we leave off.
WITH_AUXILIARY = {"inception_v3"}


def test_names_are_torchvisions() -> None:
    """Every name is one of torchvision's classifiers."""
    assert set(NAMES) <= set(list_models(module=torchvision.models))


def test_sides_are_torchvisions() -> None:
    """Every default side is the crop of the published weights."""
    crops = {name: next(iter(get_model_weights(name))).transforms().crop_size for name in NAMES}
    assert {name: [ARCHITECTURES[name].image_size] for name in NAMES} == crops


@pytest.mark.parametrize("name", SMALLEST_OF_FAMILY)
def test_sizes_are_torchvisions(name: str) -> None:
    """Parameters, and multiply-adds in 10^9, are those published with the weights.

    The published multiply-adds, too, count convolutions, linear layers and attention, for one image.
    """
    meta = next(iter(get_model_weights(name))).meta
    model = create_skeleton(name, num_classes=1000)
    if name not in WITH_AUXILIARY:
        assert num_parameters(model) == meta["num_params"]
    assert count_macs(model, ARCHITECTURES[name].image_size) / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)


@pytest.mark.parametrize("name", SMALLEST_OF_FAMILY)
def test_the_smallest_side_is_the_smallest_that_runs(name: str) -> None:
    """One pixel less leaves a layer without input; the smallest side trains."""
    smallest = ARCHITECTURES[name].minimum_image_size
    model = create_skeleton(name, num_classes=3, image_size=smallest).train()
    assert model(torch.empty(2, 3, smallest, smallest, device="meta")).shape == (2, 3)
    if ARCHITECTURES[name].image_size_multiple > 1:  # refused by the constructor, long before a layer runs
        with pytest.raises(ValueError, match="too small"):
            create_skeleton(name, num_classes=3, image_size=smallest - 1)
    elif smallest > 1:
        with pytest.raises((RuntimeError, ValueError)):
            model(torch.empty(2, 3, smallest - 1, smallest - 1, device="meta"))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def test_width_mult_narrows(name: str) -> None:
    """Half the width is about a quarter of the convolutions' weights."""
    whole, half = (num_parameters(create_skeleton(name, num_classes=3, width_mult=w)) for w in (1.0, 0.5))
    assert 0.2 < half / whole < 0.5


def test_a_vision_transformer_takes_whole_patches() -> None:
    """A side between two multiples of the patch is refused, naming both."""
    with pytest.raises(ValueError, match="give 224 or 240"):
        create_skeleton("vit_b_16", num_classes=3, image_size=230)
