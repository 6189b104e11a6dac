"""Sparsity: the right weights become 0, stay so, and the file shrinks."""

import io

import pytest
import torch

from app.errors import Problem
from app.spec.steps.quantize import Quantize
from app.spec.steps.sparsify import Sparsify
from models import as_network, load, pack
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from tests.worker.steps.test_qat import Small
from worker.run import Stopped
from worker.steps import quantize, sparsify

TRAINING = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = as_network(Small().eval(), torch.rand(2, 3, 16, 16))
    made.preprocessing = {**PREPROCESSING, "resize": [16, 16]}
    return made


@pytest.fixture(scope="module")
def student():
    """The report's, with three classes: 112,659 parameters."""
    made = create_network("report/final", num_classes=3, seed=0).eval()
    made.preprocessing = {**PREPROCESSING, "resize": [64, 64]}
    return made


def apply(network, work_dir, **fields):
    run = make_run(work_dir, data=MemoryData(train=24, val=12))
    return sparsify.apply(network, Sparsify(method="sparsify", **fields), run), run


def weights_of(network) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.dim() >= 2}


def size_of(network) -> int:
    return len(pack(network, preprocessing=network.preprocessing, class_names=None))


def test_the_smallest_of_all_are_removed(network, tmp_path):
    """Against Python's sort over every single weight; the others stay to the bit."""
    sparse, run = apply(network, tmp_path, sparsity=0.7, store="raw")
    entries = sorted(
        (abs(value), name, position)
        for name, weight in weights_of(network).items()
        for position, value in enumerate(weight.flatten().tolist())
    )
    removed = {(name, position) for _, name, position in entries[: round(0.7 * len(entries))]}
    for name, weight in weights_of(network).items():
        for position, (old, new) in enumerate(
            zip(weight.flatten().tolist(), weights_of(sparse)[name].flatten().tolist(), strict=True)
        ):
            assert new == (0 if (name, position) in removed else old)
    assert run.reporter.values("sparsity")[0] == pytest.approx(0.7, abs=1e-3)


def test_within_each_layer_the_share_is_the_same(network, tmp_path):
    sparse, run = apply(network, tmp_path, sparsity=0.75, ranking="layer")
    for name, weight in weights_of(sparse).items():
        assert int((weight == 0).sum()) == round(0.75 * weight.numel()), name
    assert [row["removed"] for row in run.details["layers"]] == [162, 54, 72, 27]


def test_no_layer_loses_everything(network, tmp_path):
    """A layer of tiny weights would vanish whole under a global ranking."""
    with torch.no_grad():
        network.conv3.weight.mul_(1e-4)
    sparse, _ = apply(network, tmp_path, sparsity=0.9)
    assert int((sparse.conv3.weight != 0).sum()) == 1
    assert sparse.conv3.weight.flatten()[network.conv3.weight.abs().argmax()] != 0


def test_two_of_four_along_the_inputs(network, tmp_path):
    """The two larger stay. Layers whose inputs 4 does not divide stay whole."""
    sparse, run = apply(network, tmp_path, pattern="2:4", store="raw")
    for name in ("conv3.weight", "head.weight"):
        before, after = (each.state_dict()[name].reshape(-1, 4).tolist() for each in (network, sparse))
        for four, found in zip(
            before, after, strict=True
        ):  # 1x1 and linear: inputs follow each other in memory
            stay = sorted(range(4), key=lambda i, four=four: -abs(four[i]))[:2]
            assert found == [value if i in stay else 0.0 for i, value in enumerate(four)]
    for name in ("conv1.weight", "conv2.weight"):
        assert torch.equal(sparse.state_dict()[name], network.state_dict()[name])
    assert "conv1, conv2" in run.reporter.logs()[0]


def test_two_of_four_of_a_kernel_are_of_one_position():
    """Not neighbours in memory: the same place of the kernel, four inputs."""
    weight = torch.arange(1.0, 33).reshape(1, 8, 2, 2)
    mask = sparsify.two_of_four(weight)
    for y in range(2):
        for x in range(2):
            assert mask[0, :, y, x].tolist() == [False, False, True, True] * 2


