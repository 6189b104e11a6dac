"""Stored values: their error, their bytes, and what must not be lost."""

import copy
import hashlib
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from app.errors import Problem
from app.spec.steps.quantize import Quantize
from models import as_network, load, load_artifact, normalise, pack
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run, stop_at
from worker.run import Stopped
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


@pytest.mark.parametrize("scheme", ["fp16", "float8", "minmax", "symmetric", "codebook", "cast"])
def test_nan_is_refused_by_name(network, tmp_path, scheme):
    name = next(name for name, tensor in network.state_dict().items() if tensor.dim() == 4)
    network.state_dict()[name].view(-1)[0] = float("nan")
    with pytest.raises(Problem, match="NOT_QUANTIZABLE") as problem:
        apply(network, tmp_path, scheme=scheme)
    assert name in problem.value.detail


# ------------------------------------------------------------------------------------- fewer bits, other schemes


@pytest.fixture(scope="module")
def student():
    """The report's, 120,859 parameters, with values as a training leaves them: nothing for deflate to find."""
    made = create_network("report/final", num_classes=11, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.02 * torch.rand(tensor.shape, generator=generator)
    made.preprocessing = {**PREPROCESSING, "resize": [64, 64]}
    return made


def size_of(network) -> int:
    return len(pack(network, preprocessing=network.preprocessing, class_names=None))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("scheme", ["minmax", "symmetric"])
def test_bytes_fall_with_the_bits(student, tmp_path, scheme, granularity):
    """8, 7, ..., 2 bits, by the file. 4 bits are half of 8 but for the format's own 3 KB and the norms' 2 KB."""
    sizes = {
        bits: size_of(apply(student, tmp_path, scheme=scheme, bits=bits, granularity=granularity)[0])
        for bits in range(2, 9)
    }
    assert all(sizes[bits] < sizes[bits + 1] for bits in range(2, 8))
    weights = sum(t.numel() for t in student.state_dict().values() if t.dim() >= 2)
    assert sizes[8] - sizes[4] == pytest.approx(
        weights / 2, rel=0.15
    )  # deflate finds less in 4 bits than in 8
    assert sizes[4] < 0.6 * sizes[8]
    assert sizes[4] < weights / 2 + 6000


def test_codebooks_shrink_the_file_too(student, tmp_path):
    sizes = [size_of(apply(student, tmp_path, scheme="codebook", bits=bits)[0]) for bits in (2, 4, 8)]
    assert sizes[0] < sizes[1] < sizes[2] < 0.35 * size_of(student)


def test_a_grid_by_channel_errs_less(student, tmp_path):
    whole, by_channel = (
        apply(student, tmp_path, scheme="symmetric", bits=4, granularity=each)[0]
        for each in ("tensor", "channel")
    )
    errors = [
        sum(
            float((each.state_dict()[name] - tensor).square().sum())
            for name, tensor in student.state_dict().items()
            if tensor.dim() >= 2
        )
        for each in (whole, by_channel)
    ]
    assert errors[1] < errors[0]


def test_the_longest_matching_pattern_decides_the_bits(network, tmp_path):
    overrides = {"*": 5, "layer1.*": 3, "layer1.0.conv2.weight": 7, "fc.w?ight": 8}
    stored, _ = apply(network, tmp_path, bits=4, overrides=overrides)
    bits = {name: each.encoding["bits"] for name, each in stored.encoded.items() if "bits" in each.encoding}
    assert bits["layer1.0.conv1.weight"] == 3
    assert bits["layer1.0.conv2.weight"] == 7
    assert bits["fc.weight"] == 8
    assert bits["layer2.0.conv1.weight"] == 5
    with pytest.raises(Problem, match="PATTERN_MATCHES_NOTHING") as problem:
        apply(network, tmp_path, overrides={"layer9*": 4})
    assert "'layer9*'" in problem.value.detail


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 3},
        {"bits": 3, "granularity": "channel"},
        {"scheme": "symmetric"},
        {"scheme": "codebook"},
        {"scheme": "float8"},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
def test_quantizing_again_changes_nothing(network, tmp_path, fields):
    once, _ = apply(network, tmp_path, **fields)
    twice, _ = apply(once, tmp_path, **fields)
    assert size_of(once) == size_of(twice)
    assert all(torch.equal(t, twice.state_dict()[name]) for name, t in once.state_dict().items())


@pytest.mark.parametrize("scheme", ["symmetric", "codebook", "float8", "bf16"])
def test_no_variance_becomes_zero(network, tmp_path, scheme):
    """`all` means running variances too: a tiny one beside large ones is below the scheme's first level."""
    name = next(name for name in network.state_dict() if name.endswith("running_var"))
    network.state_dict()[name][0] = 1e-6
    stored, _ = apply(network, tmp_path, scheme=scheme, tensors="all")
    assert (stored.state_dict()[name] > 0).all()


