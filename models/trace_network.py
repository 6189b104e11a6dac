#!/usr/bin/env python3
"""Turn your own PyTorch classifier into a file that fewbytes takes without any of your code.

    python trace_network.py my_module:build --checkpoint weights.pt --input 3x64x64 \\
        --class-names names.txt --preprocessing preprocessing.json --out traced.pt

Runs on your machine, needs torch and load_artifact.py beside it. `my_module.build()` returns the nn.Module (a
class does, too). The module is traced with torch.fx in eval mode: which layers it has and how they are wired.
The result is checked against the original: same photo in, same logits out, to the bit. Then graph and weights
are written as one artifact.

What does not fit into the vocabulary of load_artifact.py is refused with the name of the node and a way out.
Functional dropout becomes a Dropout layer, so that the network still trains as before. `if self.training:` is
followed as in eval mode; parts that only training uses (auxiliary heads) are left out, and the command says
so.

Three parts: tracing, writing an artifact, the command line.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import json
import operator
import pickletools
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

if __package__:
    from .load_artifact import DTYPES, FORMAT_VERSION, FUNCTIONS, LAYERS, GraphError, Network, build, check
else:
    from load_artifact import (  # type: ignore[import-not-found, no-redef]
        DTYPES,
        FORMAT_VERSION,
        FUNCTIONS,
        LAYERS,
        GraphError,
        Network,
        build,
        check,
    )

# ----------------------------------------------------------------------------------------------------- layers

# The reader has its own, equal ones: it must not need torchvision.
_TORCHVISION_LAYERS = {
    ("torchvision.models.convnext", "LayerNorm2d"): "LayerNorm2d",
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): "StochasticDepth",
}
_LAYER_TYPES: dict[type, str] = {layer.make: name for name, layer in LAYERS.items() if name != "Scope"}

# Options that the vocabulary does not have, with the only value they may take.
_FIXED_OPTIONS: dict[str, dict[str, Any]] = {
    "MaxPool2d": {"return_indices": False},
    "AdaptiveMaxPool2d": {"return_indices": False},
    "MultiheadAttention": {"bias_k": None, "add_zero_attn": False, "_qkv_same_embed_dim": True},
}


def _layer_type(module: nn.Module) -> str | None:
    """The vocabulary's name for a module; a subclass counts when it computes the same."""
    cls = type(module)
    known = _TORCHVISION_LAYERS.get((cls.__module__, cls.__qualname__))
    if known is not None:
        return known
    for base in cls.__mro__:
        if base in _LAYER_TYPES:
            same = all(
                getattr(cls, name, None) is getattr(base, name, None) for name in ("forward", "_conv_forward")
            )
            return _LAYER_TYPES[base] if same else None
    return None


