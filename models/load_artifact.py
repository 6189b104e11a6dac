#!/usr/bin/env python3
"""Load a network that fewbytes packed: one file, needs only torch (and Pillow to open images).

    python load_artifact.py model.pt info
    python load_artifact.py model.pt graph > graph.json
    python load_artifact.py model.pt classify a.jpg b.jpg --top 3
    python load_artifact.py model.pt evaluate photos/ --split test
    python load_artifact.py model.pt verify receipt.json --photos photos/

In Python:

    import load_artifact
    network = load_artifact.load("model.pt")          # an nn.Module in eval mode
    network.class_names, network.preprocessing
    logits = network(images)                          # float32 [N, 3, H, W], normalised

An artifact is a graph (layers and the calls between them, as JSON) plus tensors. Nothing in the file is
executed: every layer and function is looked up in the vocabulary below, every name is checked against a
pattern and every argument against a rule. Read on from top to bottom: vocabulary, check, Network, counting,
tensors, file, photos, command line, receipts.

Shape letters: N images, C channels or classes, H height, W width.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import operator
import re
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL import Image

FORMAT_VERSION = 1


class GraphError(ValueError):
    """A graph or its file breaks a rule. The message names the node, layer or tensor, and the rule."""


# ---------------------------------------------------------------------------------------- rules for arguments


class Ref(NamedTuple):
    """The value of an earlier node. `kind`: tensor, tensors (a tuple), number, shape (a tuple)."""

    name: str
    kind: str


class Rule(NamedTuple):
    """What an argument must be: in words, and as a test."""

    says: str
    holds: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ref(value: Any, *kinds: str) -> bool:
    return isinstance(value, Ref) and value.kind in kinds


def _integer(low: int, high: int) -> Rule:
    return Rule(f"an integer from {low} to {high}", lambda v: _is_integer(v) and low <= v <= high)


def _number(low: float, high: float) -> Rule:
    return Rule(
        f"a number from {low:g} to {high:g}",
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high,
    )


def _one_of(*choices: str) -> Rule:
    return Rule("one of " + ", ".join(choices), lambda v: isinstance(v, str) and v in choices)


def _list_of(rule: Rule, low: int, high: int) -> Rule:
    return Rule(
        f"a list of {low} to {high} items, each {rule.says}",
        lambda v: isinstance(v, list) and low <= len(v) <= high and all(map(rule.holds, v)),
    )


def _any_of(*rules: Rule) -> Rule:
    return Rule(" or ".join(rule.says for rule in rules), lambda v: any(rule.holds(v) for rule in rules))


def _pair(rule: Rule) -> Rule:
    return _any_of(rule, _list_of(rule, 2, 2))


FLAG = Rule("true or false", lambda v: isinstance(v, bool))
NOTHING = Rule("null", lambda v: v is None)
DIM = _integer(-8, 8)
DIMS = _any_of(DIM, _list_of(DIM, 1, 8))
CHANNELS = _integer(1, 1 << 16)
FEATURES = _integer(1, 1 << 24)
GROUPS = CHANNELS
WINDOW = _pair(_integer(1, 1024))
PADDING = _pair(_integer(0, 1024))
BORDER = _any_of(_integer(-1024, 1024), _list_of(_integer(-1024, 1024), 2, 6))
OUTPUT_SIZE = _any_of(_integer(1, 4096), _list_of(_any_of(_integer(1, 4096), NOTHING), 2, 2))
SCALAR = _number(-1e12, 1e12)
SMALL = _number(0, 1e3)  # eps, momentum, slopes
PROBABILITY = _number(0, 1)

TENSOR = Rule("a tensor", lambda v: _is_ref(v, "tensor"))
MAYBE_TENSOR = _any_of(TENSOR, NOTHING)
TENSORS = _any_of(_list_of(TENSOR, 1, 1024), Rule("a tuple of tensors", lambda v: _is_ref(v, "tensors")))
MAX_INDICES = 1 << 16  # as many as CHANNELS
COUNT = _any_of(_integer(-1, 1 << 31), Rule("a computed number", lambda v: _is_ref(v, "number")))
SHAPE = _any_of(_list_of(COUNT, 1, 8), Rule("a shape", lambda v: _is_ref(v, "shape")))
OPERAND = _any_of(SCALAR, Rule("a tensor or a computed number", lambda v: _is_ref(v, "tensor", "number")))

_POSITION = _any_of(_integer(-(1 << 31), 1 << 31), Rule("a computed number", lambda v: _is_ref(v, "number")))
_SLICE = Rule(
    "a slice of integers",
    lambda v: (
        isinstance(v, slice)
        and all(_any_of(_POSITION, NOTHING).holds(part) for part in (v.start, v.stop, v.step))
    ),
)
_INDEX = _any_of(_POSITION, _SLICE, _one_of("..."), NOTHING)
INDEX = _any_of(_INDEX, _list_of(_INDEX, 1, 8))


# ------------------------------------------------------------------------------------- the vocabulary: layers


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]; computes as torchvision's class of this name."""

    def forward(self, input: Tensor) -> Tensor:
        x = input.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class StochasticDepth(nn.Module):
    """In training, drop rows (or the whole batch) with probability p; torchvision's, same random numbers."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        survival_rate = 1.0 - self.p
        rows = input.shape[0] if self.mode == "row" else 1
        noise = torch.empty([rows] + [1] * (input.ndim - 1), dtype=input.dtype, device=input.device)
        noise = noise.bernoulli_(survival_rate)
        if survival_rate > 0.0:
            noise.div_(survival_rate)
        return input * noise


class Scope(nn.Module):
    """A place in the tree of names that holds layers, parameters or buffers; it is never called."""


class Layer(NamedTuple):
    make: type[nn.Module]
    rules: dict[str, Rule]


def _layer(make: type[nn.Module], **rules: Rule) -> tuple[str, Layer]:
    return make.__name__, Layer(make, rules)


_norm = {"eps": SMALL, "affine": FLAG, "bias": FLAG}
_batch_norm = {
    "num_features": CHANNELS,
    "momentum": _any_of(PROBABILITY, NOTHING),
    "track_running_stats": FLAG,
    **_norm,
}
_layer_norm = {
    "normalized_shape": _any_of(CHANNELS, _list_of(CHANNELS, 1, 4)),
    "eps": SMALL,
    "elementwise_affine": FLAG,
    "bias": FLAG,
}
_convolution = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "kernel_size": WINDOW,
    "stride": WINDOW,
    "padding": _any_of(PADDING, _one_of("same", "valid")),
    "dilation": WINDOW,
    "groups": GROUPS,
    "bias": FLAG,
    "padding_mode": _one_of("zeros", "reflect", "replicate", "circular"),
}

LAYERS: dict[str, Layer] = dict(
    [
        _layer(nn.Conv2d, **_convolution),
        _layer(nn.Linear, in_features=FEATURES, out_features=FEATURES, bias=FLAG),
        _layer(
            nn.MultiheadAttention,
            embed_dim=CHANNELS,
            num_heads=CHANNELS,
            dropout=PROBABILITY,
            bias=FLAG,
            batch_first=FLAG,
        ),
        _layer(nn.BatchNorm1d, **_batch_norm),
        _layer(nn.BatchNorm2d, **_batch_norm),
        _layer(nn.InstanceNorm2d, **_batch_norm),
        _layer(nn.GroupNorm, num_groups=GROUPS, num_channels=CHANNELS, **_norm),
        _layer(nn.LayerNorm, **_layer_norm),
        _layer(LayerNorm2d, **_layer_norm),
        _layer(nn.LocalResponseNorm, size=CHANNELS, alpha=SMALL, beta=SMALL, k=SMALL),
        _layer(
            nn.MaxPool2d, kernel_size=WINDOW, stride=WINDOW, padding=PADDING, dilation=WINDOW, ceil_mode=FLAG
        ),
        _layer(
            nn.AvgPool2d,
            kernel_size=WINDOW,
            stride=WINDOW,
            padding=PADDING,
            ceil_mode=FLAG,
            count_include_pad=FLAG,
            divisor_override=_any_of(_integer(1, 1 << 20), NOTHING),
        ),
        _layer(nn.AdaptiveAvgPool2d, output_size=OUTPUT_SIZE),
        _layer(nn.AdaptiveMaxPool2d, output_size=OUTPUT_SIZE),
        _layer(nn.ReLU, inplace=FLAG),
        _layer(nn.ReLU6, inplace=FLAG),
        _layer(nn.LeakyReLU, negative_slope=SMALL, inplace=FLAG),
        _layer(nn.PReLU, num_parameters=CHANNELS),
        _layer(nn.ELU, alpha=SMALL, inplace=FLAG),
        _layer(nn.GELU, approximate=_one_of("none", "tanh")),
        _layer(nn.SiLU, inplace=FLAG),
        _layer(nn.Mish, inplace=FLAG),
        _layer(nn.Sigmoid),
        _layer(nn.Tanh),
        _layer(nn.Hardswish, inplace=FLAG),
        _layer(nn.Hardsigmoid, inplace=FLAG),
        _layer(nn.Hardtanh, min_val=SCALAR, max_val=SCALAR, inplace=FLAG),
        _layer(nn.Softmax, dim=DIM),
        _layer(nn.LogSoftmax, dim=DIM),
        _layer(nn.Dropout, p=PROBABILITY, inplace=FLAG),
        _layer(nn.Dropout2d, p=PROBABILITY, inplace=FLAG),
        _layer(StochasticDepth, p=PROBABILITY, mode=_one_of("row", "batch")),
        _layer(nn.Flatten, start_dim=DIM, end_dim=DIM),
        _layer(nn.ZeroPad2d, padding=BORDER),
        _layer(nn.ReflectionPad2d, padding=BORDER),
        _layer(nn.ChannelShuffle, groups=GROUPS),
        _layer(nn.Identity),
        _layer(Scope),
    ]
)

# What a layer is called with; all others take one tensor and give one.
_CALLS: dict[str, dict[str, Rule]] = {
    "MultiheadAttention": {"query": TENSOR, "key": TENSOR, "value": TENSOR, "need_weights": FLAG},
}
_ONE_TENSOR = {"input": TENSOR}


# ---------------------------------------------------------------------------------- the vocabulary: functions


class Function(NamedTuple):
    """A function's name for its arguments, the rules for them, and the kind of its result."""

    call: Callable[..., Any]
    rules: dict[str, Rule]
    result: Callable[[dict[str, Any]], str]


