"""Training from scratch: labels alone, the same network as distillation with hard labels."""

import torch

from app.spec.steps.distill import Distill
from app.spec.steps.train import Train
from models import layer_table
from tests.worker.fakes import MemoryData, make_run
from tests.worker.steps.test_distill import make_teacher, same
from worker.steps import distill, train

FIELDS = {
    "student": {"architecture": "report/final", "image_size": 32},
    "epochs": 2,
    "batch_size": 8,
    "warmup_epochs": 0,
}


def test_it_is_distillation_without_a_teacher(tmp_path):
    """Two ways to one network: alpha 0 and no teacher's word, to the bit."""
    spec = Train(method="train", **FIELDS)
    trained = train.apply(None, spec, make_run(tmp_path / "a", teachers=[make_teacher()]))
    soft = Distill(method="distill", alpha=0, **FIELDS)
    distilled = distill.apply(None, soft, make_run(tmp_path / "b", teachers=[make_teacher()]))
    assert same(trained, distilled)


def test_it_learns_and_keeps_the_epochs_a_later_step_asks_for(tmp_path):
    spec = Train(method="train", **FIELDS | {"epochs": 4})
    run = make_run(tmp_path, teachers=[make_teacher()], snapshot_epochs=frozenset({0, 4}))
    train.apply(None, spec, run)
    losses = run.reporter.values("train_loss", "train")
    assert losses[-1] < losses[0] / 2
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["0.pt", "4.pt"]
    assert run.cost.epochs == 4


def test_it_goes_on_with_the_network_of_the_step_before(tmp_path):
    run = make_run(tmp_path / "a", teachers=[make_teacher()])
    first = train.apply(None, Train(method="train", **FIELDS), run)
    weights = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    spec = Train(method="train", **FIELDS | {"student": "previous", "learning_rate": 1e-6, "epochs": 1})
    further = train.apply(first, spec, make_run(tmp_path / "b", teachers=[make_teacher()]))
    for name, tensor in further.named_parameters():
        torch.testing.assert_close(tensor, weights[name], atol=1e-3, rtol=0)
        assert torch.equal(first.state_dict()[name], weights[name])


def test_several_labelled_splits_are_one_training_set(tmp_path):
    data = MemoryData(train=16, test=8, val=6)
    run = make_run(tmp_path, data=data, teachers=[make_teacher()])
    spec = Train(method="train", splits=["train", "test"], **FIELDS)
    student = train.apply(None, spec, run)
    assert run.cost.macs == 2 * 24 * 3 * layer_table(student)["macs"]
