"""Convolutions split in two: the report's networks to the parameter, and the nearest start there is."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from app.errors import Problem
from app.spec.steps.redesign import Redesign
from models import as_network, layer_table
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, make_run, stop_at
from worker.run import Stopped
from worker.steps import redesign

# Report, section G: parameters and multiply-adds with 11 classes at 64 x 64.
ROWS = [
    ({"kind": "depthwise"}, "report/separable", 161_819, 27_587_968),
    ({"kind": "grouped", "groups": "in"}, "report/separable", 161_819, 27_587_968),
    ({"kind": "grouped", "groups": "in/2"}, "report/groups-half", 163_259, 27_846_016),
    ({"kind": "grouped", "groups": "in/4"}, "report/groups-quarter", 166_139, 28_362_112),
    ({"kind": "grouped", "groups": "in/8"}, "report/groups-eighth", 171_899, 29_394_304),
    ({"kind": "grouped", "groups": 1}, "report/groups-1", 243_323, 41_485_696),
]


@pytest.fixture(scope="module")
def plain():
    network = create_network("report/plain", num_classes=11, seed=0).eval()
    network.preprocessing = dict(PREPROCESSING)
    return network


def apply(network, tmp_path, seed: int = 0, **fields):
    run = make_run(tmp_path, seed=seed)
    return redesign.apply(network, Redesign(method="redesign", **fields), run), run


def logits(network, images=None):
    images = torch.randn(2, *network.input_shape) if images is None else images
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize(("fields", "name", "parameters", "macs"), ROWS)
def test_the_plain_network_becomes_the_reports(plain, tmp_path, fields, name, parameters, macs):
    """Section G: its parameters, its multiply-adds; and with the same weights, the same outputs as the built-in network."""
    split, _ = apply(plain, tmp_path, keep_first=4, norm_between=True, initialise="new", **fields)
    table = layer_table(split)
    assert (table["parameters"], table["macs"]) == (parameters, macs)
    built_in = create_network(name, num_classes=11, seed=1).eval()
    weights = built_in.state_dict().values()
    split.load_state_dict(dict(zip(split.state_dict(), weights, strict=True)))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(logits(split, images), logits(built_in, images))


@pytest.mark.parametrize("initialise", ["svd", "new"])
def test_every_layer_has_the_parameters_of_the_formula(plain, tmp_path, initialise):
    """Report D8: in·out·k² becomes in·k² + in·out, and the bias stays; nothing else changes."""
    split, run = apply(plain, tmp_path, initialise=initialise)
    assert len(run.details["layers"]) == 7
    for row in run.details["layers"]:
        arguments = plain.graph["layers"][row["layer"]]["arguments"]
        num_inputs, num_outputs = arguments["in_channels"], arguments["out_channels"]
        assert row["parameters_before"] == num_inputs * num_outputs * 9 + num_outputs
        assert row["parameters_after"] == num_inputs * 9 + num_inputs * num_outputs + num_outputs
        names = [name for name in split.graph["layers"] if name.startswith(row["layer"] + ".")]
        assert names == [f"{row['layer']}.depthwise", f"{row['layer']}.pointwise"]
    others = [name for name in plain.state_dict() if ".conv" not in name]
    assert len(others) == 39
    assert all(torch.equal(plain.state_dict()[name], split.state_dict()[name]) for name in others)


def composed(split, name: str) -> torch.Tensor:
    """The kernel [out, in, k, k] of a grouped and a pointwise convolution, by loops."""
    grouped = next(
        layer
        for suffix in ("depthwise", "grouped")
        for n, layer in split.named_modules()
        if n == f"{name}.{suffix}"
    )
    pointwise = split.get_submodule(f"{name}.pointwise").weight.detach().double()
    weight = grouped.weight.detach().double()
    channels = weight.shape[1]
    whole = torch.zeros(pointwise.shape[0], weight.shape[0], *weight.shape[2:], dtype=torch.float64)
    for out in range(pointwise.shape[0]):
        for middle in range(weight.shape[0]):
            first = middle // channels * channels
            for offset in range(channels):
                whole[out, first + offset] += pointwise[out, middle, 0, 0] * weight[middle, offset]
    return whole


@pytest.mark.parametrize(("groups", "channels"), [("in", 1), ("in/4", 4), (2, 8), (1, 16)])
def test_the_start_is_the_nearest_there_is(plain, tmp_path, groups, channels):
    """No pair is nearer: of each group's matrix [out, channels · k²], the squared error is the tail of LAPACK's squared
    singular values behind the first `channels`. At one group, 16→16 is met exactly."""
    split, run = apply(plain, tmp_path, layers=["features.conv2"], kind="grouped", groups=groups)
    weight = plain.state_dict()["features.conv2.weight"].double()
    error = (composed(split, "features.conv2") - weight).square().sum()
    tail = sum(
        torch.linalg.svdvals(part.flatten(1))[channels:].square().sum()
        for part in weight.split(channels, dim=1)
    )
    torch.testing.assert_close(error, tail + 0.0, atol=1e-8, rtol=1e-6)
    relative = (error / weight.square().sum()).sqrt().item()
    assert run.details["layers"][0]["relative_error"] == pytest.approx(relative, abs=1e-5)
    assert (relative < 1e-5) == (groups == 1)


class Structured(nn.Module):
    """Convolutions that are separable already, with all that a window can have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2), padding_mode="reflect")
        self.conv2 = nn.Conv2d(6, 4, 3, dilation=2, padding="same", bias=False)
        self.fc = nn.Linear(4, 3)
        with torch.no_grad():
            for conv in (self.conv1, self.conv2):
                depthwise, pointwise = (
                    torch.randn_like(conv.weight[:1]),
                    torch.randn_like(conv.weight[:, :, :1, :1]),
                )
                conv.weight.copy_(depthwise * pointwise)

    def forward(self, x):
        return self.fc(self.conv2(torch.relu(self.conv1(x))).mean((2, 3)))