def _gives_tensor(arguments: dict[str, Any]) -> str:
    return "tensor"


def _gives_tensors(arguments: dict[str, Any]) -> str:
    return "tensors"


def _gives_operand(arguments: dict[str, Any]) -> str:
    return "tensor" if any(_is_ref(value, "tensor") for value in arguments.values()) else "number"


def _gives_size(arguments: dict[str, Any]) -> str:
    return "number" if arguments.get("dim") is not None else "shape"


def _gives_item(arguments: dict[str, Any]) -> str:
    value, index = arguments.get("value"), arguments.get("index")
    kind = value.kind if isinstance(value, Ref) else "nothing"
    if kind == "tensor":
        return "tensor"
    if kind == "tensors" and _is_integer(index):
        return "tensor"
    if kind == "shape" and _POSITION.holds(index):
        return "number"
    if kind == "shape" and isinstance(index, slice):
        return "shape"
    raise GraphError(f"{kind} cannot be indexed with this")


def _getitem(value: Any, index: Any) -> Any:
    if isinstance(index, list):
        return value[tuple(... if part == "..." else part for part in index)]
    return value[...] if index == "..." else value[index]


def _view(input: Tensor, shape: Sequence[int]) -> Tensor:
    return input.view(shape)


def _expand(input: Tensor, size: Sequence[int]) -> Tensor:
    return input.expand(size)


def _index_select(input: Tensor, dim: int, index: list[int]) -> Tensor:
    # Checked here: a GPU does not raise for an index outside, it loses its context.
    if max(index) >= input.shape[dim]:
        raise IndexError(f"index {max(index)} is outside of dimension {dim}, which has {input.shape[dim]}")
    return input.index_select(dim, torch.tensor(index, device=input.device))


def _contiguous(input: Tensor) -> Tensor:
    return input.contiguous()


def _size(input: Tensor, dim: int | None = None) -> Any:
    return input.shape if dim is None else input.shape[dim]


def _on_tensor(call: Callable[..., Any], **rules: Rule) -> Function:
    return Function(call, {"input": TENSOR, **rules}, _gives_tensor)


def _arithmetic(call: Callable[..., Any], b: Rule = OPERAND) -> Function:
    return Function(call, {"a": OPERAND, "b": b}, _gives_operand)


_SOME_NUMBER = _any_of(SCALAR, NOTHING)

FUNCTIONS: dict[str, Function] = {
    "add": _arithmetic(operator.add),
    "sub": _arithmetic(operator.sub),
    "mul": _arithmetic(operator.mul),
    "truediv": _arithmetic(operator.truediv),
    "floordiv": _arithmetic(operator.floordiv),
    # A small exponent: powers of powers of sizes would otherwise grow without bound.
    "pow": _arithmetic(operator.pow, _number(-4, 4)),
    "neg": Function(operator.neg, {"a": OPERAND}, _gives_operand),
    "matmul": Function(torch.matmul, {"input": TENSOR, "other": TENSOR}, _gives_tensor),
    "getitem": Function(
        _getitem,
        {
            "value": Rule("a tensor, tuple or shape", lambda v: _is_ref(v, "tensor", "tensors", "shape")),
            "index": INDEX,
        },
        _gives_item,
    ),
    "size": Function(_size, {"input": TENSOR, "dim": DIM}, _gives_size),
    "cat": Function(torch.cat, {"tensors": TENSORS, "dim": DIM}, _gives_tensor),
    "stack": Function(torch.stack, {"tensors": TENSORS, "dim": DIM}, _gives_tensor),
    "chunk": Function(
        torch.chunk, {"input": TENSOR, "chunks": _integer(1, 1024), "dim": DIM}, _gives_tensors
    ),
    "split": Function(
        torch.split,
        {
            "tensor": TENSOR,
            "split_size_or_sections": _any_of(_integer(1, 1 << 24), _list_of(_integer(0, 1 << 24), 1, 1024)),
            "dim": DIM,
        },
        _gives_tensors,
    ),
    # Written by pruning, where a channel shuffle has become uneven.
    "index_select": _on_tensor(
        _index_select, dim=_integer(1, 7), index=_list_of(_integer(0, MAX_INDICES - 1), 1, MAX_INDICES)
    ),
    "unbind": Function(torch.unbind, {"input": TENSOR, "dim": DIM}, _gives_tensors),
    "flatten": _on_tensor(torch.flatten, start_dim=DIM, end_dim=DIM),
    "view": _on_tensor(_view, shape=SHAPE),
    "reshape": _on_tensor(torch.reshape, shape=SHAPE),
    "expand": _on_tensor(_expand, size=SHAPE),
    "permute": _on_tensor(torch.permute, dims=_list_of(DIM, 1, 8)),
    "transpose": _on_tensor(torch.transpose, dim0=DIM, dim1=DIM),
    "squeeze": _on_tensor(torch.squeeze, dim=DIM),
    "unsqueeze": _on_tensor(torch.unsqueeze, dim=DIM),
    "contiguous": _on_tensor(_contiguous),
    "mean": _on_tensor(torch.mean, dim=DIMS, keepdim=FLAG),
    "sum": _on_tensor(torch.sum, dim=DIMS, keepdim=FLAG),
    "amax": _on_tensor(torch.amax, dim=DIMS, keepdim=FLAG),
    "clamp": _on_tensor(torch.clamp, min=_SOME_NUMBER, max=_SOME_NUMBER),
    "relu": _on_tensor(F.relu, inplace=FLAG),
    "relu6": _on_tensor(F.relu6, inplace=FLAG),
    "leaky_relu": _on_tensor(F.leaky_relu, negative_slope=SMALL, inplace=FLAG),
    "elu": _on_tensor(F.elu, alpha=SMALL, inplace=FLAG),
    "gelu": _on_tensor(F.gelu, approximate=_one_of("none", "tanh")),
    "silu": _on_tensor(F.silu, inplace=FLAG),
    "mish": _on_tensor(F.mish, inplace=FLAG),
    "sigmoid": _on_tensor(torch.sigmoid),
    "tanh": _on_tensor(torch.tanh),
    "softplus": _on_tensor(F.softplus, beta=SMALL, threshold=SMALL),
    "hardswish": _on_tensor(F.hardswish, inplace=FLAG),
    "hardsigmoid": _on_tensor(F.hardsigmoid, inplace=FLAG),
    "softmax": _on_tensor(F.softmax, dim=DIM),
    "log_softmax": _on_tensor(F.log_softmax, dim=DIM),
    "normalize": _on_tensor(F.normalize, p=_number(0, 1e3), dim=DIM, eps=SMALL),
    "pad": _on_tensor(
        F.pad, pad=BORDER, mode=_one_of("constant", "reflect", "replicate", "circular"), value=_SOME_NUMBER
    ),
    "max_pool2d": _on_tensor(
        F.max_pool2d,
        kernel_size=WINDOW,
        stride=_any_of(WINDOW, NOTHING),
        padding=PADDING,
        dilation=WINDOW,
        ceil_mode=FLAG,
    ),
    "avg_pool2d": _on_tensor(
        F.avg_pool2d,
        kernel_size=WINDOW,
        stride=_any_of(WINDOW, NOTHING),
        padding=PADDING,
        ceil_mode=FLAG,
        count_include_pad=FLAG,
    ),
    "adaptive_avg_pool2d": _on_tensor(F.adaptive_avg_pool2d, output_size=OUTPUT_SIZE),
    "adaptive_max_pool2d": _on_tensor(F.adaptive_max_pool2d, output_size=OUTPUT_SIZE),
    "linear": _on_tensor(F.linear, weight=TENSOR, bias=MAYBE_TENSOR),
    "conv2d": _on_tensor(
        F.conv2d,
        weight=TENSOR,
        bias=MAYBE_TENSOR,
        stride=WINDOW,
        padding=_any_of(PADDING, _one_of("same", "valid")),
        dilation=WINDOW,
        groups=GROUPS,
    ),
    "layer_norm": _on_tensor(
        F.layer_norm,
        normalized_shape=_list_of(CHANNELS, 1, 4),
        weight=MAYBE_TENSOR,
        bias=MAYBE_TENSOR,
        eps=SMALL,
    ),
}

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


