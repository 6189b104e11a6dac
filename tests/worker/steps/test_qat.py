"""Quantization-aware training: what was evaluated is what is stored, and it is better than rounding afterwards."""

import io

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.steps.qat import Qat
from app.spec.steps.quantize import Quantize
from models import as_network, evaluate, load, pack
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from worker.run import Stopped, Teacher
from worker.steps import qat, quantize


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.conv3 = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = self.norm(self.conv1(x)).relu()
        return self.head(self.conv3(self.conv2(x)).relu().mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = as_network(Small().eval(), torch.rand(2, 3, 16, 16))
    made.preprocessing = {**PREPROCESSING, "resize": [16, 16]}
    return made


def make_spec(**changes) -> Qat:
    fields = {"epochs": 3, "batch_size": 8, "alpha": 0.0, "learning_rate": 1e-2, **changes}
    return Qat(method="qat", **fields)


def apply(network, work_dir, *, spec=None, **changes):
    run = make_run(work_dir, data=MemoryData(train=24, val=12), **changes)
    return qat.apply(network, spec or make_spec(), run), run


def bits_of(trained) -> dict[str, int]:
    return {
        name: stored.encoding["bits"] for name, stored in trained.encoded.items() if "bits" in stored.encoding
    }


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_file_is_what_the_last_evaluation_computed_with(network, tmp_path, select):
    """The loop's own accuracy and cross-entropy of that epoch, from the packed bytes."""
    trained, run = apply(network, tmp_path, spec=make_spec(select=select))
    loaded = load(io.BytesIO(pack(trained, preprocessing=trained.preprocessing, class_names=None)))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name]), name
    score = evaluate(
        loaded,
        run.data.images("val", trained.preprocessing),
        run.data.labels("val"),
        trained.preprocessing,
    )
    noted = run.reporter.values("cross_entropy", "val")
    epoch = int(run.reporter.values("best_epoch")[0]) if select == "best" else len(noted)
    # Not to the bit: the loop's convolutions run channels-last, and add up in another order.
    assert score.cross_entropy == pytest.approx(noted[epoch - 1], rel=1e-6)
    assert score.accuracy == run.reporter.values("accuracy", "val")[epoch - 1]


def test_the_first_and_the_last_layer_have_bits_of_their_own(network, tmp_path):
    trained, _ = apply(network, tmp_path / "a", spec=make_spec(epochs=1))
    assert bits_of(trained) == {"conv1.weight": 8, "conv2.weight": 4, "conv3.weight": 4, "head.weight": 8}
    spec = make_spec(epochs=1, edge_bits=None, bits=3, overrides={"conv*": 2, "conv3.*": 5})
    trained, _ = apply(network, tmp_path / "b", spec=spec)
    assert bits_of(trained) == {"conv1.weight": 2, "conv2.weight": 2, "conv3.weight": 5, "head.weight": 3}
    assert trained.encoded["conv1.bias"].encoding == {"name": "fp16"}
    # Eight groups of nine weights in 2 bits, and a step of two bytes for each.
    assert trained.encoded["conv2.weight"].data.numel() == 8 * 9 * 2 // 8 + 8 * 2


def test_one_step_a_tensor_stands_in_the_index(network, tmp_path):
    trained, _ = apply(network, tmp_path, spec=make_spec(epochs=1, granularity="tensor"))
    assert trained.encoded["conv3.weight"].encoding.keys() == {"name", "bits", "scale"}


def test_it_learns_what_rounding_afterwards_destroys(network, tmp_path):
    """Two bits everywhere: rounding a trained network to them costs it most of what training with them keeps."""
    data = {"train": 96, "val": 48}
    spec = make_spec(epochs=12, bits=8, edge_bits=8, select="last")
    learned = qat.apply(network, spec, make_run(tmp_path / "fine", data=MemoryData(**data)))
    rounded = quantize.apply(
        learned,
        Quantize(method="quantize", scheme="symmetric", bits=2, granularity="channel"),
        make_run(tmp_path / "rounded"),
    )
    spec = make_spec(epochs=8, select="last", bits=2, edge_bits=2)
    run = make_run(tmp_path / "trained", data=MemoryData(**data))
    trained = qat.apply(learned, spec, run)
    images, labels = run.data.images("val", PREPROCESSING | {"resize": [16, 16]}), run.data.labels("val")
    scores = [evaluate(each, images, labels, network.preprocessing) for each in (learned, rounded, trained)]
    assert scores[0].accuracy > 0.9
    assert scores[2].accuracy > 0.9
    assert scores[2].cross_entropy < 0.5 * scores[1].cross_entropy


@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_stopped_run_goes_on_to_the_bit(network, tmp_path, step):
    whole, _ = apply(network, tmp_path / "whole")
    with pytest.raises(Stopped):
        apply(network, tmp_path / "job", stop_requested=stop_at(step, "preempt"))
    torch.manual_seed(99)
    resumed, _ = apply(network, tmp_path / "job")
    packed = [pack(each, preprocessing=None, class_names=None) for each in (whole, resumed)]
    assert packed[0] == packed[1]


def test_a_cancelled_run_leaves_its_best_network_as_it_would_be_stored(network, tmp_path):
    with pytest.raises(Stopped) as stopped:
        apply(network, tmp_path, stop_requested=stop_at(5, "cancel"))
    best = stopped.value.model
    assert bits_of(best)["conv2.weight"] == 4
    load(io.BytesIO(pack(best, preprocessing=best.preprocessing, class_names=None)))


def test_teachers_teach(network, tmp_path):
    """alpha 1: a teacher that is always sure of class 1 makes the network say class 1."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)
            with torch.no_grad():
                self.head.weight.zero_()
                self.head.bias.copy_(torch.tensor([0.0, 20.0, 0.0]))

        def forward(self, x):
            return self.head(x.mean((2, 3)))

    teacher = as_network(Sure().eval(), torch.rand(1, 3, 8, 8))
    teachers = [Teacher("tch_1", teacher, {**PREPROCESSING, "resize": [8, 8]}, torch.tensor([0, 1, 2]))]
    spec = make_spec(alpha=1.0, epochs=6, select="last")
    trained, run = apply(network, tmp_path, spec=spec, teachers=teachers)
    with torch.no_grad():
        answers = trained(run.data.images("val", trained.preprocessing).float() / 64 - 2).argmax(1)
    assert (answers == 1).all()
    assert run.cost.epochs == 6
    assert run.cost.macs > 0


def test_a_pattern_that_matches_nothing_is_refused_before_training(network, tmp_path):
    with pytest.raises(Problem, match="PATTERN_MATCHES_NOTHING") as problem:
        apply(network, tmp_path, spec=make_spec(overrides={"conv9*": 4}))
    assert "'conv9*'" in problem.value.detail
    assert problem.value.status == 422


def test_the_network_before_stays_as_it_was(network, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    apply(network, tmp_path, spec=make_spec(epochs=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.encoded
