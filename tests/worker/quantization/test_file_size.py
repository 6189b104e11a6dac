"""Bytes of a file before it is made: as the quantize step makes it, and at most."""

from typing import Any

import pytest
import torch

from app.errors import Problem
from app.spec.steps.quantize import Quantize
from models import Network, encode, pack
from tests.worker.fakes import make_run
from tests.worker.training.small import small_network
from worker.quantization.file_size import least_weight_bytes, most_packed_bytes, packed_bytes
from worker.run import Run
from worker.steps import quantize

BESIDE = {"metrics": {"parameters": 12_345}}
SCHEMES: dict[int, dict[str, Any]] = {bits: {"bits": bits} for bits in (2, 3, 4, 5, 6, 7, 8)}
SCHEMES[16] = {"scheme": "fp16"}


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path, packed_with=BESIDE)


def quantized_bytes(network: Network, bits: int, run: Run) -> int:
    stored = network
    if bits != 32:
        stored = quantize.apply(network, Quantize(method="quantize", **SCHEMES[bits]), run)
    packed = pack(stored, preprocessing=network.preprocessing, class_names=run.data.class_names, **BESIDE)
    return len(packed)


def with_values(draw) -> Network:
    network = small_network()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                values = draw(tensor.shape, generator)
                tensor.copy_(values.abs() + 0.01 if name.endswith("var") else values)
    return network


DRAWN = {
    "normal": lambda shape, generator: torch.randn(shape, generator=generator),
    "uniform": lambda shape, generator: torch.rand(shape, generator=generator) - 0.5,
    "heavy tails": lambda shape, generator: torch.randn(shape, generator=generator) ** 5,
    "mostly zeros": lambda shape, generator: torch.randn(shape, generator=generator).clamp(min=1) - 1,
}


@pytest.mark.parametrize("bits", [*SCHEMES, 32])
@pytest.mark.parametrize("values", DRAWN)
def test_it_is_what_the_quantize_step_leads_to_and_never_more_than_the_most(run, bits, values):
    """To the byte, for weights of any distribution."""
    network = with_values(DRAWN[values])
    size = packed_bytes(network, bits, run)
    assert size == quantized_bytes(network, bits, run)
    assert size <= most_packed_bytes(network, bits, run)


@pytest.mark.parametrize("bits", [2, 8, 16, 32])
def test_the_most_does_not_depend_on_the_weights(run, bits):
    """New norms, all ones and zeros, deflate to nothing, and are counted whole."""
    new, other = with_values(lambda shape, _: torch.zeros(shape)), with_values(DRAWN["normal"])
    most = most_packed_bytes(new, bits, run)
    assert most == most_packed_bytes(other, bits, run)
    assert packed_bytes(new, bits, run) < 0.8 * most
    assert least_weight_bytes(new, bits) < most


def test_the_network_keeps_its_values_and_how_they_are_stored(run):
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.encoded = {"head.bias": encode(network.head.bias, {"name": "raw"})}
    packed_bytes(network, 4, run)
    most_packed_bytes(network, 4, run)
    assert list(network.encoded) == ["head.bias"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_that_are_not_numbers_are_named(run):
    network = small_network()
    network.state_dict()["deep.weight"][0, 0] = float("nan")
    with pytest.raises(Problem, match="NOT_QUANTIZABLE") as problem:
        packed_bytes(network, 8, run)
    assert "deep.weight" in problem.value.detail