# ------------------------------------------------------------------------------------------- checking a graph

MAX_NODES = 20_000
MAX_PARAMETERS = 1 << 31
MAX_ELEMENTS = 1 << 31  # of one intermediate value
_MAX_ITEMS = 1024  # of a list, where an argument's rule does not say less
_NUM_DRY_IMAGES = 3  # nobody's fixed batch size, so a graph that ignores the batch is found out

# No leading double underscore: `__class__` and its kind are not names.
_NAME = re.compile(r"(?!__)[A-Za-z0-9_-]{1,100}")


class Step(NamedTuple):
    """One node, ready to run. `done` names the values nobody needs after it."""

    name: str
    op: str
    target: str
    args: list[Any]
    kwargs: dict[str, Any]
    done: tuple[str, ...]


def check(graph: Any) -> None:
    """Raise GraphError unless the graph is well formed, within the vocabulary, and runs on its input shape.

    The last is tried on the meta device: shapes are computed, memory is not touched.
    """
    with torch.device("meta"):
        network = Network(graph)
    _dry_run(network)


def _dry_run(network: Network) -> None:
    """Run three images on the meta device; every value must stay within bounds and the result be [3, C]."""

    def observe(name: str, value: Any) -> None:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Tensor) and part.numel() > MAX_ELEMENTS:
                raise GraphError(f"its value has {part.numel()} elements, more than {MAX_ELEMENTS}")
            if isinstance(part, int | float) and not abs(part) <= 1 << 40:
                raise GraphError("its value, a number, is larger than 2^40")

    was_training = network.training
    network.eval()
    images = torch.empty((_NUM_DRY_IMAGES, *network.input_shape), device="meta", dtype=_float_dtype(network))
    with torch.no_grad():
        logits = network.run(images, observe)
    network.train(was_training)
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[0] == _NUM_DRY_IMAGES):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GraphError(
            f"the output for {_NUM_DRY_IMAGES} images is {shape}: a classifier must give one row of logits "
            f"an image, [{_NUM_DRY_IMAGES}, number of classes], for any number of images"
        )
    network.num_classes = logits.shape[1]


def _float_dtype(network: nn.Module) -> torch.dtype:
    for parameter in network.parameters():
        return parameter.dtype
    return torch.float32


def _show(value: Any) -> str:
    """A value for a message: short, whatever a hostile file put there."""
    if _is_integer(value) and abs(value) > 1 << 64:
        return "a huge integer"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, Ref):
        return f"the {value.kind} {value.name!r}"
    if (
        isinstance(value, list | tuple)
        and len(value) <= 8
        and not any(isinstance(v, list | tuple | dict) for v in value)
    ):
        return "[" + ", ".join(map(_show, value)) + "]"
    return f"a {type(value).__name__}"


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise GraphError(message)


def _check_name(name: Any, what: str, *, dotted: bool) -> None:
    _expect(
        isinstance(name, str) and 0 < len(name) <= 512,
        f"{what} {_show(name)}: a name is a string of 1 to 512 letters",
    )
    parts = name.split(".") if dotted else [name]
    for part in parts:
        ok = _NAME.fullmatch(part) is not None
        _expect(
            ok,
            f"{what} {_show(name)}: {'between dots, ' * dotted}a name is letters, digits, - and _, "
            "and does not begin with __",
        )


def _read_shape(shape: Any, what: str, *, high: int = 8) -> list[int]:
    rule = _list_of(_integer(0, 1 << 31), 0, high)
    _expect(rule.holds(shape), f"{what}: shape {_show(shape)} is not {rule.says}")
    return list(shape)


def _check_keys(value: Any, required: set[str], optional: set[str], what: str) -> None:
    _expect(isinstance(value, dict), f"{what} is not an object")
    keys = set(value)
    _expect(required <= keys, f"{what} lacks {sorted(required - keys)}")
    unknown = sorted(map(_show, keys - required - optional))
    _expect(not unknown, f"{what} has unknown fields {', '.join(unknown)[:200]}")


def _check_arguments(arguments: dict[str, Any], rules: dict[str, Rule], what: str) -> None:
    for name, value in arguments.items():
        _expect(name in rules, f"{what}: there is no argument {_show(name)} (there are: {', '.join(rules)})")
        _expect(rules[name].holds(value), f"{what}: {name} is {_show(value)}, not {rules[name].says}")


def _check_tree(graph: dict[str, Any]) -> None:
    """Names of layers, parameters and buffers: patterns, and nothing inside a layer but the layer's own."""
    for name, layer in graph["layers"].items():
        what = f"layer {_show(name)}"
        _check_name(name, "layer", dotted=True)
        _check_keys(layer, {"type"}, {"arguments"}, what)
        _expect(
            isinstance(layer["type"], str) and layer["type"] in LAYERS,
            f"{what}: type {layer['type']!r:.80} is not in the vocabulary",
        )
        arguments = layer.get("arguments", {})
        _expect(isinstance(arguments, dict), f"{what}: arguments is not an object")
        _check_arguments(arguments, LAYERS[layer["type"]].rules, what)
    for name, shape in graph["parameters"].items():
        _check_name(name, "parameter", dotted=True)
        _read_shape(shape, f"parameter {name!r}")
    for name, buffer in graph["buffers"].items():
        _check_name(name, "buffer", dotted=True)
        _check_keys(buffer, {"shape", "dtype"}, set(), f"buffer {name!r}")
        _read_shape(buffer["shape"], f"buffer {name!r}")
        _expect(
            isinstance(buffer["dtype"], str) and buffer["dtype"] in DTYPES, f"buffer {name!r}: unknown dtype"
        )
    _expect(
        not graph["parameters"].keys() & graph["buffers"].keys(), "a name is both a parameter and a buffer"
    )


def _read_steps(graph: dict[str, Any]) -> list[Step]:
    """The nodes as steps, each checked against those before it."""
    nodes = graph["nodes"]
    _expect(
        isinstance(nodes, list) and 2 <= len(nodes) <= MAX_NODES,
        f"nodes: a list of 2 to {MAX_NODES} is needed",
    )
    kinds: dict[str, str] = {}
    last_use: dict[str, int] = {}
    steps: list[Step] = []
    for position, node in enumerate(nodes):
        _check_keys(node, {"name", "op"}, {"target", "args", "kwargs"}, f"node {position}")
        name = node["name"]
        _check_name(name, f"node {position}", dotted=False)
        _expect(name not in kinds, f"node {name!r}: there are two nodes of this name")
        try:
            step, kind, used = _read_node(node, graph, kinds)
        except GraphError as error:
            raise GraphError(f"node {name!r}: {error}") from None
        _expect(
            (step.op == "input") == (position == 0),
            f"node {name!r}: there is one input, and it is the first node",
        )
        is_last = position == len(nodes) - 1
        _expect(
            (step.op == "output") == is_last, f"node {name!r}: there is one output, and it is the last node"
        )
        kinds[name] = kind
        last_use[name] = position
        last_use.update(dict.fromkeys(used, position))
        steps.append(step)
    done: list[list[str]] = [[] for _ in steps]
    for name, position in last_use.items():
        done[position].append(name)
    return [step._replace(done=tuple(names)) for step, names in zip(steps, done, strict=True)]


def _read_node(
    node: dict[str, Any], graph: dict[str, Any], kinds: dict[str, str]
) -> tuple[Step, str, list[str]]:
    """The node's step, the kind of its value, and the names it uses."""
    op, target = node["op"], node.get("target", "")
    _expect(isinstance(op, str) and isinstance(target, str), "op and target are strings")
    raw_args, raw_kwargs = node.get("args", []), node.get("kwargs", {})
    _expect(
        isinstance(raw_args, list) and isinstance(raw_kwargs, dict), "args is a list and kwargs an object"
    )
    used: list[str] = []
    longest = MAX_INDICES if (op, target) == ("function", "index_select") else _MAX_ITEMS
    args = [_read_argument(value, kinds, used, longest) for value in raw_args]
    kwargs = {name: _read_argument(value, kinds, used, longest) for name, value in raw_kwargs.items()}
    step = Step(node["name"], op, target, args, kwargs, ())

    if op == "input":
        _expect(not (target or args or kwargs), "an input takes no target and no arguments")
        return step, "tensor", used
    if op == "output":
        _expect(
            len(args) == 1 and TENSOR.holds(args[0]) and not (kwargs or target), "an output takes one tensor"
        )
        return step, "tensor", used
    if op == "tensor":
        _expect(not (args or kwargs), "a tensor takes no arguments")
        _expect(
            target in graph["parameters"] or target in graph["buffers"],
            f"there is no parameter or buffer {_show(target)}",
        )
        return step, "tensor", used
    if op == "layer":
        _expect(target in graph["layers"], f"there is no layer {_show(target)}")
        layer_type = graph["layers"][target]["type"]
        _expect(layer_type != "Scope", "a Scope is not called")
        rules = _CALLS.get(layer_type, _ONE_TENSOR)
        _bind(args, kwargs, rules, f"layer {target!r} ({layer_type})")
        return step, "tensors" if layer_type == "MultiheadAttention" else "tensor", used
    _expect(op == "function", f"op {_show(op)} is none of input, layer, function, tensor, output")
    _expect(target in FUNCTIONS, f"function {_show(target)} is not in the vocabulary")
    bound = _bind(args, kwargs, FUNCTIONS[target].rules, f"function {target!r}")
    return step, FUNCTIONS[target].result(bound), used


