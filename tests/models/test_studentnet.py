"""The course's StudentNet, key by key and width by width."""

import pytest

from models.architectures import create, create_skeleton
from models.studentnet import widths

from .test_architectures import num_parameters


def test_keys_are_the_courses() -> None:
    """72 entries: seven in the first block, nine in each of the other seven, two in the classifier."""
    state = create("course/studentnet", num_classes=11).state_dict()
    assert len(state) == 72
    assert state["cnn.0.0.weight"].shape == (16, 3, 3, 3)
    assert state["cnn.4.0.weight"].shape == (128, 1, 3, 3)  # depthwise
    assert state["cnn.4.1.running_mean"].shape == (128,)
    assert state["cnn.4.3.weight"].shape == (256, 128, 1, 1)  # pointwise
    assert state["fc.0.weight"].shape == (11, 256)
    assert "cnn.4.2.weight" not in state  # ReLU6


# The course's pruning curves: parameters after k steps that keep this share.
CURVES = {
    0.95: [236_066, 217_850, 200_354, 185_091, 171_606],
    0.9: [216_518, 183_578, 156_084, 132_858, 114_810],
    0.99: [251_796, 247_188, 244_031, 239_172, 236_066],
}


@pytest.mark.parametrize("share", CURVES)
def test_width_mult_gives_the_parameters_of_the_pruning_curves(share: float) -> None:
    """Five points of each curve, to the unit; they fix the rounding and which blocks are narrowed."""
    counts = [
        num_parameters(create_skeleton("course/studentnet", num_classes=11, width_mult=share**k))
        for k in range(1, 6)
    ]
    assert counts == CURVES[share]


def test_nineteen_steps_leave_a_quarter() -> None:
    """0.95^19 gives 62,619 parameters."""
    assert num_parameters(create_skeleton("course/studentnet", num_classes=11, width_mult=0.95**19)) == 62_619


def test_only_blocks_three_to_six_are_narrowed() -> None:
    """The first three and the last block keep their widths."""
    assert widths(16, 1) == [16, 32, 64, 128, 256, 256, 256, 256]
    assert widths(16, 0.5) == [16, 32, 64, 64, 128, 128, 128, 256]
