"""The graph of a narrowed network: layers, sizes and indices made to fit what is left."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..load_artifact import FUNCTIONS, Ref, Step, _fill
from .groups import Channels
from .labels import Value, column
from .parts import Permutation
from .reading import bind, index_by_dim, names, resolve

Node = dict[str, Any]


class Writer:
    """Writes the narrowed graph node by node, knowing the sizes every value will have."""

    def __init__(self, channels: Channels, gone: Tensor) -> None:
        self._flow, self._gone = channels.flow, gone
        self._old = channels.flow.graph
        self._values: dict[str, Any] = {}
        """What each node will give: numbers, shapes, and tensors on the meta device."""
        self._nodes: list[Node] = []
        self._replaced_layers: set[str] = set()
        self._inside = {place for p in channels.flow.permutations for place in p.positions[:-1]}

    def graph(self) -> dict[str, Any]:
        permutations = {permutation.positions[-1]: permutation for permutation in self._flow.permutations}
        for position in range(len(self._flow.steps)):
            self._write(position)
            if position in permutations:
                self._fit_permutation(permutations[position])
        return {
            "input_shape": list(self._old["input_shape"]),
            "layers": self._layers(),
            **self._tensors(),
            "nodes": self._without_dead_nodes(),
        }

    # --------------------------------------------------------------------------------- layers and parameters

    def _layers(self) -> dict[str, Any]:
        layers = copy.deepcopy(self._old["layers"])
        for name, layer in layers.items():
            self._resize(name, layer["type"], layer.get("arguments", {}))
        used = {node["target"] for node in self._nodes if node["op"] == "layer"}
        return {
            name: layer for name, layer in layers.items() if name in used or name not in self._replaced_layers
        }

    def _resize(self, name: str, layer_type: str, arguments: dict[str, Any]) -> None:
        num_inputs = self._count(self._flow.inputs.get(name))
        num_outputs = self._count(self._flow.outputs.get(name))
        if num_inputs is None:
            return
        if layer_type == "Conv2d":
            if arguments.get("groups", 1) == arguments["in_channels"]:
                arguments["groups"] = num_inputs  # depthwise; for a single input channel both are 1
            arguments["in_channels"], arguments["out_channels"] = num_inputs, num_outputs
        elif layer_type == "Linear":
            arguments["in_features"], arguments["out_features"] = num_inputs, num_outputs
        elif layer_type == "GroupNorm":
            if arguments["num_groups"] == arguments["num_channels"]:
                arguments["num_groups"] = num_inputs
            arguments["num_channels"] = num_inputs
        elif layer_type in ("LayerNorm", "LayerNorm2d"):
            shape = arguments["normalized_shape"]
            if isinstance(shape, list):
                shape[self._flow.norm_dims.get(name, 0)] = num_inputs
            else:
                arguments["normalized_shape"] = num_inputs
        elif layer_type == "PReLU":
            arguments["num_parameters"] = num_inputs
        else:
            arguments["num_features"] = num_inputs

    def _tensors(self) -> dict[str, Any]:
        parameters, buffers = (copy.deepcopy(self._old.get(kind, {})) for kind in ("parameters", "buffers"))
        for slot in self._flow.slots:
            if slot.tensor in parameters:
                parameters[slot.tensor][slot.dim] = self._count(slot.labels)
            elif slot.tensor in buffers:
                buffers[slot.tensor]["shape"][slot.dim] = self._count(slot.labels)
        return {"parameters": parameters, "buffers": buffers}

    # ----------------------------------------------------------------------------------------------- the nodes

    def _write(self, position: int) -> None:
        step, node = self._flow.steps[position], copy.deepcopy(self._old["nodes"][position])
        known = self._flow.values.get(step.name)
        if known is None and step.op == "function" and position not in self._inside:  # a number, or a shape
            arguments = [_fill(argument, self._values) for argument in step.args]
            named = {name: _fill(argument, self._values) for name, argument in step.kwargs.items()}
            self._values[step.name] = FUNCTIONS[step.target].call(*arguments, **named)
        else:
            self._values[step.name] = self._expected(known)
        if step.op == "function" and known is not None:
            fit = {
                "view": self._fit_sizes,
                "reshape": self._fit_sizes,
                "expand": self._fit_sizes,
                "split": self._fit_split,
                "chunk": self._fit_split,
                "getitem": self._fit_item,
                "index_select": self._fit_select,
                "pad": self._fit_pad,
                "layer_norm": self._fit_norm,
                **dict.fromkeys(("add", "sub", "mul", "truediv", "floordiv"), self._fit_arithmetic),
            }.get(step.target)
            if fit is not None:
                fit(step, node)
        self._nodes.append(node)

    def _fit_sizes(self, step: Step, node: Node) -> None:
        key = "size" if step.target == "expand" else "shape"
        wanted, given = list(self._values[step.name].shape), _get(node, key)
        if isinstance(given, dict):  # all sizes of another value
            fits = [size == want for size, want in zip(self._values[given["node"]], wanted, strict=True)]
        else:
            sizes = [self._values[size["node"]] if isinstance(size, dict) else size for size in given]
            fits = [size in (-1, want) for size, want in zip(sizes, wanted, strict=True)]
        if all(fits):
            return
        if isinstance(given, dict) or not fits[0]:
            _set(node, key, [-1, *wanted[1:]])  # the first follows the batch
        else:
            _set(
                node, key, [old if fit else want for old, want, fit in zip(given, wanted, fits, strict=True)]
            )

    def _fit_split(self, step: Step, node: Node) -> None:
        arguments = bind(step)
        source: Ref = arguments["input" if step.target == "chunk" else "tensor"]
        dim = arguments.get("dim", 0)
        wanted = [piece.shape[dim] for piece in self._values[step.name]]
        how = arguments["chunks" if step.target == "chunk" else "split_size_or_sections"]
        whole = self._values[source.name]
        assert isinstance(how, int | list)
        if isinstance(how, list):
            is_same = how == wanted
        else:
            pieces = FUNCTIONS[step.target].call(whole, how, dim)
            is_same = [piece.shape[dim] for piece in pieces] == wanted
        if not is_same:
            even = wanted[0] > 0 and wanted[:-1] == wanted[:1] * (len(wanted) - 1) and wanted[-1] <= wanted[0]
            node["target"] = "split"
            node["args"] = [{"node": source.name}, wanted[0] if even else wanted, dim]
            node.pop("kwargs", None)

    def _fit_item(self, step: Step, node: Node) -> None:
        source = bind(step)["value"].name
        value = self._flow.values[source]
        if not isinstance(value, Value):
            return
        axis = self._flow.axis(value)
        stays = self._stays(value, axis)
        if axis is None or stays is None:
            return
        index, given = resolve(bind(step)["index"], self._flow.dry), _get(node, "index")
        parts = index if isinstance(index, list) else [index]
        for place, dim in index_by_dim(index, value.labels.ndim):
            if dim != axis:
                continue
            picked = _renumbered(torch.arange(len(stays))[parts[place]].reshape(-1), stays)
            now = resolve(bind(step)["index"], self._values)
            if torch.equal(
                torch.arange(int(stays.sum()))[now[place] if isinstance(now, list) else now], picked
            ):
                continue
            part = int(picked) if isinstance(parts[place], int) else _as_slice(picked)
            if part is None:
                # Every second channel, say, some of which are gone: pick them by number first.
                selection = self._free_name(f"{step.name}_channels")
                self._nodes.append(_selection(selection, source, axis, picked))
                _set(node, "value", {"node": selection})
                part = {"slice": [None, None, None]}
            if isinstance(given, list):
                given[place] = part
            else:
                _set(node, "index", part)

    def _fit_select(self, step: Step, node: Node) -> None:
        arguments = bind(step)
        value = self._flow.values[arguments["input"].name]
        stays = self._stays(value, arguments["dim"])
        if stays is not None:
            _set(node, "index", _renumbered(torch.tensor(arguments["index"]), stays).tolist())

    def _fit_pad(self, step: Step, node: Node) -> None:
        value, result = self._flow.values[bind(step)["input"].name], self._flow.values[step.name]
        axis = self._flow.axis(result)
        if axis is None:
            return
        pads, last = list(bind(step)["pad"]), value.labels.ndim - 1
        if not isinstance(pads, list) or 2 * (last - axis) + 1 >= len(pads):
            return
        place = 2 * (last - axis)
        before, after = pads[place], pads[place + 1]
        old, new = column(value.labels, axis), column(result.labels, axis)
        for offset, count, added, cut in (
            (0, before, new[: max(before, 0)], old[: max(-before, 0)]),
            (1, after, new[len(new) - max(after, 0) :], old[len(old) - max(-after, 0) :]),
        ):
            number = self._count(added if count > 0 else cut)
            assert number is not None
            pads[place + offset] = number if count > 0 else -number
        _set(node, "pad", pads)

    def _fit_norm(self, step: Step, node: Node) -> None:
        num_dims = len(_get(node, "normalized_shape"))
        _set(node, "normalized_shape", list(self._values[step.name].shape[-num_dims:]))

    def _fit_arithmetic(self, step: Step, node: Node) -> None:
        """x / x.size(1) goes on dividing by what it divided by: a channel of zeros more or less is no change."""
        for name, argument in bind(step).items():
            for used in names(argument):
                before, now = self._flow.dry[used], self._values[used]
                if isinstance(before, int | float) and before != now:
                    if self._flow.follows_the_batch(used):
                        raise ValueError(
                            f"node {step.name!r} computes with {used!r}, a number of images times channels: "
                            "neither a constant nor the new number would be right"
                        )
                    _set(node, name, before)

    def _fit_permutation(self, permutation: Permutation) -> None:
        """A channel shuffle stays when it still moves every channel where it did; or else it is written out."""
        value = self._flow.values[permutation.source]
        stays = self._stays(value, permutation.dim)
        if stays is None:
            return
        index = _renumbered(permutation.order, stays)
        steps = [self._flow.steps[position] for position in permutation.positions]
        if self._shuffles(steps, self._values[permutation.source].shape, permutation.dim, index):
            return
        replaced = {step.name for step in steps}
        self._nodes = [node for node in self._nodes if node["name"] not in replaced]
        self._nodes.append(_selection(steps[-1].name, permutation.source, permutation.dim, index))
        self._replaced_layers |= {step.target for step in steps if step.op == "layer"}

    def _shuffles(self, steps: list[Step], shape: torch.Size, dim: int, index: Tensor) -> bool:
        """Whether the steps, as they are, do to a tensor of the new `shape` what `index` says."""
        elements = moved = torch.arange(shape.numel(), dtype=torch.int32).view(shape)
        for step in steps:
            if step.op == "layer":
                layer = self._old["layers"][step.target]
                if layer["type"] == "ChannelShuffle" and shape[dim] % layer["arguments"]["groups"]:
                    return False
                moved = getattr(nn, layer["type"])(**layer.get("arguments", {}))(moved)
            else:
                arguments = {name: _fill(value, self._values) for name, value in bind(step).items()}
                if not _holds(arguments.get("shape", [-1]), moved.numel()):
                    return False
                moved = FUNCTIONS[step.target].call(**(arguments | {"input": moved}))
        return moved.shape == elements.shape and torch.equal(moved, elements.index_select(dim, index))

    def _without_dead_nodes(self) -> list[Node]:
        """Sizes that only a replaced view had used go with it."""
        was_used = {name for step in self._flow.steps for name in names([step.args, step.kwargs])}
        kept: list[Node] = []
        used: set[str] = set()
        for node in reversed(self._nodes):
            if node["op"] == "function" and node["name"] in was_used - used:
                continue
            used |= _references([node.get("args"), node.get("kwargs")])
            kept.append(node)
        return kept[::-1]

    # ----------------------------------------------------------------------------------------------- the sizes

    def _stays(self, value: Value, dim: int | None) -> Tensor | None:
        """Which channels along `dim` stay; None when all do."""
        if dim is None or self._flow.axis(value) != dim % value.labels.ndim:
            return None
        stays = ~self._gone[self._flow.labels.roots(column(value.labels, dim))]
        return None if bool(stays.all()) else stays

    def _count(self, labels: Tensor | None) -> int | None:
        return None if labels is None else int((~self._gone[self._flow.labels.roots(labels)]).sum())

    def _expected(self, known: Any) -> Any:
        """A tensor of the size that this value will have."""
        if isinstance(known, tuple):
            return tuple(map(self._expected, known))
        if known is None:
            return None
        shape = list(known.labels.shape)
        axis = self._flow.axis(known)
        if axis is not None:
            shape[axis] = self._count(column(known.labels, axis))
        return torch.empty(shape, device="meta")

    def _free_name(self, name: str) -> str:
        taken = {step.name for step in self._flow.steps} | {node["name"] for node in self._nodes}
        while name in taken:
            name += "_"
        return name


def _renumbered(channels: Tensor, stays: Tensor) -> Tensor:
    """Those of `channels` (numbers) that stay, in the numbers they have afterwards."""
    return (stays.cumsum(0) - 1)[channels[stays[channels]]]


def _as_slice(picked: Tensor) -> dict[str, Any] | None:
    """The slice that picks exactly these, or None."""
    start, stop = int(picked[0]), int(picked[-1]) + 1
    stride = int(picked[1] - picked[0]) if len(picked) > 1 else 1
    is_slice = stride > 0 and torch.equal(picked, torch.arange(start, stop, stride))
    return {"slice": [start, stop, stride]} if is_slice else None


def _holds(shape: Sequence[int], num_elements: int) -> bool:
    """Whether a view of `shape`, which may have one -1, has room for exactly these."""
    known = math.prod(size for size in shape if size != -1)
    return num_elements % known == 0 if -1 in shape else num_elements == known


def _selection(name: str, source: str, dim: int, index: Tensor) -> Node:
    return {
        "name": name,
        "op": "function",
        "target": "index_select",
        "args": [{"node": source}, dim, index.tolist()],
    }


def _place(node: Node, name: str) -> tuple[Any, Any]:
    """Where a function's argument is in its node."""
    if name in node.get("kwargs", {}):
        return node["kwargs"], name
    return node["args"], list(FUNCTIONS[node["target"]].rules).index(name)


def _get(node: Node, name: str) -> Any:
    container, key = _place(node, name)
    return container[key]


def _set(node: Node, name: str, value: Any) -> None:
    container, key = _place(node, name)
    container[key] = value


def _references(argument: Any) -> set[str]:
    """The nodes that JSON arguments name."""
    if isinstance(argument, dict):
        if set(argument) == {"node"}:
            return {argument["node"]}
        return _references(list(argument.values()))
    if isinstance(argument, list):
        return {name for part in argument for name in _references(part)}
    return set()
