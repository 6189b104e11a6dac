"""A student's preprocessing from its teacher's: the same part of the picture at another size."""

import pytest

from app.spec.networks import Preprocessing, scaled_preprocessing


@pytest.mark.parametrize(
    ("teacher", "image_size", "resize", "crop"),
    [
        ({"resize": [128, 128]}, 64, [64, 64], None),
        ({"resize": 256, "crop": 224}, 112, 128, 112),
        ({"resize": 256, "crop": 224}, 64, 73, 64),
        ({"resize": 256, "crop": [224, 224]}, 224, 256, [224, 224]),
        ({"resize": [256, 300], "crop": 224}, 112, [128, 150], 112),
        ({"resize": 64, "crop": 64}, 128, 128, 128),
        ({"resize": [64, 96]}, 32, [32, 32], None),
        ({"crop": 64}, 64, None, 64),
        ({"crop": 64}, 32, 32, 32),
    ],
)
def test_resize_and_crop_scale_together(teacher, image_size, resize, crop):
    scaled = scaled_preprocessing(Preprocessing(**teacher), image_size)
    assert (scaled.resize, scaled.crop) == (resize, crop)
    assert scaled.input_size == (image_size, image_size)


def test_colours_and_interpolation_stay():
    teacher = Preprocessing(
        resize=256, crop=224, interpolation="bicubic", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
    )
    scaled = scaled_preprocessing(teacher, 64)
    assert (scaled.interpolation, scaled.mean, scaled.std) == (
        teacher.interpolation,
        teacher.mean,
        teacher.std,
    )


def test_the_result_is_a_valid_preprocessing_for_every_size():
    """Rounding never makes the resize smaller than the crop."""
    teacher = Preprocessing(resize=232, crop=224)
    for image_size in range(8, 300):
        scaled = scaled_preprocessing(teacher, image_size)
        assert Preprocessing(**scaled.model_dump()) == scaled
        assert scaled.resize >= scaled.crop == image_size
