"""Views: torchvision's operations, batched, and the same picture at every resolution."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF

from worker.training.augmentation import apply_view, draw_view


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _pictures(num_images=6, height=24, width=24, seed=1):
    return torch.randint(
        0, 256, (num_images, 3, height, width), generator=_generator(seed), dtype=torch.uint8
    )


def _neutral(num_images=6):
    """A view that changes nothing, to switch single effects on."""
    view = draw_view("light", num_images, _generator())
    return dataclasses.replace(
        view,
        mirror_N=torch.ones(num_images),
        radians_N=torch.zeros(num_images),
        colour_N3=torch.ones(num_images, 3),
    )


def test_none_draws_nothing_and_changes_nothing():
    assert draw_view("none", 6, _generator()) is None
    pictures = _pictures()
    assert torch.equal(apply_view(pictures, None), pictures.float() / 255)


def test_a_neutral_view_is_the_picture():
    pictures = _pictures()
    torch.testing.assert_close(apply_view(pictures, _neutral()), pictures.float() / 255, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 36)])
def test_rotation_is_torchvisions(height, width):
    """Also of pictures that are not square."""
    pictures, drawn = _pictures(6, height, width), draw_view("light", 6, _generator())
    ours = apply_view(pictures, dataclasses.replace(_neutral(), radians_N=drawn.radians_N))
    for index, radians in enumerate(drawn.radians_N.tolist()):
        theirs = TF.rotate(
            pictures[index].float() / 255, math.degrees(radians), TF.InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(ours[index], theirs, atol=1e-4, rtol=0)


def test_mirror_is_torchvisions():
    pictures = _pictures()
    ours = apply_view(pictures, dataclasses.replace(_neutral(), mirror_N=-torch.ones(6)))
    torch.testing.assert_close(ours, TF.hflip(pictures).float() / 255, atol=2e-5, rtol=0)


def test_colours_are_torchvisions():
    pictures, drawn = _pictures(), draw_view("strong", 6, _generator())
    ours = apply_view(pictures, dataclasses.replace(_neutral(), colour_N3=drawn.colour_N3))
    for index, (brightness, contrast, saturation) in enumerate(drawn.colour_N3.tolist()):
        theirs = TF.adjust_brightness(pictures[index].float() / 255, brightness)
        theirs = TF.adjust_saturation(TF.adjust_contrast(theirs, contrast), saturation)
        torch.testing.assert_close(ours[index], theirs, atol=5e-5, rtol=0)


def test_mirror_comes_before_rotation():
    """As in a list of transforms: a mirrored picture is turned, not a turned one mirrored."""
    pictures, drawn = _pictures(), draw_view("light", 6, _generator())
    ours = apply_view(
        pictures, dataclasses.replace(_neutral(), mirror_N=-torch.ones(6), radians_N=drawn.radians_N)
    )
    for index, radians in enumerate(drawn.radians_N.tolist()):
        mirrored = TF.hflip(pictures[index].float() / 255)
        theirs = TF.rotate(mirrored, math.degrees(radians), TF.InterpolationMode.BILINEAR)
        torch.testing.assert_close(ours[index], theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("recipe", ["light", "strong"])
def test_the_same_view_at_two_resolutions_is_the_same_picture(recipe):
    """A smooth picture, seen at 64 and at 128 pixels and then made equally large, differs only by
    interpolation at the black edges; two different views differ a lot."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 128), torch.linspace(0, 3, 128), indexing="ij")
    large = ((torch.stack([y.sin(), x.cos(), (x * y).sin()]) + 1) * 127).byte().expand(6, -1, -1, -1)
    small = F.avg_pool2d(large.float(), 2).round().byte()
    view, other = draw_view(recipe, 6, _generator(1)), draw_view(recipe, 6, _generator(2))
    seen_small = apply_view(small, view)
    same = (F.avg_pool2d(apply_view(large, view), 2) - seen_small).abs().mean()
    different = (F.avg_pool2d(apply_view(large, other), 2) - seen_small).abs().mean()
    assert same < 0.01
    assert different > 10 * same


def test_draws_are_repeatable_and_within_the_recipe():
    view, again = draw_view("light", 500, _generator(3)), draw_view("light", 500, _generator(3))
    assert all(torch.equal(a, b) for a, b in zip(vars(view).values(), vars(again).values(), strict=True))
    assert set(view.mirror_N.tolist()) == {-1.0, 1.0}
    assert math.radians(13) < view.radians_N.abs().max() <= math.radians(15) + 1e-6
    assert 0.8 - 1e-6 <= view.colour_N3.min() < 0.82
    assert 1.18 < view.colour_N3.max() <= 1.2 + 1e-6
    assert (view.crop_N4 == torch.tensor([0.0, 0.0, 1.0, 1.0])).all()
    assert not view.shift_N2.any()
    assert not view.erase_N4.any()


def test_strong_crops_stay_inside_and_some_pictures_lose_a_rectangle():
    view = draw_view("strong", 500, _generator(4))
    centre, kept = view.crop_N4[:, :2], view.crop_N4[:, 2:]
    assert (centre.abs() + kept <= 1 + 1e-5).all()
    assert kept.prod(1).min() < 0.6
    erased = (view.erase_N4[:, 2] > 0).float().mean()
    assert 0.4 < erased < 0.6
    assert view.erase_N4.max() <= 1 + 1e-6


def test_erasing_paints_the_rectangle_grey():
    erase = torch.tensor([[0.25, 0.5, 0.75, 1.0]]).expand(6, -1)
    pixels = apply_view(_pictures(6, 8, 8), dataclasses.replace(_neutral(), erase_N4=erase))
    assert (pixels[:, :, 4:, 2:6] == 0.5).all()
    assert not (pixels[:, :, :4] == 0.5).all()