def _describe_layer(name: str, module: nn.Module) -> dict[str, Any]:
    """A layer as JSON: its type and every argument that its constructor needs to make it again."""
    layer_type = _layer_type(module)
    where = f"layer {name!r} ({type(module).__name__})"
    if layer_type is None:
        raise GraphError(
            f"{where} is not in the vocabulary: {', '.join(_LAYER_TYPES.values())}. "
            "Write it with these, or with the functions of the vocabulary"
        )
    if parametrize.is_parametrized(module):
        raise GraphError(
            f"{where} is parametrized: call torch.nn.utils.parametrize.remove_parametrizations on it first"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise GraphError(
            f"{where} has forward hooks, which a graph cannot hold: remove them "
            "(torch.nn.utils.prune.remove, remove_weight_norm, handle.remove())"
        )
    for option, value in _FIXED_OPTIONS.get(layer_type, {}).items():
        if getattr(module, option) != value:
            raise GraphError(f"{where}: {option.strip('_')} other than {value} is not supported")
    return {"type": layer_type, "arguments": _layer_arguments(layer_type, module)}


def _layer_arguments(layer_type: str, module: nn.Module) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name in LAYERS[layer_type].rules:
        if name == "bias":
            has_bias = (
                getattr(module, "in_proj_bias" if layer_type == "MultiheadAttention" else "bias") is not None
            )
            # Norm layers without affine have no bias either; older versions of torch do not know the
            # argument.
            affine = getattr(module, "affine", getattr(module, "elementwise_affine", True))
            if layer_type in ("Conv2d", "Linear", "MultiheadAttention") or (affine and not has_bias):
                arguments[name] = has_bias
        else:
            value = getattr(module, name)
            arguments[name] = list(value) if isinstance(value, tuple) else value
    return arguments


# -------------------------------------------------------------------------------------------------- functions


def _functions_by_name() -> dict[Any, str]:
    """operator.add, torch.add, ... → "add": the vocabulary uses PyTorch's own names."""
    found: dict[Any, str] = {}
    for name in FUNCTIONS:
        for module in (operator, torch, F):
            if hasattr(module, name):
                found[getattr(module, name)] = name
    found |= {
        torch.div: "truediv",
        torch.true_divide: "truediv",
        torch.multiply: "mul",
        torch.subtract: "sub",
    }
    found |= {torch.concat: "cat", torch.concatenate: "cat", torch.bmm: "matmul", operator.matmul: "matmul"}
    found |= {torch.swapaxes: "transpose", torch.swapdims: "transpose", torch.clip: "clamp"}
    return found


_FUNCTION_NAMES = _functions_by_name()
_METHOD_NAMES = {name: name for name in FUNCTIONS if hasattr(Tensor, name)} | {
    "div": "truediv",
    "true_divide": "truediv",
    "bmm": "matmul",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "clip": "clamp",
}
# x.view(n, -1) and x.view((n, -1)) are the same: the graph has the second.
_TAKES_SIZES = {"view", "reshape", "expand", "permute"}
_RENAMED = {
    ("input", "arithmetic"): "a",
    ("other", "arithmetic"): "b",
    ("exponent", "arithmetic"): "b",
    ("split_size", "split"): "split_size_or_sections",
    ("axis", "any"): "dim",
}
_DROPOUTS: dict[Any, str] = {F.dropout: "Dropout", F.dropout2d: "Dropout2d", torch.dropout: "Dropout"}
# Only asserts on shapes use these; where nothing else does, they go with the assert.
_ASSERTS = {torch._assert, torch._assert_async, fx._symbolic_trace._assert_is_none}
_CHECKS = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge, operator.and_}
_SHAPE_ARITHMETIC = {getattr, operator.getitem, operator.mul, operator.add, operator.floordiv, operator.mod}

_WAY_OUT = {
    "batch_norm": "use an nn.BatchNorm2d layer",
    "interpolate": "resize the photos in the preprocessing instead",
    "get_relative_position_bias": "torch.fx cannot look into this attention; use another network",
    "shifted_window_attention": "torch.fx cannot look into this attention; use another network",
    "scaled_dot_product_attention": "use nn.MultiheadAttention, or write it with matmul and softmax",
    "einsum": "write it with matmul and permute",
}


