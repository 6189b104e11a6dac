"""The contract of every compression method. A new one is tested here the moment its spec exists."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from app.spec.steps import STEPS
from app.spec.steps.base import StepSpec
from models import Network, load, pack
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run
from worker.run import Run, Teacher

NUM_CLASSES = 3
# What a method cannot do without, and what keeps a test short. Everything else is the default.
FIELDS: dict[str, dict[str, Any]] = {
    "distill": {"student": "report/final", "epochs": 1, "batch_size": 8},
    "factorise": {"ratio": 0.5},
    "finetune": {"epochs": 1, "batch_size": 8},
    "prune": {"keep_rate": 0.7, "training": {"epochs": 1, "batch_size": 8}},
    "qat": {"epochs": 1, "batch_size": 8},
    "train": {"student": "report/final", "epochs": 1, "batch_size": 8},
}
# These move weights and keep every tensor's shape and type: they promise no bytes.
KEEPS_SIZE = {"finetune"}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Untrained, at its own input size; its outputs are in another order than the data's classes.

    A little noise everywhere, as training leaves it: fresh values (zeros, ones, short fractions) deflate to less than
    their size.
    """
    network = create_network("report/plain", num_classes=NUM_CLASSES, seed=7).eval()
    generator = torch.Generator().manual_seed(7)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.01 * torch.rand(tensor.shape, generator=generator)
    network.preprocessing = {**PREPROCESSING, "resize": list(network.input_shape[1:])}
    return Teacher("tch_1", network, network.preprocessing, torch.tensor([2, 0, 1]))


def make_step(method: str) -> StepSpec:
    return STEPS[method](method=method, **FIELDS.get(method, {}))


def apply(spec: StepSpec, run: Run) -> Network:
    module = importlib.import_module(f"worker.steps.{spec.method}")
    model = run.teachers[0].network if spec.needs_model else None
    return module.apply(model, spec, run)


def logits_of(network: Network, preprocessing: dict[str, Any]) -> Tensor:
    images = MemoryData(NUM_CLASSES, seed=3, test=5).images("test", preprocessing).float() / 255
    with torch.no_grad():
        return network(images)


def packed(network: Network) -> bytes:
    return pack(network, preprocessing=network.preprocessing, class_names=["a", "b", "c"])


def load_bytes(content: bytes, path) -> Network:
    path.write_bytes(content)
    return load(path)


@pytest.mark.parametrize("method", STEPS)
class TestEveryStep:
    def test_its_defaults_give_a_network_that_classifies(self, method, teacher, tmp_path):
        """[N, classes], finite, in eval mode, laid out as usual, with the preprocessing it needs."""
        network = apply(make_step(method), make_run(tmp_path, teachers=[teacher]))
        assert isinstance(network, Network)
        assert not any(module.training for module in network.modules())
        assert all(tensor.is_contiguous() for tensor in network.state_dict().values())
        assert network.preprocessing is not None
        logits = logits_of(network, network.preprocessing)
        assert logits.shape == (5, NUM_CLASSES)
        assert logits.isfinite().all()

    def test_same_seed_same_weights(self, method, teacher, tmp_path):
        """Whatever torch's own random state is."""
        first = apply(make_step(method), make_run(tmp_path / "a", teachers=[teacher]))
        torch.manual_seed(12345)
        second = apply(make_step(method), make_run(tmp_path / "b", teachers=[teacher]))
        for (name, left), right in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
            assert torch.equal(left, right), name
        assert packed(first) == packed(second)

    def test_packed_and_loaded_it_says_the_same(self, method, teacher, tmp_path):
        network = apply(make_step(method), make_run(tmp_path / "run", teachers=[teacher]))
        loaded = load_bytes(packed(network), tmp_path / "network.pt")
        before, after = (logits_of(each, network.preprocessing) for each in (network, loaded))
        assert torch.equal(before, after)

    def test_the_teacher_stays_as_it_was(self, method, teacher, tmp_path):
        """A step works on its own copy: the teacher is measured, and used again by later steps."""
        before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
        apply(make_step(method), make_run(tmp_path, teachers=[teacher]))
        assert not teacher.network.training
        assert not teacher.network.encoded
        for name, tensor in teacher.network.state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_the_file_is_smaller(self, method, teacher, tmp_path):
        """The claim of every method: fewer bytes than the teacher's own file, or else just as many numbers."""
        network = apply(make_step(method), make_run(tmp_path, teachers=[teacher]))
        if method in KEEPS_SIZE:
            shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
            assert shapes == {name: tensor.shape for name, tensor in teacher.network.state_dict().items()}
        else:
            assert len(packed(network)) < len(packed(teacher.network))
