"""Convolutions redesigned: k x k in→out becomes k x k on groups of channels, then 1x1.

Depthwise + pointwise is MobileNet's block (Howard et al. 2017, https://arxiv.org/abs/1704.04861); grouped + pointwise is the
report's (NTU Machine Learning 2020, homework 7). Changed: the pieces can begin near the trained convolution. Its weight
seen from one group of input channels is a matrix [out, channels of the group * k * k]; the best pair of a grouped
convolution and this group's columns of the pointwise one is that matrix's truncated SVD (Guo et al. 2018,
https://arxiv.org/abs/1808.05517, do it for depthwise).

Shape letters: G groups, O output channels, I input channels, M channels of one group, R rank, S kernel places.
"""

import math
from typing import Any

import torch
from torch import Tensor

from app.errors import Problem
from app.spec.steps.redesign import Redesign
from models import Network
from models.load_artifact import FUNCTIONS
from models.low_rank import low_rank, relative_error
from models.surgery import Node, Piece, calls, replace_layers, sole_user
from worker.chosen_layers import chosen_layers, require_finite
from worker.run import Run, Stopped

_SHARES = {"in": 1, "in/2": 2, "in/4": 4, "in/8": 8}
# Activations without tensors of their own, as layers and as functions.
_ACTIVATION_LAYERS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
}
_ACTIVATIONS = {*_ACTIVATION_LAYERS.values(), "Hardtanh"}


def apply(model: Network | None, spec: Redesign, run: Run) -> Network:
    """The network with its k x k convolutions split as `spec` says; `details` has a row for each.

    Raises Problem GROUPS_DO_NOT_DIVIDE, naming every convolution whose channels do not, before anything is computed.
    """
    assert model is not None, "the pipeline gives the network of the step before"
    names = [name for name in chosen_layers(model, spec) if _is_splittable(model.graph["layers"][name])]
    kept, names = names[: spec.keep_first], names[spec.keep_first :]
    groups = _groups(model, names, spec, len(kept))
    if spec.initialise == "svd":
        require_finite(model, names)
    followers = {name: _followers(model, name) if spec.norm_between else [] for name in names}
    rows: list[dict[str, Any]] = []
    chains: dict[str, list[Piece]] = {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.seed)
        for number, name in enumerate(names):
            if (stop := run.stop_requested()) is not None:
                raise Stopped(stop)
            run.progress(number, len(names), "layer")
            chains[name], error = _chain(model, name, spec, groups[name], followers[name])
            rows.append({"layer": name, "groups": groups[name], "relative_error": error})
        bypassed = [node["name"] for nodes in followers.values() for node in nodes]
        split = replace_layers(model, chains, bypassed)
    for row in rows:
        moved = [node["target"] for node in followers[row["layer"]] if node["op"] == "layer"]
        row["parameters_before"] = sum(_num_parameters(model, name) for name in (row["layer"], *moved))
        row["parameters_after"] = _num_parameters(split, row["layer"])
    run.details["layers"], run.details["kept_first"] = rows, kept
    run.note("split_convolutions", len(rows))
    if not rows:
        run.log(
            "No convolution was split: the chosen layers have none of one group and a kernel above 1x1"
            + (f" beyond the first {spec.keep_first}." if kept else "."),
            "warning",
        )
    return split.eval()


def _is_splittable(layer: dict[str, Any]) -> bool:
    if layer["type"] != "Conv2d":
        return False
    kernel = layer["arguments"]["kernel_size"]
    is_pointwise = kernel in (1, [1, 1])
    return layer["arguments"].get("groups", 1) == 1 and not is_pointwise


def _num_parameters(network: Network, name: str) -> int:
    return sum(parameter.numel() for parameter in network.get_submodule(name).parameters())


def _groups(model: Network, names: list[str], spec: Redesign, num_kept: int) -> dict[str, int]:
    """The number of groups of each convolution."""
    channels = {name: model.graph["layers"][name]["arguments"]["in_channels"] for name in names}
    asked = spec.groups if spec.groups is not None else "in"
    bad = {
        name: count
        for name, count in channels.items()
        if count % (_SHARES[asked] if isinstance(asked, str) else asked)
    }
    if bad:
        found = "; ".join(
            f"{name} has {count} input channels ({_ways(asked, count)})"
            for name, count in list(bad.items())[:5]
        )
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise Problem(
            422,
            "GROUPS_DO_NOT_DIVIDE",
            f"groups must divide in and out channels, and {asked!r} does not everywhere: {found}{more}. Choose "
            f"groups that do, raise keep_first (now {num_kept}), or exclude these layers.",
        )
    return {
        name: count // _SHARES[asked] if isinstance(asked, str) else asked for name, count in channels.items()
    }


def _ways(asked: str | int, channels: int) -> str:
    """What would divide, in the words that were used."""
    if isinstance(asked, str):
        return "of " + ", ".join(share for share, divisor in _SHARES.items() if channels % divisor == 0)
    return "divisors " + ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)