def _bind(args: list[Any], kwargs: dict[str, Any], rules: dict[str, Rule], what: str) -> dict[str, Any]:
    """Arguments by name, each checked. What is missing is found by the dry run."""
    _expect(len(args) <= len(rules), f"{what} takes at most {len(rules)} arguments, not {len(args)}")
    bound = dict(zip(rules, args, strict=False))
    _expect(not bound.keys() & kwargs.keys(), f"{what} is given an argument twice")
    bound.update(kwargs)
    _check_arguments(bound, rules, what)
    return bound


def _read_argument(
    value: Any, kinds: dict[str, str], used: list[str], longest: int = _MAX_ITEMS, depth: int = 0
) -> Any:
    """JSON to an argument: scalars as they are, {"node": name} to a Ref, {"slice": [...]} to a slice.

    `longest`: how many items a list may have that is the whole argument; lists inside it keep to the usual.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        _expect(abs(value) <= 1 << 40, "an integer is larger than 2^40")
        return value
    if isinstance(value, float):
        _expect(math.isfinite(value), "a number is not finite")
        return value
    if isinstance(value, str):
        _expect(len(value) <= 32, "a string argument is longer than 32 letters")
        return value
    _expect(depth < 3, "an argument is nested too deeply")
    if isinstance(value, list):
        _expect(len(value) <= longest, f"a list has more than {longest} items")
        return [_read_argument(part, kinds, used, depth=depth + 1) for part in value]
    if isinstance(value, dict) and set(value) == {"node"}:
        name = value["node"]
        _expect(
            isinstance(name, str) and name in kinds, f"it uses {_show(name)}, which is not a node before it"
        )
        used.append(name)
        return Ref(name, kinds[name])
    if isinstance(value, dict) and set(value) == {"slice"}:
        parts = value["slice"]
        _expect(isinstance(parts, list) and len(parts) == 3, "a slice is [start, stop, step]")
        return slice(*(_read_argument(part, kinds, used, depth=depth + 1) for part in parts))
    raise GraphError(f"an argument of type {type(value).__name__} is not allowed")


# ------------------------------------------------------------------------------------------------ the network


class Network(nn.Module):
    """A graph as a module: trains, moves, copies, exports, compiles. Made by `build` or `load`.

    `graph`: the JSON. `input_shape`: one image's (C, H, W). `num_classes`: known after `build` or `load`.
    `encoded`: the stored form of tensors that are not stored raw, by name. After `load` also `preprocessing`,
    `class_names` and `artifact` (the file's other fields).
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        super().__init__()
        _check_keys(graph, {"input_shape", "layers", "nodes"}, {"parameters", "buffers"}, "the graph")
        graph = {"parameters": {}, "buffers": {}, **graph}
        for table in ("layers", "parameters", "buffers"):
            _expect(
                isinstance(graph[table], dict) and len(graph[table]) <= MAX_NODES, f"{table} is not an object"
            )
        size = _list_of(_integer(1, 4096), 3, 3)
        _expect(size.holds(graph["input_shape"]), "input_shape is not [C, H, W] with numbers from 1 to 4096")
        _check_tree(graph)
        self._steps = _read_steps(graph)
        self.graph = graph
        self.input_shape: tuple[int, ...] = tuple(graph["input_shape"])
        self.num_classes: int | None = None
        self.encoded: dict[str, Encoded] = {}
        self.preprocessing: dict[str, Any] | None = None
        self.class_names: list[str] | None = None
        self.artifact: dict[str, Any] = {}
        self._grow(graph)

    def _grow(self, graph: dict[str, Any]) -> None:
        """Make the tree of modules in the graph's order, so that names and their order are the original's."""
        budget = MAX_PARAMETERS
        for name, layer in graph["layers"].items():
            owner, leaf = self._owner(name, f"layer {name!r}")
            make = LAYERS[layer["type"]].make
            arguments = {
                key: tuple(value) if isinstance(value, list) else value  # as PyTorch's own layers have it
                for key, value in layer.get("arguments", {}).items()
            }
            try:
                with torch.device("meta"):
                    made = make(**arguments)
                    budget -= sum(parameter.numel() for parameter in made.parameters())
                _expect(budget >= 0, f"the network has more than {MAX_PARAMETERS} parameters")
                if torch.get_default_device().type != "meta":
                    made = make(**arguments)
            except (TypeError, ValueError, AssertionError, RuntimeError) as error:
                if isinstance(error, GraphError):
                    raise
                raise GraphError(f"layer {name!r} ({layer['type']}): {error}") from None
            owner.add_module(leaf, made)
        for name, shape in graph["parameters"].items():
            owner, leaf = self._owner(name, f"parameter {name!r}")
            budget -= math.prod(shape)
            _expect(budget >= 0, f"the network has more than {MAX_PARAMETERS} parameters")
            owner.register_parameter(leaf, nn.Parameter(torch.zeros(shape)))
        for name, buffer in graph["buffers"].items():
            owner, leaf = self._owner(name, f"buffer {name!r}")
            budget -= math.prod(buffer["shape"])
            _expect(budget >= 0, f"the network has more than {MAX_PARAMETERS} parameters")
            owner.register_buffer(leaf, torch.zeros(buffer["shape"], dtype=DTYPES[buffer["dtype"]]))

    def _owner(self, name: str, what: str) -> tuple[nn.Module, str]:
        """The module that `name` lives in, made where there is none yet, and the last part of the name."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                _expect(not hasattr(owner, part), f"{what}: the name {part!r} is taken")
                owner.add_module(part, Scope())
            child = owner._modules[part]
            assert child is not None
            owner = child
            _expect(type(owner) is Scope, f"{what}: {part!r} is a layer, nothing else can live in it")
        _expect(not hasattr(owner, leaf), f"{what}: the name {leaf!r} is taken")
        return owner, leaf

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits [N, C] of images that are already normalised, [N, *input_shape]."""
        return self.run(images_NCHW)

    def run(self, images_NCHW: Tensor, observe: Callable[[str, Any], None] | None = None) -> Tensor:
        """The same; `observe(node name, value)` is called with every value on the way."""
        values: dict[str, Any] = {}
        for step in self._steps:
            if observe is None:
                value = self._do(step, values, images_NCHW)
            else:
                value = self._do_watched(step, values, images_NCHW, observe)
            if step.op == "output":
                return value
            values[step.name] = value
            for name in step.done:
                del values[name]
        raise AssertionError("a checked graph ends with its output")

    def _do(self, step: Step, values: dict[str, Any], images_NCHW: Tensor) -> Any:
        if step.op == "input":
            return images_NCHW
        if step.op == "tensor":
            return _attribute(self, step.target)
        args = [_fill(argument, values) for argument in step.args]
        if step.op == "output":
            return args[0]
        kwargs = {name: _fill(argument, values) for name, argument in step.kwargs.items()}
        if step.op == "layer":
            return _attribute(self, step.target)(*args, **kwargs)
        return FUNCTIONS[step.target].call(*args, **kwargs)

    def _do_watched(
        self,
        step: Step,
        values: dict[str, Any],
        images_NCHW: Tensor,
        observe: Callable[[str, Any], None],
    ) -> Any:
        """`_do`, with errors that name the node: whatever torch raises here, the graph is what is wrong."""
        try:
            value = self._do(step, values, images_NCHW)
            observe(step.name, value)
        except Exception as error:
            what = f"{step.op} {step.target!r}" if step.target else step.op
            raise GraphError(f"node {step.name!r} ({what}): {error}") from error
        return value


def _attribute(module: nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _fill(argument: Any, values: dict[str, Any]) -> Any:
    """The argument with every Ref replaced by its value."""
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_fill(part, values) for part in argument]
    if isinstance(argument, slice):
        return slice(
            _fill(argument.start, values), _fill(argument.stop, values), _fill(argument.step, values)
        )
    return argument


def build(graph: dict[str, Any]) -> Network:
    """A network with fresh weights, in training mode. Raises GraphError as `check`, before using memory."""
    with torch.device("meta"):
        blueprint = Network(graph)
    _dry_run(blueprint)
    if torch.get_default_device().type == "meta":
        return blueprint
    network = Network(graph)
    network.num_classes = blueprint.num_classes
    return network


# --------------------------------------------------------------------------------------------------- counting


class Call(NamedTuple):
    """A node of the graph that gave a tensor. `output_shape`: for a batch of one; `macs`: its multiply-adds."""

    node: dict[str, Any]
    output_shape: list[int]
    macs: int


def calls(network: Network) -> list[Call]:
    """What happens to one image, in order.

    MACs are multiply-adds. A convolution has C_out * (C_in / groups) * k_h * k_w * H_out * W_out, a linear layer
    in * out at each position, attention its projections and its two products. Biases, norms, activations and
    pooling count as 0, as in Blalock et al. 2020 (ShrinkBench, MLSys), whose code forgets the groups.
    """
    with torch.device("meta"):
        blueprint = build(network.graph).eval()
    nodes = {node["name"]: node for node in network.graph["nodes"]}
    shapes: dict[str, list[int]] = {}
    made: list[Call] = []

    def observe(name: str, value: Any) -> None:
        first = value[0] if isinstance(value, tuple) else value
        if not isinstance(first, Tensor):
            return
        shapes[name] = list(first.shape)
        node, macs = nodes[name], 0
        inputs = [shapes.get(reference, []) for reference in _references(node)]
        if node["op"] == "layer":
            macs = _layer_macs(blueprint.get_submodule(node["target"]), inputs, shapes[name])
        elif node["op"] == "function":
            macs = _function_macs(node["target"], inputs, shapes[name])
        made.append(Call(node, shapes[name], macs))

    with torch.no_grad():
        blueprint.run(torch.empty((1, *network.input_shape), device="meta"), observe)
    return made


def num_macs(network: Network) -> int:
    """Multiply-adds for one image."""
    return sum(call.macs for call in calls(network))


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _references(node: dict[str, Any]) -> list[str]:
    """Names of the nodes that are arguments by themselves, in order."""
    arguments = [*node.get("args", []), *node.get("kwargs", {}).values()]
    return [argument["node"] for argument in arguments if isinstance(argument, dict) and "node" in argument]


def _layer_macs(layer: nn.Module, inputs: list[list[int]], output: list[int]) -> int:
    """Multiply-adds of one call, for a batch of one."""
    if isinstance(layer, nn.Conv2d):
        return math.prod(output) * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return math.prod(output) * layer.in_features
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_macs(layer, inputs)
    return 0


def _attention_macs(layer: nn.MultiheadAttention, inputs: list[list[int]]) -> int:
    # Query [N, L, E] or, with batch_first false, [L, N, E]; key and value have S in the place of L.
    batch, sequence = (0, 1) if layer.batch_first else (1, 0)
    num_images, num_queries = inputs[0][batch], inputs[0][sequence]
    num_keys, width = inputs[1][sequence], layer.embed_dim
    projections = (2 * num_queries + 2 * num_keys) * width * width
    products = 2 * num_queries * num_keys * width
    return num_images * (projections + products)


def _function_macs(name: str, inputs: list[list[int]], output: list[int]) -> int:
    if name == "matmul":
        return math.prod(output) * inputs[0][-1]
    if name == "linear":  # weight [out, in]
        return math.prod(output) * inputs[1][1]
    if name == "conv2d":  # weight [C_out, C_in / groups, k_h, k_w]
        return math.prod(output) * math.prod(inputs[1][1:])
    return 0


# -------------------------------------------------------------------------------------------- encoded tensors


@dataclass(frozen=True)
class Encoded:
    """A tensor as it is stored: `decode()` gives [*shape] in `dtype`. `data` is 1-D uint8, little-endian."""

    encoding: dict[str, Any]
    shape: list[int]
    dtype: str
    data: Tensor

    def decode(self) -> Tensor:
        return decode(self.encoding, self.shape, self.dtype, self.data)


_FINITE = Rule("a finite float", lambda v: isinstance(v, float) and math.isfinite(v))
_STEP = Rule("a finite float, 0 or more", lambda v: isinstance(v, float) and math.isfinite(v) and v >= 0)
_BITS = _integer(2, 8)
_NUMBERS = _one_of("float16", "float32", "float64")
_BY_CHANNEL = {"bits": _BITS, "axis": _integer(0, 0), "numbers": _NUMBERS}

# The fields of each encoding; a second set is the one with a grid for each index of axis 0.
_ENCODINGS: dict[str, tuple[dict[str, Rule], ...]] = {
    "raw": ({},),
    "fp16": ({},),
    "bf16": ({},),
    "float8_e4m3": ({"scale": _STEP},),
    "minmax": ({"bits": _BITS, "minimum": _FINITE, "maximum": _FINITE}, _BY_CHANNEL),
    "symmetric": ({"bits": _BITS, "scale": _STEP}, _BY_CHANNEL),
    "codebook": ({"bits": _BITS, "size": _integer(1, 256), "numbers": _NUMBERS},),
    "cast": ({"to": _one_of("int8", "uint8")},),
    "sparse": ({"values": Rule("an encoding", lambda v: isinstance(v, dict))},),
}
_NUMBER_TYPES = {  # what stores each element as a number of another type
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "float8_e4m3": torch.float8_e4m3fn,
}


def _check_encoding(encoding: Any, shape: Sequence[int], dtype: str) -> None:
    """GraphError when the encoding is unknown, breaks a rule or does not fit the tensor."""
    name = encoding.get("name") if isinstance(encoding, dict) else None
    _expect(isinstance(name, str) and name in _ENCODINGS, f"encoding {_show(name)} is unknown")
    assert isinstance(name, str)
    rules = _ENCODINGS[name][-1 if "axis" in encoding else 0]
    what = f"encoding {name}"
    _check_keys(encoding, {"name"} | rules.keys(), set(), what)
    _check_arguments({key: value for key, value in encoding.items() if key != "name"}, rules, what)
    if name == "raw":
        return
    _expect(DTYPES[dtype].is_floating_point, f"{what} is for floating-point tensors, not {dtype}")
    if "axis" in encoding:
        _expect(len(shape) > 0 and math.prod(shape) > 0, f"{what} by axis 0 needs elements along axis 0")
    if "minimum" in encoding:
        _expect(encoding["minimum"] <= encoding["maximum"], f"{what} needs minimum <= maximum")
    if name == "codebook":
        _expect(
            encoding["size"] <= 1 << encoding["bits"], f"{what} has more values than its bits can tell apart"
        )
    if name == "sparse":
        _expect(encoding["values"].get("name") != "sparse", "encoding sparse holds another sparse one")
        _check_encoding(encoding["values"], shape, dtype)


def decode(encoding: dict[str, Any], shape: Sequence[int], dtype: str, data: Tensor) -> Tensor:
    """The tensor [*shape] in `dtype` from its stored bytes, in memory of its own.

    `docs/formats.md` has every encoding's bytes and formula. Values are computed in float64 and then rounded
    to `dtype`. Raises GraphError when the encoding breaks a rule or the bytes are not as many as it needs.
    """
    _check_encoding(encoding, shape, dtype)
    count = math.prod(shape)
    if encoding["name"] != "sparse":
        return _decode_values(encoding, shape, dtype, data, None).to(DTYPES[dtype]).reshape(list(shape))
    map_bytes = -(-count // 8)
    _expect(data.numel() >= map_bytes, f"it has {data.numel()} bytes, its map alone needs {map_bytes}")
    is_stored = unpack_bits(data[:map_bytes], 1, map_bytes * 8)
    _expect(not bool(is_stored[count:].any()), "its map has bits beyond the last element")
    positions = is_stored.nonzero()[:, 0]
    values = _decode_values(encoding["values"], shape, dtype, data[map_bytes:], positions)
    decoded = torch.zeros(count, dtype=DTYPES[dtype])
    decoded[positions] = values.to(DTYPES[dtype])
    return decoded.reshape(list(shape))


def _decode_values(
    encoding: dict[str, Any], shape: Sequence[int], dtype: str, data: Tensor, positions: Tensor | None
) -> Tensor:
    """The stored values, flat. `positions`: which elements of the tensor they are; None: all of them."""
    name = encoding["name"]
    count = math.prod(shape) if positions is None else len(positions)
    if name == "raw" or name in _NUMBER_TYPES or name == "cast":
        numbers_type = {"raw": dtype, "cast": encoding.get("to")}.get(name)
        (numbers,) = _parts(data, (count, DTYPES[numbers_type] if numbers_type else _NUMBER_TYPES[name]))
        return numbers.double() * encoding["scale"] if name == "float8_e4m3" else numbers
    codes_part = (-(-count * encoding["bits"] // 8), torch.uint8)
    if name == "codebook":
        values, packed = _parts(data, (encoding["size"], DTYPES[encoding["numbers"]]), codes_part)
        codes_N = unpack_bits(packed, encoding["bits"], count).long()
        _expect(bool((codes_N < encoding["size"]).all()), "it uses a value that its codebook lacks")
        return _finite(values).double()[codes_N]
    if "axis" not in encoding:
        (packed,) = _parts(data, codes_part)
        return _on_one_grid(encoding, unpack_bits(packed, encoding["bits"], count).double())
    grid_part = (shape[0], DTYPES[encoding["numbers"]])
    *grids, packed = _parts(data, *[grid_part] * (2 if name == "minmax" else 1), codes_part)
    grids_R = [_finite(numbers_R).double() for numbers_R in grids]
    _expect(bool((grids_R[-1] >= 0).all()), "it has a negative step")
    return _on_grids(
        encoding, unpack_bits(packed, encoding["bits"], count).double(), grids_R, shape, positions
    )


def _on_one_grid(encoding: dict[str, Any], codes_N: Tensor) -> Tensor:
    if encoding["name"] == "symmetric":
        return (codes_N - (1 << (encoding["bits"] - 1))) * encoding["scale"]
    span, levels = encoding["maximum"] - encoding["minimum"], (1 << encoding["bits"]) - 1
    return encoding["minimum"] + codes_N * span / levels


def _on_grids(
    encoding: dict[str, Any],
    codes_N: Tensor,
    grids_R: list[Tensor],
    shape: Sequence[int],
    positions: Tensor | None,
) -> Tensor:
    """A grid for each row (index of axis 0): [steps], or [minima, steps]."""
    if positions is None:  # whole rows
        codes = codes_N.view(shape[0], -1)
        grids = [numbers_R[:, None] for numbers_R in grids_R]
    else:
        row_N = positions // (math.prod(shape) // shape[0])
        codes, grids = codes_N, [numbers_R[row_N] for numbers_R in grids_R]
    if encoding["name"] == "symmetric":
        return ((codes - (1 << (encoding["bits"] - 1))) * grids[0]).reshape(-1)
    return (grids[0] + codes * grids[1]).reshape(-1)


def _parts(data: Tensor, *parts: tuple[int, torch.dtype]) -> list[Tensor]:
    """The bytes as so many numbers of each type, one after the other, each in memory of its own."""
    needed = sum(count * dtype.itemsize for count, dtype in parts)
    _expect(data.numel() == needed, f"it has {data.numel()} bytes, its shape needs {needed}")
    found, start = [], 0
    for count, dtype in parts:
        end = start + count * dtype.itemsize
        found.append(data[start:end].clone().view(dtype))
        start = end
    return found


def _finite(numbers: Tensor) -> Tensor:
    _expect(bool(numbers.isfinite().all()), "its steps, minima or values are not all finite")
    return numbers


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """uint8 [count] from a stream of bits: code i lies in bits i * `bits` and up, the least significant
    first, as do the bits of a byte. `packed`: uint8 [ceil(count * bits / 8)]."""
    if bits == 8:
        return packed
    # Eight codes fill exactly `bits` bytes: a word of at most 56 bits.
    num_words = -(-count // 8)
    padded = F.pad(packed, (0, num_words * bits - packed.numel())).view(num_words, bits)
    byte_shifts, code_shifts = 8 * torch.arange(bits), bits * torch.arange(8)
    codes = torch.empty((num_words, 8), dtype=torch.uint8)
    for start in range(0, num_words, 1 << 17):  # a word takes eight times the memory of its codes
        words = (padded[start : start + (1 << 17)].long() << byte_shifts).sum(dim=1, keepdim=True)
        codes[start : start + (1 << 17)] = (words >> code_shifts) & ((1 << bits) - 1)
    return codes.view(-1)[:count]


# --------------------------------------------------------------------------------------------------- the file


def load(file: str | Path | IO[bytes]) -> Network:
    """The network of an artifact, on the CPU, in eval mode. Raises GraphError when the file is not sound."""
    if sys.byteorder != "little":
        raise GraphError("artifacts are little-endian; this machine is not")
    try:
        document = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load raises a dozen types for files that are not its own
        raise GraphError(f"the file cannot be opened: {error}") from error
    return unpack(document)


def unpack(document: Any) -> Network:
    """The network of an artifact's content, as `torch.load` gives it. Raises GraphError when it is not sound."""
    _expect(isinstance(document, dict), "the file does not hold an artifact: it is no dict")
    version = document.get("format_version")
    _expect(
        _is_integer(version) and version == FORMAT_VERSION,
        f"format_version is {_show(version)}, this reader knows {FORMAT_VERSION}: "
        "take the load_artifact.py of the service that wrote the file"
        if version is not None
        else "the file does not hold an artifact: it has no format_version (is it a plain state_dict?)",
    )
    fields = {"graph", "tensors", "data", "preprocessing", "class_names", "steps", "metrics", "digests"}
    _check_keys(document, fields, {"format_version"}, "the artifact")
    with torch.device("meta"):
        network = Network(document["graph"])
    _dry_run(network)
    _read_tensors(network, document["tensors"], document["data"])
    network.preprocessing = _read_preprocessing(document["preprocessing"])
    network.class_names = _read_class_names(document["class_names"], network.num_classes)
    network.artifact = {
        key: value for key, value in document.items() if key not in ("graph", "tensors", "data")
    }
    return network.eval()


_SIDE = _pair(_integer(1, 4096))
_PREPROCESSING = {
    "resize": _any_of(_SIDE, NOTHING),
    "crop": _any_of(_SIDE, NOTHING),
    "interpolation": _one_of("nearest", "bilinear", "bicubic"),
    "mean": _list_of(SCALAR, 3, 3),
    "std": _list_of(_number(1e-12, 1e12), 3, 3),
}


def _read_preprocessing(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    _check_keys(value, set(_PREPROCESSING), set(), "preprocessing")
    _check_arguments(value, _PREPROCESSING, "preprocessing")
    return dict(value)


def _read_class_names(value: Any, num_classes: int | None) -> list[str] | None:
    if value is None:
        return None
    good = (
        isinstance(value, list) and len(value) == num_classes and all(isinstance(name, str) for name in value)
    )
    _expect(good, f"class_names does not have one name for each of the {num_classes} outputs")
    return list(value)


def _read_tensors(network: Network, index: Any, data: Any) -> None:
    """Decode every tensor into the network, which is on the meta device until now."""
    flat = isinstance(data, Tensor) and data.dtype == torch.uint8 and data.ndim == 1 and data.is_contiguous()
    _expect(flat, "data is not one flat uint8 tensor")
    _expect(isinstance(index, dict), "tensors is not an object")
    expected = network.state_dict()
    _expect(
        index.keys() == expected.keys(),
        f"the tensors are not those of the graph: missing {sorted(expected.keys() - index.keys())[:5]}, "
        f"unexpected {sorted(map(str, index.keys() - expected.keys()))[:5]}",
    )
    state: dict[str, Tensor] = {}
    for name, like in expected.items():
        try:
            encoded = _read_tensor(index[name], like, data)
            state[name] = encoded.decode()
        except GraphError as error:
            raise GraphError(f"tensor {name!r}: {error}") from None
        if encoded.encoding["name"] != "raw":
            network.encoded[name] = encoded
    network.load_state_dict(state, strict=True, assign=True)


def _read_tensor(entry: Any, like: Tensor, data: Tensor) -> Encoded:
    _check_keys(entry, {"shape", "dtype", "encoding", "offset", "nbytes"}, set(), "its entry")
    shape, dtype = _read_shape(entry["shape"], "its entry"), entry["dtype"]
    _expect(isinstance(dtype, str) and dtype in DTYPES, f"dtype {_show(dtype)} is unknown")
    _expect(shape == list(like.shape), f"its shape is {shape}, the graph's is {list(like.shape)}")
    same_kind = DTYPES[dtype].is_floating_point if like.is_floating_point() else DTYPES[dtype] == like.dtype
    _expect(same_kind, f"its dtype {dtype} does not fit the graph's {like.dtype}")
    offset, nbytes = entry["offset"], entry["nbytes"]
    _expect(_is_integer(offset) and _is_integer(nbytes), "offset and nbytes are integers")
    _expect(0 <= offset <= offset + nbytes <= data.numel(), "it lies outside the data")
    _check_encoding(entry["encoding"], shape, dtype)  # before anything is done with it
    return Encoded(dict(entry["encoding"]), shape, dtype, data[offset : offset + nbytes])


# ----------------------------------------------------------------------------------------------------- photos


def resize_and_crop(image: Image.Image, preprocessing: dict[str, Any]) -> Tensor:
    """A photo as uint8 [3, H, W]: upright (EXIF), RGB, resized, cropped; to the bit as torchvision."""
    image = _to_rgb(_upright(image))
    if preprocessing["resize"] is not None:
        image = _resize(image, preprocessing["resize"], preprocessing["interpolation"])
    if preprocessing["crop"] is not None:
        image = _centre_crop(image, preprocessing["crop"])
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image) -> Image.Image:
    """As `ImageOps.exif_transpose`, which also writes the whole EXIF block anew and fails where that is broken. A
    photo whose block cannot be read stays as it is stored."""
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    image.load()  # before the block is read: in a PNG it may come behind the pixels
    try:
        method = turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # Pillow's parser raises whatever it stumbles over
        method = None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        # 16 bits of grey: Pillow's own conversion clips at 255, so scale here (65535 / 257 = 255).
        grey = torch.frombuffer(bytearray(image.convert("I").tobytes()), dtype=torch.int32)
        scaled = bytearray(len(grey))
        torch.frombuffer(scaled, dtype=torch.uint8).copy_((grey.clamp(0, 65535) + 128) // 257)
        image = Image.frombytes("L", image.size, bytes(scaled))
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no fixed white: save it as 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # or Pillow warns
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image: Image.Image, resize: int | list[int], interpolation: str) -> Image.Image:
    from PIL import Image

    if isinstance(resize, int):
        short, long = sorted(image.size)
        new_long = int(resize * long / short)
        width, height = (resize, new_long) if image.width <= image.height else (new_long, resize)
    else:
        height, width = resize
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def _centre_crop(image: Image.Image, crop: int | list[int]) -> Image.Image:
    from PIL import ImageOps

    height, width = (crop, crop) if isinstance(crop, int) else crop
    missing_x, missing_y = max(width - image.width, 0), max(height - image.height, 0)
    if missing_x or missing_y:
        border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
        image = ImageOps.expand(image, border=border, fill=(0, 0, 0))
    top = round((image.height - height) / 2)
    left = round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def normalise(images_NCHW: Tensor, preprocessing: dict[str, Any]) -> Tensor:
    """uint8 [..., 3, H, W] to the float32 input: (x / 255 - mean) / std, to the bit as torchvision."""
    mean, std = (
        torch.tensor(preprocessing[name], dtype=torch.float32, device=images_NCHW.device).view(-1, 1, 1)
        for name in ("mean", "std")
    )
    return images_NCHW.to(torch.float32).div_(255).sub_(mean).div_(std)


class Images(Protocol):
    """uint8 images [N, 3, H, W] that can be sliced: a tensor, or something that reads files when asked."""

    def __getitem__(self, batch: slice, /) -> Tensor: ...


class Score(NamedTuple):
    num_images: int
    num_correct: int
    cross_entropy: float
    """The mean over the images, in nats."""

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_images


def evaluate(
    network: nn.Module,
    images_NCHW: Images,
    labels_N: Tensor,
    preprocessing: dict[str, Any],
    *,
    batch_size: int = 64,
) -> Score:
    """How many images the network gets right, and its mean cross-entropy; in order, batch by batch.

    `images_NCHW`: uint8, resized and cropped already. `labels_N`: int64, indices of the network's outputs.
    The service and the command line below both call this, so their numbers are the same. The network's mode
    is restored afterwards.
    """
    if len(labels_N) == 0:
        raise ValueError("there is nothing to evaluate: no images")
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    was_training = network.training
    network.eval()
    num_correct, total = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(labels_N), batch_size):
            batch = slice(start, start + batch_size)
            labels = labels_N[batch].to(device)
            logits_NC = network(normalise(images_NCHW[batch].to(device), preprocessing))
            num_correct += int((logits_NC.argmax(dim=1) == labels).sum())
            total += float(F.cross_entropy(logits_NC.double(), labels, reduction="sum"))
    network.train(was_training)
    return Score(len(labels_N), num_correct, total / len(labels_N))


# ------------------------------------------------------------------------------------------- the command line

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class UsageError(Exception):
    """Told to the person at the keyboard, without a traceback."""


class PhotoFolder:
    """The photos of a folder or a zip, by their path relative to it."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path) if path.is_file() and zipfile.is_zipfile(path) else None
        self._root = path
        if self._archive is not None:
            names = [name for name in self._archive.namelist() if not name.endswith("/")]
        elif path.is_dir():
            names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        else:
            raise UsageError(f"{path} is neither a folder nor a zip")
        # macOS writes é as e + accent; compare names in one form.
        self._names = {_nfc(name): name for name in names if _is_photo(name)}

    def paths(self) -> list[str]:
        return sorted(self._names)

    def open(self, path: str) -> IO[bytes]:
        name = self._names.get(path)
        if name is None:
            raise UsageError(f"{self._root} has no photo {path!r}")
        return self._archive.open(name) if self._archive is not None else (self._root / name).open("rb")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_photo(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return name.lower().endswith(_SUFFIXES) and not hidden


def _list_photos(folder: PhotoFolder, class_names: list[str], split: str | None) -> list[tuple[str, int]]:
    """(path, class index) of <class>/<image>, or of <split>/<class>/<image>, sorted by path."""
    labels = {_nfc(name): index for index, name in enumerate(class_names)}
    prefix = _nfc(split) + "/" if split else ""
    found = []
    for path in folder.paths():
        if not path.startswith(prefix):
            continue
        class_name, _, rest = path[len(prefix) :].partition("/")
        if not rest:
            continue
        if class_name not in labels:
            hint = "" if split else " (for a folder with splits give --split)"
            raise UsageError(
                f"folder {prefix + class_name!r} is no class of this network: "
                f"{', '.join(class_names[:20])}{hint}"
            )
        found.append((path, labels[class_name]))
    if not found:
        raise UsageError(f"no photos at {prefix}<class>/<image>; looked for {', '.join(_SUFFIXES)}")
    return found


def _read_listing(listing: Path, class_names: list[str]) -> list[tuple[str, int]]:
    """(path, class index) of a CSV with the columns path and label, sorted by path."""
    labels = {_nfc(name): index for index, name in enumerate(class_names)}
    found = []
    with listing.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"path", "label"} <= set(rows.fieldnames or ()):
            raise UsageError(f"{listing} needs the columns path and label in its first line")
        for row in rows:
            label = _nfc(row["label"] or "")
            if label not in labels:
                raise UsageError(f"{listing}, line {rows.line_num}: {label!r} is no class of this network")
            found.append((_nfc(row["path"]), labels[label]))
    if not found:
        raise UsageError(f"{listing} lists no photos")
    return sorted(found)


class _Batches:
    """Photos that are read when a slice of them is asked for."""

    def __init__(
        self, open_photo: Callable[[str], IO[bytes]], paths: list[str], preprocessing: dict[str, Any]
    ) -> None:
        self._open, self._paths, self._preprocessing = open_photo, paths, preprocessing

    def __getitem__(self, batch: slice) -> Tensor:
        return torch.stack([self._read(path) for path in self._paths[batch]])

    def _read(self, path: str) -> Tensor:
        with self._open(path) as file:
            return read_photo(file, path, self._preprocessing)


def read_photo(file: IO[bytes], name: str, preprocessing: dict[str, Any]) -> Tensor:
    """uint8 [3, H, W] of an image file. Raises UsageError naming the file when it is no image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file.read())) as image:
            return resize_and_crop(image, preprocessing)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{name} cannot be read as an image: {error}") from None


def _needs_photos(network: Network) -> tuple[dict[str, Any], list[str]]:
    if network.preprocessing is None or network.class_names is None:
        raise UsageError(
            "this file carries no preprocessing or class names: photos cannot be classified with it"
        )
    return network.preprocessing, network.class_names


def _info(network: Network, arguments: argparse.Namespace) -> dict[str, Any]:
    encodings: dict[str, int] = {}
    for name in network.state_dict():
        how = network.encoded[name].encoding["name"] if name in network.encoded else "raw"
        encodings[how] = encodings.get(how, 0) + 1
    return {
        "size_bytes": arguments.model.stat().st_size,
        "num_parameters": num_parameters(network),
        "input_shape": list(network.input_shape),
        "encodings": encodings,
        "layers": len(network.graph["layers"]),
        **network.artifact,
    }


def _graph(network: Network, arguments: argparse.Namespace) -> dict[str, Any]:
    return network.graph


def _classify(network: Network, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    preprocessing, class_names = _needs_photos(network)
    answers = []
    for photo in arguments.photos:
        with photo.open("rb") as file:
            image = read_photo(file, str(photo), preprocessing)
        with torch.no_grad():
            probabilities = network(normalise(image[None], preprocessing))[0].softmax(dim=0)
        best = probabilities.topk(min(arguments.top, len(class_names)))
        top = [
            {"class": class_names[index], "probability": value}
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        answers.append({"photo": str(photo), "top": top})
    return answers


def _evaluate(network: Network, arguments: argparse.Namespace) -> dict[str, Any]:
    preprocessing, class_names = _needs_photos(network)
    folder = PhotoFolder(arguments.folder)
    if arguments.files is not None:
        found = _read_listing(arguments.files, class_names)
    else:
        found = _list_photos(folder, class_names, arguments.split)
    images = _Batches(folder.open, [path for path, _ in found], preprocessing)
    score = evaluate(network, images, torch.tensor([label for _, label in found]), preprocessing)
    return {**score._asdict(), "accuracy": score.accuracy}


# --------------------------------------------------------------------------------------------------- receipts

RECEIPT_FORMAT = "fewbytes/receipt/1"
_NETWORK_KINDS = ("final", "stage", "best_so_far")  # other artifacts are files that this reader does not open


def _verify(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count everything again that the receipt claims and this machine can count."""
    receipt = _read_receipt(arguments.receipt)
    checks = [*_check_bytes(receipt, arguments.model)]
    notes = []
    if not all(check["ok"] for check in checks):
        artifact = receipt["artifact"]
        notes.append(
            f"{arguments.model} is not the file of this receipt, which is {artifact['name']} of "
            f"{receipt['job_id']}: download both of one artifact again"
        )
    if receipt["artifact"]["kind"] in _NETWORK_KINDS:
        try:
            network = load(arguments.model)
        except GraphError as error:
            checks.append(_check("network", "loads", f"does not: {error}"))
        else:
            checks += _check_size_of(receipt, network)
            checks += _check_photos(receipt, network, arguments, notes)
    elif arguments.photos is not None:
        raise UsageError(f"{receipt['artifact']['name']} is no network that can be asked about photos")
    else:
        notes.append("this file is no artifact of ours to open: only its bytes were compared")
    return {"ok": all(check["ok"] for check in checks), "checks": checks, "notes": notes}


def _check(what: str, claimed: Any, found: Any) -> dict[str, Any]:
    return {"what": what, "claimed": claimed, "found": found, "ok": claimed == found}


def _read_receipt(path: Path) -> dict[str, Any]:
    try:
        receipt = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is no receipt: it is not JSON ({error})") from None
    if not isinstance(receipt, dict) or receipt.get("format") != RECEIPT_FORMAT:
        raise UsageError(
            f"{path} is no receipt that this reader knows: its format is not {RECEIPT_FORMAT}. "
            "Get it from GET /v1/artifacts/ID/receipt, and load_artifact.py from the same service"
        )
    artifact, measured, dataset = (receipt.get(name) for name in ("artifact", "measured", "dataset"))
    sound = {
        "artifact": isinstance(artifact, dict) and {"name", "kind", "sha256", "size_bytes"} <= set(artifact),
        "job_id": isinstance(receipt.get("job_id"), str),
        "measured": isinstance(measured, dict) and _is_dict_of_dicts(measured.get("splits", {})),
        "dataset": isinstance(dataset, dict) and _is_dict_of_dicts(dataset.get("splits", {})),
    }
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise UsageError(f"{path} is not a whole receipt, it was changed or cut: look at {', '.join(wrong)}")
    return receipt


def _is_dict_of_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _check_bytes(receipt: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    yield _check("size_bytes", receipt["artifact"]["size_bytes"], path.stat().st_size)
    yield _check("sha256", receipt["artifact"]["sha256"], sha256)


def _check_size_of(receipt: dict[str, Any], network: Network) -> Iterator[dict[str, Any]]:
    found = {"parameters": num_parameters(network), "macs": num_macs(network)}
    for what, value in found.items():
        if what in receipt["measured"]:  # a network that was kept in a hurry was not measured
            yield _check(what, receipt["measured"][what], value)


def _check_photos(
    receipt: dict[str, Any], network: Network, arguments: argparse.Namespace, notes: list[str]
) -> Iterator[dict[str, Any]]:
    claimed = receipt["measured"].get("splits", {})
    if arguments.photos is None:
        if claimed:
            notes.append(f"not counted again without --photos: {', '.join(claimed)}")
        return
    if arguments.files is not None and arguments.split is None:
        raise UsageError("--files lists the photos of one split: say which with --split")
    if arguments.split is not None and arguments.split not in claimed:
        raise UsageError(
            f"the receipt has no split {arguments.split!r}: it has {', '.join(claimed) or 'none'}"
        )
    folder = PhotoFolder(arguments.photos)
    for split in [arguments.split] if arguments.split else claimed:
        if arguments.split or any(path.startswith(f"{_nfc(split)}/") for path in folder.paths()):
            yield from _check_split(receipt, network, folder, split, arguments.files)
        else:
            notes.append(f"not counted again: {split}, for there is no {split}/<class>/<image>")


def _check_split(
    receipt: dict[str, Any], network: Network, folder: PhotoFolder, split: str, files: Path | None
) -> Iterator[dict[str, Any]]:
    preprocessing, class_names = _needs_photos(network)
    found = (
        _read_listing(files, class_names) if files is not None else _list_photos(folder, class_names, split)
    )
    claimed, stored = (
        receipt["measured"]["splits"][split],
        receipt["dataset"].get("splits", {}).get(split, {}),
    )
    digests: dict[str, str] = {}

    def opened(path: str) -> IO[bytes]:
        with folder.open(path) as file:
            content = file.read()
        digests[path] = hashlib.sha256(content).hexdigest()
        return io.BytesIO(content)

    images = _Batches(opened, [path for path, _ in found], preprocessing)
    score = evaluate(network, images, torch.tensor([label for _, label in found]), preprocessing)
    yield _check(f"{split} num_images", claimed.get("num_images"), score.num_images)
    yield _check(f"{split} num_correct", claimed.get("num_correct"), score.num_correct)
    if "digest" in stored:
        order = receipt["dataset"].get("class_order") or list(range(len(class_names)))
        if sorted(order) != list(range(len(class_names))):
            raise UsageError("the receipt's class_order is not one of this network's classes")
        rows = [(path, order.index(output), digests[path]) for path, output in found]
        yield _check(f"{split} digest", stored["digest"], _split_digest(rows))


def _split_digest(rows: list[tuple[str, int, str]]) -> str:
    """sha256 of the lines `path label sha256`, sorted; `label` counts the classes as the data set does."""
    lines = [f"{path} {label} {sha256}\n" for path, label, sha256 in sorted(rows)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _table(answer: dict[str, Any]) -> Iterator[str]:
    """claimed, found, ok: a line a check."""
    shown = [
        [check["what"], *(_short(check[side]) for side in ("claimed", "found"))] for check in answer["checks"]
    ]
    shown.insert(0, ["", "claimed", "found"])
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    marks = ["", *("ok" if check["ok"] else "DIFFERS" for check in answer["checks"])]
    for row, mark in zip(shown, marks, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([*cells, mark]).rstrip()
    yield from answer["notes"]
    yield "verified" if answer["ok"] else "NOT verified"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


# ----------------------------------------------------------------------------------------- answers and options


def _lines(command: str, answer: Any) -> Iterator[str]:
    """The answer for people."""
    if command == "evaluate":
        yield f"accuracy {answer['accuracy']:.6f} ({answer['num_correct']} of {answer['num_images']} images)"
        yield f"cross-entropy {answer['cross_entropy']:.6f}"
    elif command == "classify":
        for photo in answer:
            yield photo["photo"]
            for guess in photo["top"]:
                yield f"  {guess['probability']:7.2%}  {guess['class']}"
    elif command == "graph":
        yield json.dumps(answer)
    elif command == "verify":
        yield from _table(answer)
    else:
        for key, value in answer.items():
            text = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)
            yield f"{key:16}{text}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Look into a fewbytes artifact, classify photos, evaluate it."
    )
    parser.add_argument("model", type=Path, help="the .pt file")
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{info,graph,classify,evaluate,verify}"
    )
    info = commands.add_parser("info", help="what the file holds")
    graph = commands.add_parser("graph", help="its layers and the calls between them, as JSON")
    classify = commands.add_parser("classify", help="say what is on photos")
    classify.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    classify.add_argument("--top", type=int, default=3, help="how many guesses (default 3)")
    score = commands.add_parser("evaluate", help="accuracy on a folder of photos")
    score.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds <class>/<image>, or is a zip of that"
    )
    score.add_argument("--split", help="FOLDER holds <split>/<class>/<image>: evaluate this split")
    score.add_argument(
        "--files", type=Path, help="CSV with path,label (relative to FOLDER, class name): evaluate these"
    )
    verify = commands.add_parser("verify", help="count again what the file's receipt claims")
    verify.add_argument("receipt", type=Path, metavar="RECEIPT", help="from GET /v1/artifacts/ID/receipt")
    verify.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="holds <split>/<class>/<image>, or is a zip of that"
    )
    verify.add_argument("--split", help="only this split")
    verify.add_argument(
        "--files", type=Path, help="CSV with path,label of the split's photos, from GET /v1/datasets/ID/files"
    )
    for command in (info, graph, classify, score, verify):
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 for what cannot be done, and for a file that is not what its receipt says; 2 for a wrong command."""
    arguments = _parser().parse_args(argv)
    commands: dict[str, Callable[..., Any]] = {
        "info": _info,
        "graph": _graph,
        "classify": _classify,
        "evaluate": _evaluate,
    }
    try:
        if arguments.command == "verify":
            answer = _verify(arguments)  # which files it can open, the receipt says
        else:
            answer = commands[arguments.command](load(arguments.model), arguments)
    except (UsageError, GraphError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print("\n".join(_lines(arguments.command, answer)))
    return 0 if arguments.command != "verify" or answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
