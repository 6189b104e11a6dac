"""Fine-tuning: the network that comes in, trained further."""

import copy

import torch

from app.spec.steps.finetune import Finetune
from models import encode
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run
from worker.steps import finetune


def make_model():
    model = create_network("report/final", num_classes=3, image_size=32, seed=1).eval()
    model.preprocessing = PREPROCESSING
    return model.requires_grad_(False)


def make_spec(**changes) -> Finetune:
    return Finetune(method="finetune", **{"epochs": 2, "batch_size": 8, **changes})


def test_it_begins_with_the_weights_it_is_given(tmp_path):
    """At a rate of almost nothing almost nothing changes."""
    model = make_model()
    tuned = finetune.apply(model, make_spec(learning_rate=1e-9, weight_decay=0), make_run(tmp_path))
    for name, parameter in tuned.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), atol=1e-6, rtol=0)


def test_every_weight_moves_and_the_loss_falls(tmp_path):
    """The frozen copy of a teacher is trained whole; the network that came in stays as it was."""
    model = make_model()
    before = copy.deepcopy(model)
    run = make_run(tmp_path, data=MemoryData(train=24, val=9))
    tuned = finetune.apply(model, make_spec(epochs=6, select="last"), run)
    for name, parameter in tuned.named_parameters():
        assert not torch.equal(parameter, before.get_parameter(name)), name
        assert torch.equal(model.get_parameter(name), before.get_parameter(name)), name
    losses = run.reporter.values("train_loss", "train")
    assert losses[-1] < losses[0] / 2
    assert tuned.preprocessing == PREPROCESSING


def test_stored_forms_of_the_old_weights_are_dropped(tmp_path):
    model = make_model()
    name = next(iter(model.state_dict()))
    model.encoded = {name: encode(model.state_dict()[name], {"name": "fp16"})}
    assert finetune.apply(model, make_spec(epochs=1), make_run(tmp_path)).encoded == {}


def test_the_rate_is_small_and_constant_unless_asked_otherwise(tmp_path):
    """Ten epochs at 1e-3 (Liu et al. 2019 fine-tune so); the schedule has no ceremony."""
    run = make_run(tmp_path, data=MemoryData(train=8, val=3))
    finetune.apply(make_model(), Finetune(method="finetune", batch_size=8), run)
    assert run.reporter.values("learning_rate") == [1e-3] * 10
