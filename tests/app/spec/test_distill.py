"""What a distil step may ask: contradictions are refused with field, rule and way out."""

import pytest
from pydantic import ValidationError

from app.spec.steps.distill import Distill

HINT = {"student": "conv1", "teacher": "conv1"}


def make_spec(**changes) -> Distill:
    return Distill(method="distill", **{"student": "report/final", **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dkd_other_weight": 2}, "dkd_other_weight belongs to loss 'dkd', not 'kd'"),
        ({"loss": "dkd", "dist_intra_weight": 2}, "dist_intra_weight belongs to loss 'dist'"),
        ({"loss": "dkd", "dkd_target_weight": 0, "dkd_other_weight": 0}, "both 0"),
        ({"loss": "dist", "dist_inter_weight": 0, "dist_intra_weight": 0}, "both 0"),
        ({"loss": "dkd", "mixup": 0.2}, "set mixup to 0 or loss to 'kd'"),
        ({"soft_labels": {}, "alpha": 0}, "not used at alpha 0"),
        ({"soft_labels": {}, "mixup": 0.2}, "never shows the same blend twice"),
        ({"soft_labels": {}, "hints": [HINT]}, "hints need"),
        ({"soft_labels": {"views": 2}, "augmentation": "none"}, "soft_labels.views 2"),
        ({"soft_labels": {"views": 9}, "epochs": 8}, "soft_labels.views 9 are more than the 8 epochs"),
        ({"soft_labels": {}, "recipe": "function_matching"}, "mixup 1.0"),
        ({"hints": [{"student": "conv1"}]}, "hints.0.teacher"),
    ],
)
def test_a_contradiction_is_refused(changes, says):
    with pytest.raises(ValidationError) as error:
        make_spec(**changes)
    assert says in str(error.value)


def test_function_matching_fills_in_what_was_not_said():
    """Beyer et al. 2022; the resolved spec says it all, and is read again as the same."""
    spec = make_spec(recipe="function_matching", temperature=2.0)
    assert (spec.alpha, spec.mixup, spec.augmentation, spec.schedule) == (1.0, 1.0, "strong", "cosine")
    assert (spec.epochs, spec.select, spec.temperature) == (300, "last", 2.0)
    assert Distill.model_validate(spec.model_dump(mode="json")) == spec


def test_function_matching_leaves_what_was_said():
    spec = make_spec(recipe="function_matching", alpha=0.9, epochs=5, mixup=0, augmentation="light")
    assert (spec.alpha, spec.epochs, spec.mixup, spec.augmentation) == (0.9, 5, 0, "light")


def test_a_resolved_spec_is_read_again_as_the_same():
    """Constants of the other losses are in it, at their defaults."""
    for loss in ("kd", "dkd", "dist"):
        spec = make_spec(loss=loss)
        assert Distill.model_validate(spec.model_dump(mode="json")) == spec


def test_it_needs_a_network_only_where_the_student_is_the_previous_one():
    assert make_spec(student="previous").needs_model
    assert not make_spec(student="teacher").needs_model
    assert make_spec().trains


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"loss": "dkd"}, "loss"),
        ({"loss": "dist"}, "dist_inter_weight"),
        ({"standardize_logits": True}, "standardize_logits"),
        ({"soft_labels": {"normalise": "zscore"}}, "soft_labels/normalise"),
    ],
)
def test_two_classes_are_too_few_for_some(changes, field):
    spec = make_spec(**changes)
    ((found, message),) = spec.class_errors(2)
    assert found == field
    assert "set" in message
    assert spec.class_errors(3) == []
    assert make_spec(loss="dist", dist_inter_weight=0).class_errors(2) == []
