"""What a prune step may say, and what its presets mean."""

import pytest
from pydantic import ValidationError

from app.spec.job import JobSpec
from app.spec.steps.prune import Prune


def make(**fields) -> Prune:
    return Prune.model_validate({"method": "prune", "keep_rate": 0.9, **fields})


def knobs(spec: Prune) -> tuple:
    return spec.weights_from_epoch, spec.schedule_from_epoch, spec.recover_after


@pytest.mark.parametrize(
    ("recover", "expected"),
    [
        ("none", (None, None, None)),
        ("finetune", ("end", "end", "each")),
        ("reinit_once", ("new", 0, "last")),
        ("reinit_each", ("new", 0, "each")),
        ("scratch_e", ("new", 0, "last")),
        ("scratch_b", ("new", 0, "last")),
        ("weight_rewind", (2, 2, "each")),
        ("lr_rewind", ("end", 0, "each")),
    ],
)
def test_presets_are_settings_of_the_knobs(recover, expected):
    assert knobs(make(recover=recover, training={"epochs": 20})) == expected


def test_learning_rate_rewinding_is_the_default():
    spec = make()
    assert (spec.recover, spec.training.epochs) == ("lr_rewind", 10)
    assert knobs(spec) == ("end", 0, "each")


def test_knobs_alone_need_no_preset():
    spec = make(weights_from_epoch=3)
    assert spec.recover is None
    assert knobs(spec) == (3, 3, "each")
    assert spec.rewind_epochs == [3]
    assert knobs(make(weights_from_epoch="new", recover_after="last")) == ("new", 0, "last")
    assert knobs(make(recover="weight_rewind", weights_from_epoch=3)) == (3, 3, "each")
    assert knobs(make(recover="lr_rewind", schedule_from_epoch=4)) == ("end", 4, "each")


@pytest.mark.parametrize(
    "fields", [{}, {"weights_from_epoch": 3}, {"recover": "none"}, {"recover": "weight_rewind"}]
)
def test_a_resolved_spec_reads_as_itself(fields):
    """The job is stored with every field filled in, and read again by the trainer."""
    spec = make(**fields)
    assert Prune.model_validate(spec.model_dump(mode="json")) == spec


REFUSED = [
    ({"units": 1}, "keep_rate and units"),
    ({"keep_rate": None}, "none"),
    ({"keep_rate": None, "target": {"ratio": 0.5, "macs": 3}}, "macs and ratio"),
    ({"keep_rate": None, "units": 1, "ranking": "local"}, "ranking"),
    ({"keep_rate": None, "units": 1, "round_to": 8}, "round_to"),
    ({"criterion": "bn_gamma", "coupling": "producers"}, "leave coupling out"),
    ({"abs_per_example": True}, "'taylor'"),
    ({"score_batches": 3}, "score_batches"),
    ({"recover": "none", "weights_from_epoch": 3}, "weights_from_epoch"),
    ({"recover": "none", "alpha": 0.5}, "alpha"),
    ({"recover": "none", "compat": "stale_optimizer"}, "compat"),
    ({"recover": "finetune", "schedule_from_epoch": 0}, "schedule_from_epoch"),
    ({"recover": "reinit_each", "weights_from_epoch": "end"}, "weights_from_epoch"),
    ({"recover": "reinit_once", "recover_after": "each"}, "recover_after"),
    ({"recover": "lr_rewind", "schedule_from_epoch": "end"}, "finetune"),
    ({"recover": "weight_rewind", "weights_from_epoch": 2, "schedule_from_epoch": 1}, "one epoch"),
    ({"schedule_from_epoch": 10}, "training.epochs 10"),
    ({"recover": "reinit_each", "compat": "stale_optimizer"}, "weights that are there"),
    ({"min_channels": 0}, "min_channels"),
    ({"keep_rate": 1.0}, "keep_rate"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_contradictions_are_refused_with_the_field_and_the_way_out(fields, said):
    with pytest.raises(ValidationError, match=said):
        make(**fields)


def job(*steps) -> JobSpec:
    return JobSpec.model_validate({"teachers": ["tch_1"], "dataset": "dst_1", "steps": list(steps)})


def test_weights_of_an_epoch_need_a_step_that_trained():
    rewinding = {"method": "prune", "keep_rate": 0.9, "weights_from_epoch": 3}
    training = {"method": "train", "student": "report/final", "epochs": 5}
    with pytest.raises(ValidationError, match="put a train, finetune or distill step before it"):
        job(rewinding)
    with pytest.raises(ValidationError, match="an epoch from 0 to 5"):
        job(training, rewinding | {"weights_from_epoch": 6})
    assert job(training, rewinding).steps[1].rewind_epochs == [3]
    assert job(training, rewinding | {"weights_from_epoch": "end"}).steps[1].rewind_epochs == []


def test_only_what_sees_images_trains_on_them():
    assert make(recover="none").trained_splits == []
    assert make(recover="none", criterion="taylor").trained_splits == ["train"]
    assert make(recover="none", bn_reestimation_batches=2).trained_splits == ["train"]
    assert make(recover="none", sparsity={"kind": "slimming"}).trained_splits == ["train"]
    assert make().trained_splits == ["train"]
