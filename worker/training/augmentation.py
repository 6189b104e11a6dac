"""Random views of a batch. A *view* is drawn once and can be applied at any resolution, so that a teacher and
a student with different input sizes see the same picture: soft labels of another view than the student's
teach it wrong (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent",
https://arxiv.org/abs/2106.05237).

Brightness, contrast, saturation and rotation are torchvision's; unlike there, a whole batch is done at once,
colours change in that fixed order, and rotation interpolates bilinearly. Shapes: N images, C = 3 colours, H x
W pixels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """Ranges to draw from. Each of brightness, contrast and saturation is a factor in [1 - x, 1 + x], as
    torchvision has it."""

    flip: float = 0.5
    """Probability of a mirror image."""
    degrees: float = 15.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    smallest_crop: float = 1.0
    """Smallest share of the area that a random crop keeps; its sides' ratio is between 3/4 and 4/3."""
    shift: float = 0.0
    """Largest move, as a share of the side."""
    erase: float = 0.0
    """Probability that a rectangle of 2 to 20 % of the area turns grey."""


RECIPES: dict[str, Recipe | None] = {
    "none": None,
    "light": Recipe(),  # report G2: right for networks of about 1 MB
    "strong": Recipe(brightness=0.4, contrast=0.4, saturation=0.4, smallest_crop=0.5, shift=0.1, erase=0.5),
}


@dataclass(frozen=True)
class View:
    """What was drawn, one row an image. Lengths are shares of the picture (x by its width, y by its height),
    never pixels."""

    mirror_N: Tensor
    """-1: mirrored, 1: not."""
    radians_N: Tensor
    """Counter-clockwise."""
    crop_N4: Tensor
    """Centre x, y in [-1, 1] (0: the middle) and the kept width and height."""
    shift_N2: Tensor
    """x, y in [-1, 1] coordinates (2 is the whole side)."""
    colour_N3: Tensor
    """Factors of brightness, contrast, saturation."""
    erase_N4: Tensor
    """Left, top, right, bottom in 0..1; all 0: nothing is erased."""

    def to(self, device: torch.device) -> "View":
        return View(*(value.to(device, non_blocking=True) for value in vars(self).values()))

    def rows(self, rows: slice | Tensor) -> "View":
        """The views of some of the images."""
        return View(*(value[rows] for value in vars(self).values()))


def draw_view(
    augmentation: Literal["none", "light", "strong"], num_images: int, generator: torch.Generator
) -> View | None:
    """Draw one view an image; None: the pictures as they are. The generator is on the CPU, so every device
    sees the same views."""
    recipe = RECIPES[augmentation]
    if recipe is None:
        return None

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return torch.rand(num_images, *shape, generator=generator) * (high - low) + low

    mirror_N = 1 - 2 * (uniform(low=0, high=1) < recipe.flip).float()
    radians_N = torch.deg2rad(uniform(low=-recipe.degrees, high=recipe.degrees))
    area_N = uniform(low=recipe.smallest_crop, high=1)
    ratio_N = (
        torch.exp(uniform(low=-0.2877, high=0.2877)) if recipe.smallest_crop < 1 else torch.ones(num_images)
    )  # ln 4/3
    kept_N2 = torch.stack([area_N * ratio_N, area_N / ratio_N], dim=1).sqrt().clamp(max=1)
    centre_N2 = uniform(2, low=-1, high=1) * (1 - kept_N2)
    spread = torch.tensor([recipe.brightness, recipe.contrast, recipe.saturation])
    corner_N2, erased_N2 = uniform(2, low=0, high=1), uniform(2, low=0.02**0.5, high=0.2**0.5)
    is_erased_N1 = uniform(1, low=0, high=1) < recipe.erase
    corner_N2 = corner_N2 * (1 - erased_N2)
    return View(
        mirror_N=mirror_N,
        radians_N=radians_N,
        crop_N4=torch.cat([centre_N2, kept_N2], dim=1),
        shift_N2=uniform(2, low=-2 * recipe.shift, high=2 * recipe.shift),
        colour_N3=1 + uniform(3, low=-1, high=1) * spread,
        erase_N4=torch.cat([corner_N2, corner_N2 + erased_N2], dim=1) * is_erased_N1,
    )


def apply_view(images_NCHW: Tensor, view: View | None) -> Tensor:
    """float32 [N, 3, H, W] in 0..1 from uint8 images of any size; outside the picture is black."""
    pixels_NCHW = images_NCHW.float().div_(255)
    if view is None:
        return pixels_NCHW
    height, width = pixels_NCHW.shape[2:]
    grid_NHW2 = F.affine_grid(
        _source_of_target(view, height / width), list(pixels_NCHW.shape), align_corners=False
    )
    pixels_NCHW = F.grid_sample(
        pixels_NCHW, grid_NHW2, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return _erase(_jitter(pixels_NCHW, view.colour_N3), view.erase_N4)


def _source_of_target(view: View, aspect: float) -> Tensor:
    """[N, 2, 3]: where in the source a target's point comes from. To the picture: crop, mirror, rotate,
    shift; so backwards here."""
    cos_N, sin_N = view.radians_N.cos(), view.radians_N.sin()
    # In [-1, 1] coordinates a rotation of a picture that is not square shears, unless the aspect is taken out
    # and put back.
    rotation_N22 = torch.stack(
        [torch.stack([cos_N, -sin_N * aspect], dim=1), torch.stack([sin_N / aspect, cos_N], dim=1)], dim=1
    )
    scale_N2 = view.crop_N4[:, 2:] * torch.stack([view.mirror_N, torch.ones_like(view.mirror_N)], dim=1)
    linear_N22 = scale_N2.unsqueeze(2) * rotation_N22
    offset_N21 = view.crop_N4[:, :2].unsqueeze(2) - linear_N22 @ view.shift_N2.unsqueeze(2)
    return torch.cat([linear_N22, offset_N21], dim=2)


def _grey(pixels_NCHW: Tensor) -> Tensor:
    """[N, 1, H, W]: torchvision's weights (ITU-R 601-2)."""
    red, green, blue = pixels_NCHW.unbind(1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def _jitter(pixels_NCHW: Tensor, colour_N3: Tensor) -> Tensor:
    """torchvision's adjust_brightness, adjust_contrast, adjust_saturation, in place: blend with black, with
    mean grey, with grey."""
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in colour_N3.unbind(1))
    pixels_NCHW.mul_(brightness).clamp_(0, 1)
    mean = _grey(pixels_NCHW).mean(dim=(1, 2, 3), keepdim=True)
    pixels_NCHW.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    grey = _grey(pixels_NCHW)
    return pixels_NCHW.mul_(saturation).add_(grey.mul_(1 - saturation)).clamp_(0, 1)


def _erase(pixels_NCHW: Tensor, erase_N4: Tensor) -> Tensor:
    if not bool(erase_N4.any()):
        return pixels_NCHW
    height, width = pixels_NCHW.shape[2:]
    left, top, right, bottom = (side.view(-1, 1, 1) for side in erase_N4.unbind(1))
    y = (torch.arange(height, device=pixels_NCHW.device).view(1, -1, 1) + 0.5) / height
    x = (torch.arange(width, device=pixels_NCHW.device).view(1, 1, -1) + 0.5) / width
    is_erased = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return pixels_NCHW.masked_fill_(is_erased.unsqueeze(1), 0.5)
