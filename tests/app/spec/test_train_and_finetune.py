"""What the steps that learn from labels alone may be asked."""

import pytest
from pydantic import ValidationError

from app.spec.steps import STEPS

TRAIN = {"method": "train", "student": "report/final"}
FINETUNE = {"method": "finetune"}


@pytest.mark.parametrize("fields", [TRAIN, FINETUNE])
@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (["train", "unlabeled"], "learns from labels alone: drop it"),
        (["train", "train"], "names a split twice"),
        ([], "at least 1"),
    ],
)
def test_splits_without_labels_or_named_twice_are_refused(fields, splits, says):
    with pytest.raises(ValidationError, match=says):
        STEPS[fields["method"]](**fields, splits=splits)


@pytest.mark.parametrize("fields", [TRAIN, FINETUNE])
def test_what_they_train_on_can_leak(fields):
    spec = STEPS[fields["method"]](**fields, splits=["train", "val"])
    assert spec.trained_splits == ["train", "val"]
    assert spec.trains


def test_only_a_previous_student_needs_the_step_before():
    assert not STEPS["train"](**TRAIN).needs_model
    assert STEPS["train"](**TRAIN | {"student": "previous"}).needs_model
    assert STEPS["finetune"](**FINETUNE).needs_model
    assert not STEPS["distill"](method="distill", student="teacher").needs_model
    assert STEPS["distill"](method="distill", student="previous").needs_model


def test_finetunes_own_defaults_keep_their_bounds():
    with pytest.raises(ValidationError, match="warmup_epochs"):
        STEPS["finetune"](**FINETUNE, epochs=2, warmup_epochs=2)
    with pytest.raises(ValidationError):
        STEPS["finetune"](**FINETUNE, epochs=0)