def test_a_kernel_that_is_separable_stays_what_it_computes(tmp_path):
    torch.manual_seed(0)
    network = as_network(Structured().eval(), torch.rand(1, 3, 16, 16)).eval()
    split, run = apply(network, tmp_path)
    assert [row["relative_error"] < 1e-6 for row in run.details["layers"]] == [True, True]
    torch.testing.assert_close(*(logits(each, torch.ones(2, 3, 16, 16)) for each in (split, network)))
    assert "conv2.pointwise.bias" not in split.state_dict()


def test_channels_beyond_the_outputs_can_still_learn(tmp_path):
    """With one group and fewer outputs than inputs, some filters of the middle are not needed at the start."""
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3))
    network = as_network(module.eval(), torch.rand(1, 3, 8, 8)).eval()
    split, _ = apply(network, tmp_path, kind="grouped", groups=1)
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(logits(split, images), logits(network, images), atol=1e-5, rtol=1e-4)
    split(images).logsumexp(1).sum().backward()
    moved = split.get_submodule("1.pointwise").weight.grad.abs().sum(dim=(0, 2, 3))
    assert (moved > 0).all()


def test_keep_first_counts_the_convolutions_that_would_be_split(plain, tmp_path):
    for keep_first, excluded in ((0, []), (3, []), (2, ["features.conv1", "*.conv5"]), (7, [])):
        split, run = apply(plain, tmp_path, keep_first=keep_first, exclude=excluded)
        left = [n for n in range(1, 8) if f"conv{n}" not in "".join(excluded)]
        assert run.details["kept_first"] == [f"features.conv{n}" for n in left[:keep_first]]
        assert [row["layer"] for row in run.details["layers"]] == [
            f"features.conv{n}" for n in left[keep_first:]
        ]
        assert len(run.reporter.logs()) == (keep_first == 7)
    assert torch.equal(logits(split, torch.ones(1, 3, 64, 64)), logits(plain, torch.ones(1, 3, 64, 64)))


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "cifar/resnet20", "shufflenet_v2_x0_5"])
def test_networks_with_residuals_are_split_too(arch, tmp_path):
    """1x1 and grouped convolutions stay; a norm whose activation comes after an addition moves without it."""
    network = create_network(arch, num_classes=5, image_size=32, seed=0).eval()
    split, run = apply(network, tmp_path, norm_between=True)
    assert logits(split).isfinite().all()
    rows = {row["layer"] for row in run.details["layers"]}
    for name, entry in network.graph["layers"].items():
        if entry["type"] == "Conv2d":
            arguments = entry["arguments"]
            assert (name in rows) == (arguments["groups"] == 1 and arguments["kernel_size"] != [1, 1]), name
    for name in rows:
        types = [
            split.graph["layers"][f"{name}.{part}"]["type"] for part in ("depthwise", "norm", "pointwise")
        ]
        assert types == ["Conv2d", "BatchNorm2d", "Conv2d"]
        assert split.get_submodule(f"{name}.norm").num_features == network.get_submodule(name).in_channels


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4, eps=0.5)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = nn.functional.relu6(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        y = self.conv3(x)
        return self.fc((y + torch.sigmoid(y)).mean((2, 3)))


def test_only_what_follows_alone_moves_between(tmp_path):
    """conv1's norm and activation (a function); conv2's norm, but not the activation behind the addition; of conv3, whose
    value is used twice, nothing."""
    network = as_network(Residual().eval(), torch.rand(1, 3, 8, 8)).eval()
    split, _ = apply(network, tmp_path, norm_between=True)
    layers = split.graph["layers"]
    assert [layers[f"conv{n}.activation"]["type"] for n in (1, 2, 3)] == ["ReLU6", "ReLU", "ReLU"]
    assert layers["conv1.norm"]["arguments"]["eps"] == 0.5
    assert not {"bn1", "bn2"} & layers.keys()
    functions = [node["target"] for node in split.graph["nodes"] if node["op"] == "function"]
    assert functions == ["add", "relu", "sigmoid", "add", "mean"]


@pytest.mark.parametrize(("groups", "way_out"), [("in/2", "of in)"), (2, "divisors 1, 3)")])
def test_groups_that_do_not_divide_are_refused_by_name(plain, tmp_path, groups, way_out):
    """Report G8."""
    with pytest.raises(Problem, match="GROUPS_DO_NOT_DIVIDE") as problem:
        apply(plain, tmp_path, kind="grouped", groups=groups, layers=["*"])
    assert problem.value.status == 422
    assert "groups must divide in and out channels" in problem.value.detail
    assert f"features.conv1 has 3 input channels ({way_out}" in problem.value.detail
    assert "conv2" not in problem.value.detail
    apply(plain, tmp_path, kind="grouped", groups=groups, keep_first=1)


def test_a_misspelt_layer_is_refused_with_the_nearest(plain, tmp_path):
    with pytest.raises(Problem, match="NO_SUCH_LAYER") as problem:
        apply(plain, tmp_path, exclude=["feature.conv3"])
    assert "features.conv3" in problem.value.detail


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "grouped"}, "needs groups"),
        ({"groups": 4}, "leave groups out"),
        ({"kind": "grouped", "groups": "in/3"}, "in/2"),
        ({"kind": "grouped", "groups": 0}, "greater than or equal to 1"),
        ({"kind": "grouped", "groups": "in/2"}, "set keep_first to 1 or more"),
        ({"kind": "grouped", "groups": 4}, "does not divide the 3 colours"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Redesign(method="redesign", **fields)


def test_new_weights_follow_the_seed(plain, tmp_path):
    first, again, other = (
        apply(plain, tmp_path, seed=seed, initialise="new")[0].state_dict() for seed in (0, 0, 1)
    )
    name = "features.conv3.pointwise.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert torch.equal(first["head.fc1.weight"], other["head.fc1.weight"])


def test_nan_is_refused_by_name(plain, tmp_path):
    broken = copy.deepcopy(plain)
    broken.state_dict()["features.conv2.weight"].view(-1)[0] = float("nan")
    with pytest.raises(Problem, match="WEIGHT_NOT_FINITE") as problem:
        apply(broken, tmp_path, layers=["*.conv2"])
    assert "'features.conv2'" in problem.value.detail


def test_it_stops_when_asked(plain, tmp_path):
    run = make_run(tmp_path, stop_requested=stop_at(3, "preempt"))
    with pytest.raises(Stopped):
        redesign.apply(plain, Redesign(method="redesign"), run)
