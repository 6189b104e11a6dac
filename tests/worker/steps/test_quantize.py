"""Stored values: their error, their bytes, and what must not be lost."""

import pytest
import torch

from app.errors import Problem
from app.spec.steps.quantize import Quantize
from models import load, pack
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, make_run
from worker.steps import quantize


@pytest.fixture
def network():
    """ResNet-20 with batch statistics as after a training."""
    network = create_network("cifar/resnet20", num_classes=10, seed=0)
    with torch.no_grad():
        network(torch.rand(16, *network.input_shape, generator=torch.Generator().manual_seed(0)))
    network.preprocessing = dict(PREPROCESSING)
    return network.eval()


def apply(network, tmp_path, **fields):
    run = make_run(tmp_path)
    return quantize.apply(network, Quantize(method="quantize", **fields), run), run.reporter


def test_minmax_errs_by_half_a_level_at_most(network, tmp_path):
    """Report B6: (max - min) / 510 an element, and some element really errs."""
    stored, reporter = apply(network, tmp_path)
    largest = 0.0
    for (name, before), after in zip(network.state_dict().items(), stored.state_dict().values(), strict=True):
        if before.dim() >= 2:
            error = (after - before).abs().max().item()
            bound = (before.max() - before.min()).item() / 510
            assert 0.5 * bound < error <= bound * (1 + 1e-4), name
            largest = max(largest, error)
    assert reporter.values("max_abs_error")[0] >= largest > 0


def test_the_weights_take_a_byte_each(network, tmp_path):
    """8 bits an element of the weights, 16 of biases and norms, counted by hand."""
    stored, reporter = apply(network, tmp_path)
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    bits = sum(tensor.numel() * (8 if tensor.dim() >= 2 else 16) for tensor in tensors)
    assert reporter.values("bits_per_weight") == pytest.approx([bits / sum(t.numel() for t in tensors)])
    assert {stored.encoded[name].encoding["name"] for name in stored.encoded} == {"minmax", "fp16"}


@pytest.mark.parametrize(("scheme", "largest"), [("fp16", 0.55), ("minmax", 0.35), ("cast", 0.35)])
def test_the_file_shrinks_as_the_bits_do(network, tmp_path, scheme, largest):
    stored, _ = apply(network, tmp_path, scheme=scheme)
    raw, packed = (
        len(pack(each, preprocessing=PREPROCESSING, class_names=None)) for each in (network, stored)
    )
    assert packed < largest * raw


@pytest.mark.parametrize("scheme", ["fp16", "minmax", "cast"])
@pytest.mark.parametrize("tensors", ["weights", "all"])
def test_what_was_measured_is_what_is_loaded(network, tmp_path, scheme, tensors):
    stored, _ = apply(network, tmp_path, scheme=scheme, tensors=tensors)
    path = tmp_path / "network.pt"
    path.write_bytes(pack(stored, preprocessing=PREPROCESSING, class_names=None))
    loaded = load(path).state_dict()
    for name, tensor in stored.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name


def test_all_means_norms_and_biases_too(network, tmp_path):
    """As the course's 8-bit files: every floating-point tensor that is not a scalar; integers stay."""
    stored, _ = apply(network, tmp_path, tensors="all")
    for name, tensor in network.state_dict().items():
        is_minmax = name in stored.encoded and stored.encoded[name].encoding["name"] == "minmax"
        assert is_minmax == (tensor.is_floating_point() and tensor.dim() > 0), name


def test_the_cast_destroys_a_network(network, tmp_path):
    """Report B5, the negative control: at least 95 % of the weights become 0, and the outputs no longer tell
    inputs apart."""
    stored, reporter = apply(network, tmp_path, scheme="cast")
    assert reporter.values("zeroed_weights")[0] >= 0.95
    weights = [tensor for tensor in stored.state_dict().values() if tensor.dim() >= 2]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert zeros == pytest.approx(reporter.values("zeroed_weights")[0], abs=1e-3)
    images = torch.rand(8, *network.input_shape)
    with torch.no_grad():
        assert stored(images).std(dim=0).max() < 0.1 * network(images).std(dim=0).max()


@pytest.mark.parametrize("tensors", ["weights", "all"])
def test_a_tiny_variance_is_not_rounded_to_zero(network, tmp_path, tensors):
    """1e-9 is 0 in half precision; the channel would then be divided by sqrt(eps) alone."""
    name = next(name for name in network.state_dict() if name.endswith("running_var"))
    network.state_dict()[name][0] = 1e-9
    stored, _ = apply(network, tmp_path, scheme="fp16", tensors=tensors)
    assert torch.equal(stored.state_dict()[name], network.state_dict()[name])
    assert name not in stored.encoded


def test_a_bias_beyond_half_precision_stays_whole(network, tmp_path):
    name = next(name for name in network.state_dict() if name.endswith("bias"))
    network.state_dict()[name][0] = 1e5
    stored, _ = apply(network, tmp_path)
    assert stored.state_dict()[name][0] == 1e5
    assert name not in stored.encoded


@pytest.mark.parametrize("scheme", ["fp16", "minmax", "cast"])
def test_a_constant_weight_is_safe(network, tmp_path, scheme):
    """No span between minimum and maximum: nothing to divide by."""
    name = next(name for name, tensor in network.state_dict().items() if tensor.dim() == 4)
    network.state_dict()[name].fill_(0.25)
    stored, _ = apply(network, tmp_path, scheme=scheme)
    assert (stored.state_dict()[name] == (0.0 if scheme == "cast" else 0.25)).all()


def test_the_network_before_is_untouched(network, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    apply(network, tmp_path, scheme="cast")
    assert not network.encoded
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("scheme", ["minmax", "cast"])
def test_nan_is_refused_by_name(network, tmp_path, scheme):
    name = next(name for name, tensor in network.state_dict().items() if tensor.dim() == 4)
    network.state_dict()[name].view(-1)[0] = float("nan")
    with pytest.raises(Problem, match="NOT_QUANTIZABLE") as problem:
        apply(network, tmp_path, scheme=scheme)
    assert name in problem.value.detail