def test_details_say_how_each_tensor_is_stored(network, tmp_path):
    run = make_run(tmp_path)
    stored = quantize.apply(network, Quantize(method="quantize", bits=4), run)
    rows = {row["tensor"]: row for row in run.details["tensors"]}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            error = (stored.state_dict()[name] - tensor).abs().max().item()
            assert rows[name]["max_abs_error"] == pytest.approx(error, abs=1e-7)
            assert rows[name]["elements"] == tensor.numel()
    assert (rows["conv1.weight"]["bits"], rows["conv1.weight"]["bytes"]) == (4, 16 * 27 // 2)
    assert (rows["fc.bias"]["encoding"], rows["fc.bias"]["bytes"]) == ("fp16", 20)


# --------------------------------------------------------------------------------------------- with a few images


@pytest.fixture
def calibrated(tmp_path):
    """A small network with a residual and statistics of its data, and a way to quantize it."""
    torch.manual_seed(1)
    network = as_network(Residual().eval(), torch.rand(2, 3, 16, 16))
    network.preprocessing = {**PREPROCESSING, "resize": [16, 16]}
    data = MemoryData(train=32, val=9)
    images = normalise(data.images("train", network.preprocessing), network.preprocessing)
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(images)
    network.eval()

    def quantized(**fields):
        run = make_run(tmp_path, data=data)
        spec = Quantize(method="quantize", scheme="symmetric", bits=4, calibration_images=32, **fields)
        return quantize.apply(network, spec, run), run

    return network, images, quantized


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.body(x)).relu().mean((2, 3)))


def test_adaround_keeps_the_networks_output_closer(calibrated):
    """4 bits: on the calibration images, and reported for each layer."""
    network, images, quantized = calibrated
    nearest, _ = quantized()
    rounded, run = quantized(rounding="adaround")
    with torch.no_grad():
        errors = [float((each(images) - network(images)).square().mean()) for each in (nearest, rounded)]
    assert errors[1] < 0.5 * errors[0]
    shares = run.details["adaround_error_share"]
    assert list(shares) == ["stem.weight", "body.weight", "head.weight"]
    assert all(0 < share < 1 for share in shares.values())
    assert run.cost.macs > 0
    for name in shares:  # the grid is nearest rounding's, and takes as many bytes
        assert rounded.encoded[name].encoding == nearest.encoded[name].encoding
        step = nearest.encoded[name].encoding["scale"]
        assert (rounded.state_dict()[name] - network.state_dict()[name]).abs().max() < step * 1.001


def test_bias_correction_restores_the_means(calibrated):
    """Of every layer's output, up to the half precision that biases and norms are stored in."""
    network, images, quantized = calibrated
    (bare, _), (corrected, run) = quantized(), quantized(bias_correction=True)
    deviations = []
    for each in (bare, corrected):
        seen = [{}, {}]
        with torch.no_grad():
            for watched, values in zip((network, each), seen, strict=True):
                watched.run(images, lambda name, value, values=values: values.update({name: value.clone()}))
        means = [
            [values[name].transpose(0, 1).flatten(1).mean(1) for name in ("norm", "body", "head")]
            for values in seen
        ]
        deviations.append([float((a - b).abs().max()) for a, b in zip(*means, strict=True)])
    assert all(after < 2e-3 < before for before, after in zip(*deviations, strict=True)), deviations
    assert run.reporter.logs() == []


def test_calibration_needs_images_of_train(network, tmp_path):
    run = make_run(tmp_path, data=MemoryData(val=9, test=9))
    with pytest.raises(Problem, match="NO_CALIBRATION_IMAGES"):
        quantize.apply(network, Quantize(method="quantize", bias_correction=True), run)


def test_a_calibration_can_be_stopped(network, tmp_path):
    run = make_run(tmp_path, stop_requested=stop_at(2, "cancel"))
    with pytest.raises(Stopped) as stopped:
        quantize.apply(network, Quantize(method="quantize", bias_correction=True), run)
    assert stopped.value.model is None


# ------------------------------------------------------------------------------------------------ the reader alone

_DIGESTS = """
import hashlib, sys, torch
sys.path.insert(0, ".")
import load_artifact
for path in sys.argv[1:]:
    digest = hashlib.sha256()
    for name, tensor in load_artifact.load(path).state_dict().items():
        digest.update(bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()))
    print(digest.hexdigest())
"""


def test_the_reader_alone_decodes_every_encoding(calibrated, tmp_path):
    """A process with load_artifact.py and torch gets the very values that the network computed with."""
    network, _, _ = calibrated
    specs = [
        {"scheme": "fp16"},
        {"scheme": "bf16"},
        {"scheme": "float8"},
        {"scheme": "minmax", "bits": 3},
        {"scheme": "minmax", "bits": 5, "granularity": "channel", "clip": "mse"},
        {"scheme": "symmetric", "bits": 6},
        {"scheme": "symmetric", "bits": 2, "granularity": "channel"},
        {"scheme": "codebook", "bits": 3},
        {"scheme": "cast"},
    ]
    shutil.copy(load_artifact.__file__, tmp_path)
    expected, names, encodings = [], [], set()
    sparse = copy.deepcopy(network)
    sparse.body.weight.data[sparse.body.weight.abs() < 0.05] = 0
    for number, fields in enumerate(specs * 2):
        made = [network, sparse][number // len(specs)]
        stored = quantize.apply(made, Quantize(method="quantize", **fields), make_run(tmp_path))
        encodings |= {each.encoding["name"] for each in stored.encoded.values()}
        digest = hashlib.sha256()
        for tensor in stored.state_dict().values():
            digest.update(bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()))
        expected.append(digest.hexdigest())
        names.append(f"{number}.pt")
        (tmp_path / names[-1]).write_bytes(pack(stored, preprocessing=None, class_names=None))
    command = [sys.executable, "-I", "-c", _DIGESTS, *names]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.split() == expected
    assert len(set(expected[: len(specs)])) == len(specs)
    assert encodings == load_artifact._ENCODINGS.keys() - {"raw"}
