"""Hints and attention transfer, against torchdistill and a naive loop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchdistill.losses.mid_level import ATLoss

from app.errors import Problem
from app.spec.steps.distill import Hint
from models import Network, as_network
from tests.worker.fakes import PREPROCESSING, make_run
from worker.distillation.features import attention_loss, hint_loss, with_hints
from worker.run import TableTeacher, Teacher

GENERATOR = torch.Generator().manual_seed(0)
STUDENT_MAPS = torch.randn(5, 4, 6, 6, generator=GENERATOR)
TEACHER_MAPS = torch.randn(5, 7, 6, 6, generator=GENERATOR)


def test_attention_is_torchdistills():
    """Their default mode is the authors' code; channels may differ."""
    place = {"path": "m", "io": "output"}
    theirs = ATLoss({"pair": {"student": place, "teacher": place, "weight": 1}}, mode="code")
    expected = theirs({"m": {"output": STUDENT_MAPS}}, {"m": {"output": TEACHER_MAPS}})
    torch.testing.assert_close(attention_loss(STUDENT_MAPS, TEACHER_MAPS), expected)


def test_a_larger_map_is_averaged_down():
    """6x6 against 3x3: each position of the smaller is the mean of four."""
    small = TEACHER_MAPS[:, :, ::2, ::2]
    averaged = STUDENT_MAPS.view(5, 4, 3, 2, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(attention_loss(STUDENT_MAPS, small), attention_loss(averaged, small))


def test_a_hint_is_the_mean_squared_error_after_a_learned_projection():
    """A 1x1 convolution is a matrix at every position: written out for one image and position."""
    regressor = nn.Conv2d(4, 7, 1)
    matrix = regressor.weight[:, :, 0, 0]
    total = 0.0
    for image in range(5):
        for y in range(6):
            for x in range(6):
                guess = matrix @ STUDENT_MAPS[image, :, y, x] + regressor.bias
                total += (guess - TEACHER_MAPS[image, :, y, x]).square().sum()
    expected = total / TEACHER_MAPS.numel()
    torch.testing.assert_close(hint_loss(STUDENT_MAPS, TEACHER_MAPS, regressor), expected)


def test_a_hint_between_vectors():
    """[N, C] values are maps of one position."""
    regressor = nn.Conv2d(4, 7, 1)
    student, teacher = STUDENT_MAPS[:, :, 0, 0], TEACHER_MAPS[:, :, 0, 0]
    guess = F.linear(student, regressor.weight[:, :, 0, 0], regressor.bias)
    torch.testing.assert_close(hint_loss(student, teacher, regressor), F.mse_loss(guess, teacher))


class InPlace(nn.Module):
    """Its ReLU overwrites what the convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.relu(self.conv(images)).mean((2, 3)))


def make_network(size: int = 16) -> Network:
    network = as_network(InPlace().eval(), torch.rand(1, 3, size, size))
    network.preprocessing = {**PREPROCESSING, "resize": [size, size]}
    return network


def make_hint(**changes) -> Hint:
    return Hint(**{"student": "conv", "teacher": "conv", **changes})


def run_with(tmp_path, teacher=None):
    network = make_network(24)
    teacher = teacher or Teacher("tch_1", network, network.preprocessing, torch.arange(3))
    return make_run(tmp_path, teachers=[teacher])


def test_what_is_caught_is_what_the_node_gave(tmp_path):
    """Before the in-place ReLU behind it, and with a gradient."""
    student = make_network()
    hinted = with_hints(student, [make_hint()], run_with(tmp_path))
    images = torch.rand(2, 3, 16, 16)
    logits = hinted.watched(images)
    assert torch.equal(hinted.features["conv"], student.conv(images))
    assert torch.equal(logits, student(images))
    assert bool((hinted.features["conv"] < 0).any())
    loss = hinted.loss([make_hint()], {(0, "conv"): torch.rand(2, 5, 11, 11)})
    loss.backward()
    assert student.conv.weight.grad.abs().sum() > 0
    assert hinted.regressors["0"].weight.grad.abs().sum() > 0


def test_weights_add_up(tmp_path):
    hints = [make_hint(weight=2.0), make_hint(kind="attention", weight=0.5)]
    hinted = with_hints(make_network(), hints, run_with(tmp_path))
    hinted.watched(torch.rand(2, 3, 16, 16))
    theirs = torch.rand(2, 5, 11, 11)
    ours = hinted.features["conv"]
    expected = 2.0 * hint_loss(ours, theirs, hinted.regressors["0"]) + 0.5 * attention_loss(ours, theirs)
    torch.testing.assert_close(hinted.loss(hints, {(0, "conv"): theirs}), expected)


def test_new_regressors_follow_from_the_seed_alone(tmp_path):
    run, student = run_with(tmp_path), make_network()
    first = with_hints(student, [make_hint()], run)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second = with_hints(student, [make_hint()], run)
    assert torch.equal(first.regressors["0"].weight, second.regressors["0"].weight)
    assert torch.equal(torch.get_rng_state(), before)
    # 7x7 positions of 5 x 5 channels: the student's map is the smaller one.
    assert first.regressor_macs == 7 * 7 * 5 * 5


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        ({"student": "convv"}, "hints[0].student 'convv' is no node of that network: near it are 'conv'"),
        ({"teacher": "block9"}, "hints[0].teacher 'block9'"),
        ({"teacher_index": 3}, "teacher_index is 3 and there are 1 teachers"),
        ({"kind": "attention", "student": "head", "teacher": "head"}, "single position"),
    ],
)
def test_a_hint_that_cannot_be_is_refused_before_training(tmp_path, hint, says):
    with pytest.raises(Problem) as problem:
        with_hints(make_network(), [make_hint(**hint)], run_with(tmp_path))
    assert (problem.value.status, problem.value.code) == (422, "HINT_IMPOSSIBLE")
    assert says in problem.value.detail


def test_a_value_that_is_no_map_is_refused(tmp_path):
    """A transformer's tokens are [N, tokens, width]."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 3)

        def forward(self, images):
            return self.head(images.flatten(2)[:, 0, :16])

    student = as_network(Tokens().eval(), torch.rand(1, 3, 16, 16))
    with pytest.raises(Problem) as problem:
        with_hints(student, [make_hint(student="flatten")], run_with(tmp_path))
    assert "gives [2, 3, 256] for two images" in problem.value.detail


def test_a_table_has_no_nodes(tmp_path):
    table = TableTeacher("tch_2", torch.rand(2, 3), "logits", {}, torch.arange(3))
    with pytest.raises(Problem) as problem:
        with_hints(make_network(), [make_hint()], run_with(tmp_path, table))
    assert problem.value.code == "TEACHER_IS_TABLE"