class _Tracer(fx.Tracer):
    """torch.fx's tracer; layers of torch.nn and of the vocabulary stay whole, all else is looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.path: list[str] = []

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        if _layer_type(module) is not None:
            return True
        # The rest of torch.nn (LSTM, Conv3d, ...) is refused by name, which is clearer than what tracing it
        # would say.
        computes_as_torch = getattr(type(module).forward, "__module__", "").startswith("torch.nn.modules")
        return computes_as_torch and not isinstance(module, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.path.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self.path.pop()  # not on an exception: then the path says where it happened
        return result


# ---------------------------------------------------------------------------------------------------- tracing


def trace(module: nn.Module, example: Tensor) -> dict[str, Any]:
    """The graph of a module, as JSON (docs/formats.md). `example`: images [N, C, H, W]; its shape counts.

    The module's forward runs once, symbolically, in eval mode; mode and weights stay as they were. Raises
    GraphError naming the node or layer that does not fit, and the way out.
    """
    if example.ndim != 4:
        raise GraphError(f"example has shape {list(example.shape)}: images [N, C, H, W] are needed")
    with _eval_mode(module):
        fx_graph = _run_tracer(module)
    _drop_asserts(fx_graph)
    writer = _GraphWriter(module, list(example.shape[1:]))
    for node in fx_graph.nodes:
        writer.add(node)
    graph = writer.finish()
    check(graph)
    return graph


def left_out(module: nn.Module, graph: dict[str, Any]) -> list[str]:
    """Names of the state_dict that the graph does not hold: parts that eval mode never uses, second names."""
    with torch.device("meta"):
        kept = Network(graph).state_dict().keys()
    return [name for name in module.state_dict() if name not in kept]


def as_network(module: nn.Module, example: Tensor) -> Network:
    """The module as a Network with the same weights (copied), device, dtypes and mode.

    Raises GraphError as `trace` does, and when the two give other logits for `example` in eval mode.
    """
    graph = trace(module, example)
    with torch.device("meta"):
        network = build(graph)
    state = module.state_dict()
    own = {name: state[name].detach().clone() for name in network.state_dict()}
    network.load_state_dict(own, strict=True, assign=True)
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    network.train(module.training)
    modules = dict(module.named_modules())
    for name in graph["layers"]:
        if name in modules:  # a Dropout made of a function is new
            network.get_submodule(name).training = modules[name].training
    _compare(module, network, example)
    return network


def _compare(module: nn.Module, network: Network, example: Tensor) -> None:
    like = next(iter(network.parameters()), example)
    images = example.to(like.device, like.dtype)
    with _eval_mode(module), _eval_mode(network), torch.no_grad():
        # Copies: a module that changes its input in place must not change the other's.
        expected, found = module(images.clone()), network(images.clone())
    if not torch.equal(expected.nan_to_num(), found.nan_to_num()):
        raise GraphError(
            "the traced network gives other logits than the module: does its forward change a tensor "
            "in place that is used again, or depend on random numbers or the clock?"
        )


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _run_tracer(module: nn.Module) -> fx.Graph:
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise GraphError(f"forward takes {', '.join(needed)}: a classifier takes one tensor of images")
    fixed = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
    tracer = _Tracer()
    before = set(vars(module))
    try:
        return tracer.trace(module, concrete_args=fixed or None)
    except GraphError:
        raise
    except Exception as error:  # whatever the user's forward raises when its input is symbolic
        raise GraphError(_explain(error, tracer)) from error
    finally:
        for name in set(vars(module)) - before:
            delattr(module, name)  # fx leaves constants of the forward on the module


def _explain(error: Exception, tracer: _Tracer) -> str:
    where = f"in module {tracer.path[-1]!r}" if tracer.path else "in the module's own forward"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "/torch/" not in f.filename.replace("\\", "/") and f.filename != __file__]
    line = f" ({Path(mine[-1].filename).name}, line {mine[-1].lineno})" if mine else ""
    nodes = list(tracer.graph.nodes)
    after = f" after node {nodes[-1].name!r}" if nodes else ""
    return (
        f"torch.fx cannot trace this network: {where}{line}{after}: {type(error).__name__}: {error}. "
        "Code that looks at a tensor's values or sizes with if, for or int() has to be written without"
    )


def _drop_asserts(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        is_function = node.op == "call_function" and node.target in _CHECKS | _SHAPE_ARITHMETIC
        is_size = node.op == "call_method" and node.target in ("size", "dim")
        is_assert = node.op == "call_function" and node.target in _ASSERTS
        if not node.users and (is_assert or is_function or is_size or node.op == "get_attr"):
            graph.erase_node(node)


class _GraphWriter:
    """Collects fx nodes as JSON."""

    def __init__(self, module: nn.Module, input_shape: list[int]) -> None:
        self._module = module
        self._input_shape = input_shape
        self._modules = dict(module.named_modules())
        self._called: set[str] = set()
        self._tensors: set[str] = set()
        self._dropouts: dict[str, dict[str, Any]] = {}
        self._nodes: list[dict[str, Any]] = []

    def add(self, node: fx.Node) -> None:
        try:
            {
                "placeholder": self._add_input,
                "output": self._add_output,
                "get_attr": self._add_tensor,
                "call_module": self._add_layer,
                "call_function": self._add_function,
                "call_method": self._add_method,
            }[node.op](node)
        except GraphError as error:
            raise GraphError(f"node {node.name!r}: {error}") from None

    def finish(self) -> dict[str, Any]:
        self._refuse_shared_parameters()
        parameters = {
            name: list(parameter.shape)
            for name, parameter in self._module.named_parameters()
            if name in self._tensors
        }
        buffers = {
            name: {"shape": list(buffer.shape), "dtype": str(buffer.dtype).removeprefix("torch.")}
            for name, buffer in self._module.named_buffers()
            if name in self._tensors
        }
        return {
            "input_shape": self._input_shape,
            "layers": self._layers() | self._dropouts,
            "parameters": parameters,
            "buffers": buffers,
            "nodes": self._nodes,
        }

    def _layers(self) -> dict[str, Any]:
        """In the module's own order; a module that only owns tensors keeps its place as a Scope."""
        owners = {name.rpartition(".")[0] for name in self._tensors} - {""}
        layers: dict[str, Any] = {}
        for name, module in self._modules.items():
            if name in self._called:
                layers[name] = _describe_layer(name, module)
            elif name in owners and not any(called.startswith(name + ".") for called in self._called):
                layers[name] = {"type": "Scope", "arguments": {}}
        return layers

    def _refuse_shared_parameters(self) -> None:
        seen: dict[int, str] = {}
        for owner in [*sorted(self._called), *sorted(self._tensors)]:
            part = self._modules.get(owner)
            own = (
                part.named_parameters(prefix=owner)
                if part is not None
                else [(owner, _find(self._module, owner))]
            )
            for name, parameter in own:
                other = seen.setdefault(id(parameter), name)
                if other != name:
                    raise GraphError(
                        f"{other!r} and {name!r} are one parameter: layers of a graph cannot share weights"
                    )

    def _append(
        self, node: fx.Node, op: str, target: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        entry: dict[str, Any] = {"name": node.name, "op": op}
        if target:
            entry["target"] = target
        if args:
            entry["args"] = [_argument(value) for value in args]
        if kwargs:
            entry["kwargs"] = {name: _argument(value) for name, value in kwargs.items()}
        self._nodes.append(entry)

    def _add_input(self, node: fx.Node) -> None:
        if self._nodes:
            return  # an argument with a default, which fx has fixed to it
        self._append(node, "input", "", [], {})

    def _add_output(self, node: fx.Node) -> None:
        (value,) = node.args
        if not isinstance(value, fx.Node):
            raise GraphError("the network returns several values: return the logits alone (in eval mode)")
        self._append(node, "output", "", [value], {})

    def _add_tensor(self, node: fx.Node) -> None:
        target = str(node.target)
        names = self._module.state_dict(keep_vars=True)
        if target not in names:
            raise GraphError(
                f"tensor {target!r} is not in the state_dict: "
                "register it in __init__ with register_buffer(name, value)"
            )
        owner = target.rpartition(".")[0]
        if owner in self._called:
            raise GraphError(
                f"{target!r} is used by itself, but its layer is also called: use only one of the two"
            )
        self._tensors.add(target)
        self._append(node, "tensor", target, [], {})

    def _add_layer(self, node: fx.Node) -> None:
        name = str(node.target)
        _describe_layer(name, self._modules[name])
        if any(tensor.startswith(name + ".") for tensor in self._tensors):
            raise GraphError(f"a tensor of layer {name!r} is also used by itself: use only one of the two")
        kwargs = dict(node.kwargs)
        if isinstance(self._modules[name], nn.MultiheadAttention):
            kwargs = {key: value for key, value in kwargs.items() if not _is_default(key, value)} | {
                "need_weights": bool(kwargs.get("need_weights", True))
            }
        self._called.add(name)
        self._append(node, "layer", name, list(node.args), kwargs)

    def _add_function(self, node: fx.Node) -> None:
        target: Any = node.target
        args, kwargs = list(node.args), dict(node.kwargs)
        if target is getattr:
            if args[1] != "shape":
                raise GraphError(f"attribute {args[1]!r} of a tensor is not in the vocabulary (only shape)")
            self._append(node, "function", "size", args[:1], {})
        elif target in _DROPOUTS:
            self._add_dropout(node, _DROPOUTS[target], args, kwargs)
        elif _full_name(target) == "torchvision.ops.stochastic_depth.stochastic_depth":
            self._add_dropout(node, "StochasticDepth", args, kwargs)
        elif target in _FUNCTION_NAMES:
            self._add_call(node, _FUNCTION_NAMES[target], args, kwargs)
        else:
            raise GraphError(_not_in_vocabulary("function", _full_name(target)))

    def _add_method(self, node: fx.Node) -> None:
        name = str(node.target)
        if name not in _METHOD_NAMES:
            raise GraphError(_not_in_vocabulary("method", name))
        self._add_call(node, _METHOD_NAMES[name], list(node.args), dict(node.kwargs))

    def _add_call(self, node: fx.Node, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        if name in _TAKES_SIZES and (len(args) > 2 or (len(args) == 2 and isinstance(args[1], int))):
            args = [args[0], args[1:]]
        rules = FUNCTIONS[name].rules
        family = "arithmetic" if "a" in rules else name
        named: dict[str, Any] = {}
        for key, value in kwargs.items():
            key = _RENAMED.get((key, family), _RENAMED.get((key, "any"), key)) if key not in rules else key
            if key in rules:
                named[key] = value
            elif not _is_default(key, value):
                raise GraphError(f"function {name!r}: argument {key}={value!r} is not in the vocabulary")
        if family == "arithmetic":  # Python's operators take no keywords
            args, named = args + [named[key] for key in ("a", "b") if key in named], {}
        self._append(node, "function", name, args, named)

    def _add_dropout(self, node: fx.Node, layer_type: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Functional dropout becomes a layer: a graph has no `self.training`, a layer has."""
        order = (
            ("input", "p", "mode", "training")
            if layer_type == "StochasticDepth"
            else ("input", "p", "training", "inplace")
        )
        given = dict(zip(order, args, strict=False)) | kwargs
        if given.get("training", given.get("train", True)):
            raise GraphError(
                "this dropout stays on in eval mode, so the network's answers are random: "
                "write F.dropout(x, p, training=self.training), or use nn.Dropout"
            )
        name = node.name
        while any(
            taken == name or taken.startswith(name + ".") for taken in [*self._modules, *self._dropouts]
        ):
            name += "_"
        arguments = {"p": given.get("p", 0.5)}
        arguments |= (
            {"mode": given["mode"]}
            if layer_type == "StochasticDepth"
            else {"inplace": bool(given.get("inplace"))}
        )
        self._dropouts[name] = {"type": layer_type, "arguments": arguments}
        self._append(node, "layer", name, [given["input"]], {})


def _argument(value: Any) -> Any:
    """An fx argument as JSON."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if value is ...:
        return "..."
    if isinstance(value, tuple | list):
        return [_argument(part) for part in value]
    if isinstance(value, slice):
        return {"slice": [_argument(value.start), _argument(value.stop), _argument(value.step)]}
    raise GraphError(f"an argument of type {type(value).__name__} ({value!r:.80}) is not in the vocabulary")


def _is_default(name: str, value: Any) -> bool:
    """Options that the vocabulary leaves out, at the value they have when nobody sets them."""
    return (
        value is None
        or value is False
        or name == "_stacklevel"
        or (name == "alpha" and value == 1)
        or (name == "average_attn_weights" and value is True)
    )


def _full_name(function: Any) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", str(function))
    return f"{module}.{name}" if module else name


def _not_in_vocabulary(what: str, name: str) -> str:
    if what == "method" and name.endswith("_"):
        return (
            f"method {name!r} changes a tensor in place, which a graph cannot say: use {name.rstrip('_')!r}"
        )
    way_out = _WAY_OUT.get(
        name.rpartition(".")[2].lstrip("_"), f"the {what}s it knows: {', '.join(FUNCTIONS)}"
    )
    return f"{what} {name!r} is not in the vocabulary: {way_out}"


def _find(module: nn.Module, name: str) -> Any:
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


# ---------------------------------------------------------------------------------------- writing an artifact

_ALIGNMENT = 8
# Trained fp32 weights deflate by about 8 %, at some 25 MB a second: large members are worth it only when a
# sample says so.
_LARGE = 16 << 20
_WORTHWHILE = 0.85


def pack(
    network: Network,
    *,
    preprocessing: dict[str, Any] | None,
    class_names: Sequence[str] | None,
    steps: Sequence[dict[str, Any]] = (),
    metrics: dict[str, Any] | None = None,
    digests: dict[str, Any] | None = None,
) -> bytes:
    """The bytes of an artifact (docs/formats.md); the same content gives the same bytes.

    Tensors in `network.encoded` are written in their stored form, which must decode to the network's present
    value; all others raw. Raises AssertionError naming the tensor when it does not.
    """
    assert class_names is None or len(class_names) == network.num_classes, "one class name an output"
    index, data = _lay_out(network)
    described = {
        "preprocessing": preprocessing,
        "class_names": None if class_names is None else list(class_names),
        "steps": list(steps),
        "metrics": metrics or {},
        "digests": digests or {},
    }
    strings: dict[str, str] = {}
    document = {
        "format_version": FORMAT_VERSION,
        "graph": _canonical(network.graph, strings),
        "tensors": _canonical(index, strings),
        "data": data,
        # The order of fields means nothing here, so it must not change the bytes.
        **_canonical(json.loads(json.dumps(described, sort_keys=True)), strings),
    }
    file = io.BytesIO()
    torch.save(document, file)
    del document, data
    return _deflate(file)


def _lay_out(network: Network) -> tuple[dict[str, Any], Tensor]:
    """The index of tensors, and all their bytes in one uint8 tensor."""
    index: dict[str, Any] = {}
    chunks: list[tuple[int, Tensor]] = []
    offset = 0
    for name, value in network.state_dict().items():
        tensor = value.detach().cpu()
        dtype = str(tensor.dtype).removeprefix("torch.")
        assert dtype in DTYPES, f"tensor {name!r} has dtype {dtype}, which an artifact cannot hold"
        encoded = network.encoded.get(name)
        if encoded is None:
            encoding: dict[str, Any] = {"name": "raw"}
            stored = tensor.contiguous().reshape(-1).view(torch.uint8)
        else:
            decoded = encoded.decode()
            same = decoded.dtype == tensor.dtype and torch.equal(decoded, tensor)
            assert same, (
                f"tensor {name!r} was changed after it was encoded: encode it again, or drop it from encoded"
            )
            encoding, stored = encoded.encoding, encoded.data
        index[name] = {
            "shape": list(tensor.shape),
            "dtype": dtype,
            "encoding": encoding,
            "offset": offset,
            "nbytes": stored.numel(),
        }
        chunks.append((offset, stored))
        offset += -(-stored.numel() // _ALIGNMENT) * _ALIGNMENT
    data = torch.zeros(offset, dtype=torch.uint8)
    for start, stored in chunks:
        data[start : start + stored.numel()] = stored
    return index, data


def _canonical(value: Any, strings: dict[str, str]) -> Any:
    """A copy in which equal strings are one object and nothing else is shared: pickle notes identity."""
    if isinstance(value, dict):
        return {_canonical(key, strings): _canonical(item, strings) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, strings) for item in value]
    if isinstance(value, str):
        return strings.setdefault(value, value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"an artifact holds JSON, not {type(value).__name__}")


def _deflate(saved: io.BytesIO) -> bytes:
    """torch.save's zip again, deflated, which torch.load reads as well; fixed dates make fixed bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(packed, "w") as target:
        for member in source.infolist():
            if member.filename.rpartition("/")[2] in (
                "serialization_id",
                ".format_version",
                ".storage_alignment",
            ):
                continue  # torch.load does without
            content = source.read(member)
            if member.filename.endswith("data.pkl"):
                # Without the numbering of every object that nothing refers to: a third of graph and index.
                content = pickletools.optimize(content)
            info = zipfile.ZipInfo(member.filename, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # or Windows writes other bytes
            info.compress_type = zipfile.ZIP_DEFLATED if _is_worth_deflating(content) else zipfile.ZIP_STORED
            target.writestr(info, content, compresslevel=9)
    return packed.getvalue()


def _is_worth_deflating(content: bytes) -> bool:
    if len(content) <= _LARGE:
        return True
    step = len(content) // 16
    sample = b"".join(content[start : start + (64 << 10)] for start in range(0, step * 16, step))
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as trial:
        trial.writestr("sample", sample)
    return squeezed.tell() < _WORTHWHILE * len(sample)


# ------------------------------------------------------------------------------------------- the command line

_PREPROCESSING_DEFAULTS: dict[str, Any] = {
    "resize": None,
    "crop": None,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


class UsageError(Exception):
    """Told to the person at the keyboard, without a traceback."""


def _build_module(where: str) -> nn.Module:
    """my_module:build → my_module.build(), from the current folder or anything installed."""
    module_name, separator, attribute = where.partition(":")
    if not separator:
        raise UsageError(f"{where!r}: say which function builds the network, as my_module:build")
    sys.path.insert(0, str(Path.cwd()))
    made: Callable[[], Any] = importlib.import_module(module_name)  # type: ignore[assignment]
    for part in attribute.split("."):
        made = getattr(made, part)
    network = made if isinstance(made, nn.Module) else made()
    if not isinstance(network, nn.Module):
        raise UsageError(f"{where} gives a {type(network).__name__}, not an nn.Module")
    return network


def _load_checkpoint(module: nn.Module, file: Path) -> None:
    """Load a state_dict, as it is or inside the usual wrappers; every key must fit."""
    found = torch.load(file, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}: save model.state_dict() instead")
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    try:
        module.load_state_dict(found, strict=True)
    except RuntimeError as error:
        raise UsageError(f"{file} does not fit the network: {error}") from None


def _read_input_shape(text: str) -> list[int]:
    try:
        shape = [int(part) for part in text.lower().split("x")]
    except ValueError:
        shape = []
    if len(shape) != 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not CxHxW, such as 3x64x64")
    return shape


def _read_preprocessing(file: Path | None, input_shape: list[int]) -> dict[str, Any] | None:
    if file is None:
        return None
    given = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(given, dict) or not set(given) <= set(_PREPROCESSING_DEFAULTS):
        raise UsageError(f"{file}: a JSON object with {', '.join(_PREPROCESSING_DEFAULTS)}")
    preprocessing = _PREPROCESSING_DEFAULTS | given
    size = preprocessing["crop"] if preprocessing["crop"] is not None else preprocessing["resize"]
    if preprocessing["crop"] is None and not isinstance(size, list):
        raise UsageError(f"{file}: give `crop`, or `resize` as [height, width], so that the size is fixed")
    size = [size, size] if isinstance(size, int) else size
    if size != input_shape[1:]:
        raise UsageError(f"{file} gives images of {size}, --input says {input_shape[1:]}")
    return preprocessing


def _read_class_names(file: Path | None, num_classes: int | None) -> list[str] | None:
    if file is None:
        return None
    names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len(names) != num_classes or len(set(names)) != len(names):
        raise UsageError(
            f"{file} has {len(names)} names, the network {num_classes} outputs: one different name a line"
        )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trace a PyTorch classifier; write it with its weights as one file that fewbytes takes."
    )
    parser.add_argument("network", help="my_module:build, where build() returns the nn.Module")
    parser.add_argument(
        "--checkpoint", type=Path, help="its state_dict; default: the weights build() gives it"
    )
    parser.add_argument(
        "--input", type=_read_input_shape, required=True, metavar="CxHxW", help="such as 3x64x64"
    )
    parser.add_argument(
        "--class-names", type=Path, help="text file, one class a line, in the order of the outputs"
    )
    parser.add_argument("--preprocessing", type=Path, help=f"JSON with {', '.join(_PREPROCESSING_DEFAULTS)}")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    preprocessing = _read_preprocessing(arguments.preprocessing, arguments.input)
    module = _build_module(arguments.network).eval()
    if arguments.checkpoint is not None:
        _load_checkpoint(module, arguments.checkpoint)
    example = torch.rand(2, *arguments.input, generator=torch.Generator().manual_seed(0))
    network = as_network(module, example)
    class_names = _read_class_names(arguments.class_names, network.num_classes)
    skipped = left_out(module, network.graph)
    if skipped:
        more = " ..." if len(skipped) > 20 else ""
        print(f"left out, because eval mode does not use them: {', '.join(skipped[:20])}{more}")
    packed = pack(network, preprocessing=preprocessing, class_names=class_names)
    arguments.out.write_bytes(packed)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    print(
        f"{arguments.out}: {len(network.graph['layers'])} layers, {num_parameters} parameters, "
        f"{network.num_classes} classes, {len(packed)} bytes; logits equal to the original's to the bit"
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except (UsageError, GraphError, FileNotFoundError, ModuleNotFoundError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
