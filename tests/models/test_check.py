"""Graphs from strangers: whatever is wrong with them ends in a GraphError that says what."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import models

GOOD: dict[str, Any] = {
    "input_shape": [3, 8, 8],
    "layers": {
        "conv": {"type": "Conv2d", "arguments": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}},
        "head.fc": {"type": "Linear", "arguments": {"in_features": 4, "out_features": 2, "bias": True}},
    },
    "parameters": {"scale": [4, 1, 1]},
    "buffers": {"shift": {"shape": [4, 1, 1], "dtype": "float32"}},
    "nodes": [
        {"name": "x", "op": "input"},
        {"name": "conv", "op": "layer", "target": "conv", "args": [{"node": "x"}]},
        {"name": "scale", "op": "tensor", "target": "scale"},
        {"name": "mul", "op": "function", "target": "mul", "args": [{"node": "conv"}, {"node": "scale"}]},
        {"name": "mean", "op": "function", "target": "mean", "args": [{"node": "mul"}, [2, 3]], "kwargs": {}},
        {"name": "fc", "op": "layer", "target": "head.fc", "args": [{"node": "mean"}]},
        {"name": "output", "op": "output", "args": [{"node": "fc"}]},
    ],
}


def test_the_good_graph_is_good() -> None:
    """So that every refusal below is for the change it makes."""
    network = models.build(GOOD)
    assert network(torch.rand(5, 3, 8, 8)).shape == (5, 2)
    assert network.num_classes == 2


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        place: Any = graph
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        place: Any = graph
        for part in path[:-1]:
            place = place[part]
        del place[path[-1]]

    return change


def _squares(graph: dict[str, Any]) -> None:
    """Sizes squared thirty times: a number with a billion digits."""
    nodes: list[dict[str, Any]] = [
        {"name": "n0", "op": "function", "target": "size", "args": [{"node": "x"}, 0]}
    ]
    for i in range(1, 31):
        last = {"node": f"n{i - 1}"}
        nodes.append({"name": f"n{i}", "op": "function", "target": "mul", "args": [last, last]})
    graph["nodes"][1:1] = nodes


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CASES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown field": (_set("code", to="import os"), "unknown fields 'code'"),
    "no nodes": (_drop("nodes"), "lacks"),
    "nodes is no list": (_set("nodes", to={}), "nodes: a list"),
    "layers is no object": (_set("layers", to=[]), "layers is not an object"),
    "input shape": (_set("input_shape", to=[3, 8]), "input_shape"),
    "huge input": (_set("input_shape", to=[3, 1 << 20, 8]), "input_shape"),
    "boolean for a number": (_set("input_shape", to=[3, 8, True]), "input_shape"),
    "unknown layer type": (
        _set("layers", "conv", "type", to="LSTM"),
        "layer 'conv'.*'LSTM' is not in the vocabulary",
    ),
    "type is a path": (_set("layers", "conv", "type", to="os.system"), "not in the vocabulary"),
    "type is unhashable": (_set("layers", "conv", "type", to=["Conv2d"]), "not in the vocabulary"),
    "unknown argument": (_set("layers", "conv", "arguments", "device", to="cuda"), "no argument 'device'"),
    "argument of another type": (
        _set("layers", "conv", "arguments", "kernel_size", to="3"),
        "kernel_size is '3'",
    ),
    "negative kernel": (_set("layers", "conv", "arguments", "kernel_size", to=-1), "kernel_size"),
    "huge kernel": (_set("layers", "conv", "arguments", "kernel_size", to=10**9), "kernel_size"),
    "huge integer": (_set("layers", "conv", "arguments", "kernel_size", to=10**9999), "a huge integer"),
    "missing argument": (_drop("layers", "conv", "arguments", "kernel_size"), "layer 'conv'.*kernel_size"),
    "groups that do not divide": (
        _set("layers", "conv", "arguments", "groups", to=3),
        "layer 'conv'.*groups",
    ),
    "too many parameters": (
        _set(
            "layers",
            "more",
            to={"type": "Linear", "arguments": {"in_features": 1 << 20, "out_features": 1 << 20}},
        ),
        "more than 2147483648 parameters",
    ),
    "huge parameter": (_set("parameters", "scale", to=[1 << 20, 1 << 20]), "more than 2147483648 parameters"),
    "parameter shape": (_set("parameters", "scale", to=[-1]), "shape"),
    "rank 9": (_set("parameters", "scale", to=[1] * 9), "shape"),
    "buffer dtype": (_set("buffers", "shift", "dtype", to="object"), "unknown dtype"),
    "dunder name": (_set("layers", "__class__", to={"type": "ReLU"}), "'__class__'"),
    "dunder inside a name": (_set("layers", "head.__dict__.x", to={"type": "ReLU"}), "__dict__"),
    "name of a method": (_set("layers", "forward", to={"type": "ReLU"}), "'forward' is taken"),
    "name of module state": (_set("layers", "_modules", to={"type": "ReLU"}), "'_modules' is taken"),
    "name of a method below": (
        _set("layers", "head.state_dict", to={"type": "ReLU"}),
        "'state_dict' is taken",
    ),
    "name of the network's state": (_set("layers", "_steps", to={"type": "ReLU"}), "'_steps' is taken"),
    "path with spaces": (_set("layers", "a b", to={"type": "ReLU"}), "a name is"),
    "empty part": (_set("layers", "head..fc", to={"type": "ReLU"}), "a name is"),
    "long name": (_set("layers", "a" * 5000, to={"type": "ReLU"}), "a name is"),
    "layer inside a layer": (
        _set("layers", "conv.extra", to={"type": "ReLU"}),
        "nothing else can live in it",
    ),
    "parameter inside a layer": (_set("parameters", "conv.weight", to=[1]), "nothing else can live in it"),
    "parameter over a layer": (_set("parameters", "conv", to=[1]), "conv"),
    "one name twice": (
        _set("buffers", "scale", to={"shape": [1], "dtype": "int64"}),
        "both a parameter and a buffer",
    ),
    "two nodes of one name": (_set("nodes", 2, "name", to="conv"), "two nodes of this name"),
    "node name": (_set("nodes", 2, "name", to="a.b"), "a name is"),
    "unknown op": (_set("nodes", 3, "op", to="call_function"), "node 'mul': op"),
    "unknown function": (_set("nodes", 3, "target", to="eval"), "node 'mul': function 'eval' is not in"),
    "method by attribute": (_set("nodes", 3, "target", to="__reduce__"), "not in the vocabulary"),
    "unknown layer": (_set("nodes", 1, "target", to="conv2"), "there is no layer 'conv2'"),
    "unknown tensor": (_set("nodes", 2, "target", to="conv.weight"), "no parameter or buffer"),
    "uses a later node": (
        _set("nodes", 1, "args", to=[{"node": "mul"}]),
        "'mul', which is not a node before it",
    ),
    "uses itself": (_set("nodes", 1, "args", to=[{"node": "conv"}]), "not a node before it"),
    "two inputs": (_set("nodes", 2, to={"name": "y", "op": "input"}), "there is one input"),
    "no input": (_drop("nodes", 0), "node 'conv'"),
    "no output": (_drop("nodes", -1), "one output"),
    "output in the middle": (
        _set("nodes", 3, to={"name": "mul", "op": "output", "args": [{"node": "conv"}]}),
        "one output",
    ),
    "number for a tensor": (_set("nodes", 1, "args", to=[3]), "input is 3, not a tensor"),
    "too many arguments": (_set("nodes", 1, "args", to=[{"node": "x"}, {"node": "x"}]), "at most 1"),
    "argument twice": (_set("nodes", 4, "kwargs", to={"dim": 1}), "twice"),
    "unknown keyword": (_set("nodes", 4, "kwargs", to={"out": {"node": "x"}}), "no argument 'out'"),
    "missing operand": (_set("nodes", 3, "args", to=[{"node": "conv"}]), "node 'mul'"),
    "string argument": (_set("nodes", 4, "args", to=[{"node": "mul"}, "__import__('os')"]), "dim is"),
    "nested too deeply": (_set("nodes", 4, "args", to=[{"node": "mul"}, _deep(500)]), "nested too deeply"),
    "strange object": (_set("nodes", 4, "args", to=[{"node": "mul", "code": 1}]), "not allowed"),
    "not finite": (_set("nodes", 3, "args", to=[{"node": "conv"}, float("nan")]), "not finite"),
    "float dim": (_set("nodes", 4, "args", to=[{"node": "mul"}, 2.0]), "dim is 2.0"),
    "shapes that do not fit": (
        _set("layers", "head.fc", "arguments", "in_features", to=5),
        "node 'fc' .layer",
    ),
    "no classifier": (_set("nodes", -1, "args", to=[{"node": "conv"}]), "one row of logits"),
    "numbers without end": (_squares, "larger than 2.40"),
    "memory without end": (
        _set(
            "nodes",
            1,
            to={"name": "conv", "op": "function", "target": "pad", "args": [{"node": "x"}, [1024] * 6]},
        ),
        "node",
    ),
    "size of a huge view": (
        _set(
            "nodes",
            4,
            to={
                "name": "mean",
                "op": "function",
                "target": "expand",
                "args": [{"node": "mul"}, [3, 4, 1 << 30, 1 << 30]],
            },
        ),
        "node 'mean'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_graph_is_refused(case: str) -> None:
    change, message = CASES[case]
    graph = copy.deepcopy(GOOD)
    change(graph)
    with pytest.raises(models.GraphError, match=message) as refusal:
        models.check(graph)
    assert len(str(refusal.value)) < 1000
    with pytest.raises(models.GraphError):
        models.build(graph)


@pytest.mark.parametrize("graph", [None, [], "graph", 3, {}, {"nodes": []}])
def test_what_is_no_graph_is_refused(graph: Any) -> None:
    with pytest.raises(models.GraphError):
        models.check(graph)


def test_json_is_enough(small: models.Network) -> None:
    """A graph that went through JSON is the same graph."""
    assert json.loads(json.dumps(small.graph)) == small.graph