def _followers(model: Network, name: str) -> list[Node]:
    """The batch norm and the activation that take the convolution's value and that nobody else needs: both, one or none."""
    found: list[Node] = []
    nodes = calls(model.graph, name)
    if len(nodes) != 1:
        return found
    user = sole_user(model.graph, nodes[0]["name"])
    if (
        user is not None
        and _layer_type(model, user) == "BatchNorm2d"
        and len(calls(model.graph, user["target"])) == 1
    ):
        found.append(user)
        user = sole_user(model.graph, user["name"])
    if user is not None and _activation(model, user) is not None:
        found.append(user)
    return found


def _layer_type(model: Network, node: Node) -> str | None:
    return model.graph["layers"][node["target"]]["type"] if node["op"] == "layer" else None


def _activation(model: Network, node: Node) -> tuple[str, dict[str, Any]] | None:
    """Type and arguments of the layer that does what the node does, if it is an activation."""
    if (type_ := _layer_type(model, node)) in _ACTIVATIONS:
        return type_, model.graph["layers"][node["target"]].get("arguments", {})
    if node["op"] == "function" and node["target"] in _ACTIVATION_LAYERS:
        names = FUNCTIONS[node["target"]].rules
        given = {**dict(zip(names, node.get("args", []), strict=False)), **node.get("kwargs", {})}
        return _ACTIVATION_LAYERS[node["target"]], {key: v for key, v in given.items() if key != "input"}
    return None


def _chain(
    model: Network, name: str, spec: Redesign, groups: int, followers: list[Node]
) -> tuple[list[Piece], float | None]:
    """The pieces, and the relative error of the weight that the two convolutions make together (null for new ones)."""
    convolution: Any = model.get_submodule(name)
    arguments = model.graph["layers"][name]["arguments"]
    num_inputs, has_bias = arguments["in_channels"], convolution.bias is not None
    spatial_bias = has_bias and spec.norm_between  # otherwise the pointwise one's bias does it all
    spatial = {**arguments, "out_channels": num_inputs, "groups": groups, "bias": spatial_bias}
    pointwise = {
        "in_channels": num_inputs,
        "out_channels": arguments["out_channels"],
        "kernel_size": [1, 1],
        "bias": has_bias,
    }
    first: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    error = None
    if spec.initialise == "svd":
        first["weight"], last["weight"], error = _nearest(convolution.weight.detach(), groups)
        if spatial_bias:
            first["bias"] = torch.zeros(num_inputs)
        if has_bias:
            last["bias"] = convolution.bias.detach()
    between = _between(model, num_inputs, followers) if spec.norm_between else []
    return [
        Piece(spec.kind, "Conv2d", spatial, first),
        *between,
        Piece("pointwise", "Conv2d", pointwise, last),
    ], error


def _between(model: Network, num_channels: int, followers: list[Node]) -> list[Piece]:
    """A batch norm and an activation, like the followers where there are any."""
    norm: dict[str, Any] = {}
    activation: tuple[str, dict[str, Any]] = ("ReLU", {})
    for node in followers:
        if _layer_type(model, node) == "BatchNorm2d":
            norm = model.graph["layers"][node["target"]].get("arguments", {})
        else:
            activation = _activation(model, node) or activation
    return [
        Piece("norm", "BatchNorm2d", {**norm, "num_features": num_channels}, {}),
        Piece("activation", *activation, {}),
    ]


def _nearest(weight_OIHW: Tensor, groups: int) -> tuple[Tensor, Tensor, float]:
    """Weights of the grouped convolution [I, M, H, W] and of the pointwise one [O, I, 1, 1], and their relative error.

    Where a group has more channels than there are outputs, those beyond are not needed: they get new filters with pointwise
    weights of 0, from which training can use them.
    """
    num_outputs, num_inputs, height, width = weight_OIHW.shape
    channels = num_inputs // groups
    matrix_GOMS = weight_OIHW.reshape(num_outputs, groups, channels, height * width).transpose(0, 1)
    rank = min(channels, num_outputs)
    left_GOR, right_GRN = low_rank(matrix_GOMS.flatten(2), rank)
    error = relative_error(matrix_GOMS, left_GOR @ right_GRN)
    spatial = torch.empty(groups, channels, channels, height, width, dtype=torch.float64)
    torch.nn.init.kaiming_uniform_(spatial.view(num_inputs, channels, height, width), a=math.sqrt(5))
    spatial[:, :rank] = right_GRN.view(groups, rank, channels, height, width)
    pointwise_GOM = torch.zeros(groups, num_outputs, channels, dtype=torch.float64)
    pointwise_GOM[:, :, :rank] = left_GOR
    return (
        spatial.view(num_inputs, channels, height, width),
        pointwise_GOM.transpose(0, 1).reshape(num_outputs, num_inputs, 1, 1),
        error,
    )