@pytest.mark.parametrize("store", ["raw", "fp16", "minmax"])
def test_the_file_shrinks_as_the_bits_say(student, tmp_path, store):
    """A bit an element and the stored bits of those that stay, on the report's student; and it comes back exactly."""
    sparse, run = apply(student, tmp_path, sparsity=0.8, store=store)
    bits = {"raw": 32, "fp16": 16, "minmax": 8}[store]
    weights = sum(weight.numel() for weight in weights_of(student).values())
    others = sum(t.numel() for t in student.state_dict().values() if t.is_floating_point()) - weights
    expected = (weights * (1 + 0.2 * bits) + others * (32 if store == "raw" else 16)) / 8
    stored = sum(row["bytes"] for row in run.details["tensors"])
    assert stored == pytest.approx(expected, rel=0.01)
    assert size_of(sparse) < expected + 3000
    assert size_of(sparse) < 0.35 * size_of(student)
    loaded = load(io.BytesIO(pack(sparse, preprocessing=None, class_names=None)))
    assert all(torch.equal(t, sparse.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_two_of_four_shrinks_the_file(student, tmp_path):
    """Half of the weights in 16 bits and at most a bit for each: 9 of 32 bits."""
    sparse, _ = apply(student, tmp_path, pattern="2:4")
    assert size_of(sparse) < 0.3 * size_of(student)


def test_training_moves_the_others_and_keeps_the_zeros(network, tmp_path):
    bare, _ = apply(network, tmp_path / "a", sparsity=0.6, store="raw")
    trained, run = apply(network, tmp_path / "b", sparsity=0.6, store="raw", training=TRAINING)
    for name, weight in weights_of(bare).items():
        after = trained.state_dict()[name]
        assert (after[weight == 0] == 0).all(), name
        assert (after[weight != 0] != weight[weight != 0]).float().mean() > 0.9, name
    losses = run.reporter.values("train_loss", "train")
    assert losses[-1] < losses[0]


def test_a_stopped_training_goes_on_to_the_bit(network, tmp_path):
    spec = Sparsify(method="sparsify", sparsity=0.6, training=TRAINING)
    data = MemoryData(train=24, val=12)
    whole = sparsify.apply(network, spec, make_run(tmp_path / "whole", data=data))
    with pytest.raises(Stopped):
        sparsify.apply(
            network, spec, make_run(tmp_path / "job", data=data, stop_requested=stop_at(5, "preempt"))
        )
    resumed = sparsify.apply(network, spec, make_run(tmp_path / "job", data=data))
    assert all(torch.equal(t, resumed.state_dict()[n]) for n, t in whole.state_dict().items())
    with pytest.raises(Stopped) as stopped:
        sparsify.apply(
            network, spec, make_run(tmp_path / "cancelled", data=data, stop_requested=stop_at(5, "cancel"))
        )
    best = stopped.value.model
    assert (best.conv3.weight == 0).any()
    assert "sparse" in {stored.encoding["name"] for stored in best.encoded.values()}


def test_layers_are_chosen_by_name(network, tmp_path):
    sparse, _ = apply(network, tmp_path, layers=["conv*"], exclude=["conv1"], sparsity=0.5)
    zeros = {name: bool((weight == 0).any()) for name, weight in weights_of(sparse).items()}
    assert zeros == {
        "conv1.weight": False,
        "conv2.weight": True,
        "conv3.weight": True,
        "head.weight": False,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"scheme": "minmax", "bits": 4},
        {"scheme": "minmax", "bits": 4, "granularity": "channel", "clip": "mse"},
        {"scheme": "symmetric", "bits": 8, "granularity": "channel"},
        {"scheme": "symmetric", "bits": 3, "rounding": "adaround", "calibration_images": 8},
        {"scheme": "codebook", "bits": 2},
        {"scheme": "fp16"},
        {"scheme": "float8"},
        {"scheme": "minmax", "tensors": "all"},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
def test_quantizing_afterwards_keeps_zeros_and_their_storage(network, tmp_path, fields):
    """Also where a scheme's levels have no 0, and for a layer with so few zeros that a map of them is larger."""
    network.conv1.weight.data[0, 0, 0, 0] = 0
    sparse, _ = apply(network, tmp_path / "a", exclude=["conv1"], sparsity=0.4)
    spec = Quantize(method="quantize", **fields)
    quantized = quantize.apply(
        sparse, spec, make_run(tmp_path / "b", data=MemoryData(train=24, val=12), teachers=[])
    )
    for name in ("conv2.weight", "conv3.weight", "head.weight"):
        before, after = sparse.state_dict()[name], quantized.state_dict()[name]
        assert (before == 0).any()
        assert (after[before == 0] == 0).all(), name
        assert quantized.encoded[name].encoding["name"] == "sparse"
    expected = {"float8": "float8_e4m3"}.get(fields["scheme"], fields["scheme"])
    assert quantized.encoded["head.weight"].encoding["values"]["name"] == expected


def test_where_no_layer_fits_it_says_so(network, tmp_path):
    with pytest.raises(Problem, match="NOTHING_TO_SPARSIFY") as problem:
        apply(network, tmp_path, pattern="2:4", layers=["conv1", "conv2"])
    assert "'unstructured'" in problem.value.detail
    with pytest.raises(Problem, match="NO_SUCH_LAYER"):
        apply(network, tmp_path, layers=["conv7"])
