"""Several teachers as one, against values worked out by hand."""

import math

import pytest
import torch

from worker.ensemble import score_ensemble

# Two members, two images, two classes. Member 0 is sure of class 0, member 1 leans to class 1.
LOGITS = [
    torch.tensor([[math.log(9), 0.0], [0.0, 0.0]]),
    torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]),
]
LABELS = torch.tensor([0, 1])


def test_mean_probability() -> None:
    score = score_ensemble(LOGITS, LABELS, "mean_probability", None)
    # Image 0: (9/10 + 1/4) / 2 = 0.575 for class 0. Image 1: (1/2 + 3/4) / 2 = 0.625 for class 1.
    assert score["num_correct"] == 2
    assert score["loss"] == pytest.approx(-(math.log(0.575) + math.log(0.625)) / 2, abs=1e-7)


def test_mean_logit() -> None:
    score = score_ensemble(LOGITS, LABELS, "mean_logit", None)
    # Image 0: logits (log 3, log sqrt 3): 3 / (3 + sqrt 3). Image 1: (0, log sqrt 3): sqrt 3 / (1 + sqrt 3).
    root = math.sqrt(3)
    expected = -(math.log(3 / (3 + root)) + math.log(root / (1 + root))) / 2
    assert score["loss"] == pytest.approx(expected, abs=1e-7)


def test_a_weight_of_zero_takes_a_member_out() -> None:
    alone = score_ensemble(LOGITS[1:], LABELS, "mean_probability", None)
    assert score_ensemble(LOGITS, LABELS, "mean_probability", [0.0, 2.0]) == pytest.approx(alone)
