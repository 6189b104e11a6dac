"""What quantize, qat and sparsify may ask: contradictions are refused with field, rule and way out."""

import pytest
from pydantic import ValidationError

from app.spec.steps import STEPS


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        ("quantize", {"scheme": "fp16", "bits": 8}, "'fp16' stores 16 bits, not 8: leave bits out"),
        ("quantize", {"scheme": "float8", "bits": 4}, "'float8' stores 8 bits"),
        ("quantize", {"scheme": "minmax", "bits": 12}, "2 to 8 bits, not 12"),
        ("quantize", {"scheme": "minmax", "bits": 1}, "bits"),
        ("quantize", {"scheme": "codebook", "granularity": "channel"}, "granularity 'channel' needs a grid"),
        ("quantize", {"scheme": "fp16", "clip": "mse"}, "clip 'mse' needs a grid"),
        ("quantize", {"scheme": "codebook", "rounding": "adaround"}, "rounding 'adaround' needs a grid"),
        ("quantize", {"scheme": "bf16", "overrides": {"a": 4}}, "overrides chooses bits"),
        ("quantize", {"overrides": {"a": 9}}, "overrides"),
        ("quantize", {"overrides": {"": 4}}, "overrides"),
        ("quantize", {"scheme": "cast", "bias_correction": True}, "negative control"),
        ("quantize", {"calibration_images": 0}, "calibration_images"),
        ("qat", {"weights": [0.0]}, "at least one teacher a positive weight"),
        ("qat", {"bits": 16}, "bits"),
        ("sparsify", {"pattern": "2:4", "sparsity": 0.7}, "a sparsity of 0.5, not 0.7"),
        ("sparsify", {"pattern": "2:4", "ranking": "layer"}, "ranking 'layer' has no meaning"),
        ("sparsify", {"bits": 4}, "bits 4 is for store 'minmax'"),
        ("sparsify", {"sparsity": 1.0}, "sparsity"),
    ],
)
def test_a_contradiction_is_refused(method, fields, says):
    with pytest.raises(ValidationError) as error:
        STEPS[method](method=method, **fields)
    assert says in str(error.value)


@pytest.mark.parametrize("method", ["quantize", "qat", "sparsify"])
def test_a_resolved_spec_is_read_again_as_the_same(method):
    """A job's spec is stored with every default filled in."""
    spec = STEPS[method](method=method)
    assert STEPS[method](**spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("method", "fields", "bits"),
    [
        ("quantize", {}, 8),
        ("quantize", {"scheme": "codebook"}, 4),
        ("quantize", {"scheme": "bf16"}, 16),
        ("quantize", {"bits": 3}, 3),
        ("qat", {}, 4),
        ("sparsify", {"sparsity": 0.75}, 5),
        ("sparsify", {"pattern": "2:4", "store": "minmax", "bits": 4}, 3),
        ("finetune", {}, 32),
    ],
)
def test_the_bits_an_estimate_counts(method, fields, bits):
    assert STEPS[method](method=method, **fields).bits_per_weight == bits


def test_images_are_needed_only_where_they_are_looked_at():
    for fields, splits in (
        ({}, []),
        ({"rounding": "adaround"}, ["train"]),
        ({"bias_correction": True}, ["train"]),
    ):
        assert STEPS["quantize"](method="quantize", **fields).trained_splits == splits
    assert STEPS["sparsify"](method="sparsify").trained_splits == []
    assert STEPS["sparsify"](method="sparsify", training={"epochs": 1}).trained_splits == ["train"]
