"""From a photo to the network's input: to the bit what torchvision does, and sensible beyond it."""

import io
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision import transforms

import models
from tests.models.conftest import PREPROCESSING, noise_photo

MODES = {
    "nearest": transforms.InterpolationMode.NEAREST,
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
}
SIZES = [(64, 48), (48, 64), (33, 47), (101, 37), (16, 16), (7, 90), (1, 1), (21, 20)]
RESIZES: list[Any] = [None, 16, 21, [24, 17]]
CROPS: list[Any] = [None, 15, 16, [9, 30], [64, 64]]


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_photos_become_what_torchvision_makes_of_them(size: tuple[int, int], interpolation: str) -> None:
    """Resize (shorter side or both), CenterCrop (odd remainders, padding), ToTensor, Normalize."""
    photo = noise_photo(*size)
    for resize in RESIZES:
        for crop in CROPS:
            ours = {**PREPROCESSING, "resize": resize, "crop": crop, "interpolation": interpolation}
            steps: list[Any] = []
            if resize is not None:
                steps.append(transforms.Resize(resize, interpolation=MODES[interpolation]))
            if crop is not None:
                steps.append(transforms.CenterCrop(crop))
            to_pixels = transforms.Compose([*steps, transforms.PILToTensor()])
            normalised = transforms.Compose(
                [*steps, transforms.ToTensor(), transforms.Normalize(ours["mean"], ours["std"])]
            )
            pixels = models.resize_and_crop(photo, ours)
            assert pixels.dtype == torch.uint8
            assert torch.equal(pixels, to_pixels(photo)), (resize, crop)
            assert torch.equal(models.normalise(pixels[None], ours)[0], normalised(photo)), (resize, crop)


AS_IT_IS = {**PREPROCESSING, "resize": None, "crop": None}


def _reopened(image: Image.Image, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return Image.open(file)


def test_a_photo_is_turned_upright_first() -> None:
    photo = noise_photo(20, 10)
    sideways = photo.transpose(Image.Transpose.ROTATE_90)
    sideways.getexif()[0x0112] = 6  # "turn me 90 degrees clockwise"
    upright = models.resize_and_crop(sideways, AS_IT_IS)
    assert torch.equal(upright, models.resize_and_crop(photo, AS_IT_IS))


@pytest.mark.parametrize("opened", [False, True], ids=["in memory", "from PNG"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(opened: bool) -> None:
    values = [0, 128, 129, 257, 25700, 65535]
    image = Image.frombytes("I;16", (6, 1), b"".join(value.to_bytes(2, "little") for value in values))
    pixels = models.resize_and_crop(_reopened(image) if opened else image, AS_IT_IS)
    assert pixels[:, 0].tolist() == [[round(value / 257) for value in values]] * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    photo = noise_photo(12, 9, mode)
    pixels = models.resize_and_crop(photo, AS_IT_IS)
    assert torch.equal(pixels, transforms.functional.pil_to_tensor(photo.convert("RGB")))


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    """Without a warning, which would be an error here."""
    palette = noise_photo(12, 9).quantize(8)
    image = _reopened(palette, transparency=bytes([0, 128, 255, 255, 255, 255, 255, 255]))
    expected = transforms.functional.pil_to_tensor(palette.convert("RGB"))
    assert torch.equal(models.resize_and_crop(image, AS_IT_IS), expected)


def test_a_picture_of_floats_is_refused() -> None:
    with pytest.raises(ValueError, match="8 or 16 bits"):
        models.resize_and_crop(Image.new("F", (4, 4)), AS_IT_IS)
