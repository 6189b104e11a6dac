"""Runs a network on labels: where every channel goes, and what must be removed together.

One rule a layer or function. Shape functions are simply executed on the labels; a convolution reads the labels
of its input columns and gives new ones to its outputs; what computes element by element unites the labels
that meet. What is in no rule keeps its inputs whole, with a reason that names the node.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..load_artifact import FUNCTIONS, Network, Ref, Step, _getitem
from .labels import NONE, Labels, Value, column, spread

NUM_IMAGES = 3  # as the reader's dry run: no size of a network is 3 by chance of the batch
_LARGEST_FOLLOWED = 1 << 18  # elements of a parameter; a table of positions has about 150,000

Role = Literal["out", "in", "norm", "depthwise", "scale"]


class Slot(NamedTuple):
    """Whose channels lie along one dimension of one tensor; `repeats`: as in `Member`."""

    tensor: str
    dim: int
    layer: str
    role: Role
    labels: Tensor
    repeats: int = 1


class Permutation(NamedTuple):
    """The steps at these positions together are `source.index_select(dim, index)`."""

    positions: list[int]
    source: str
    dim: int
    index: Tensor


def dry_values(network: Network) -> dict[str, Any]:
    """What every node gives for three images: numbers, shapes, and tensors on the meta device."""
    values: dict[str, Any] = {}
    was_training = network.training
    network.eval().run(torch.empty((NUM_IMAGES, *network.input_shape), device="meta"), values.__setitem__)
    network.train(was_training)
    return values


def bind(step: Step) -> dict[str, Any]:
    """A function's arguments by name."""
    return dict(zip(FUNCTIONS[step.target].rules, step.args, strict=False)) | step.kwargs


def resolve(argument: Any, values: dict[str, Any]) -> Any:
    """An argument with computed numbers and shapes in place of their names."""
    if isinstance(argument, Ref):
        return values[argument.name] if argument.kind in ("number", "shape") else argument
    if isinstance(argument, list):
        return [resolve(part, values) for part in argument]
    if isinstance(argument, slice):
        return slice(*(resolve(part, values) for part in (argument.start, argument.stop, argument.step)))
    return argument


def index_by_dim(index: Any, ndim: int) -> list[tuple[int, int]]:
    """Where the parts of an index go: (position in the index, dimension of the indexed tensor)."""
    parts = index if isinstance(index, list) else [index]
    num_named = sum(part is not None and part != "..." for part in parts)
    places, dim = [], 0
    for position, part in enumerate(parts):
        if part == "...":
            dim += ndim - num_named
        elif part is not None:
            places.append((position, dim))
            dim += 1
    return places


def rearrange(
    step: Step, layer_type: str | None, like: Tensor, tensor: Tensor, values: dict[str, Any]
) -> Tensor:
    """A shape function on `tensor`; `like` has the shape of its result."""
    if step.op == "function":
        arguments = {name: resolve(value, values) for name, value in bind(step).items()}
        if step.target == "permute":
            return tensor.permute(arguments["dims"])
        if step.target == "transpose":
            return tensor.transpose(arguments["dim0"], arguments["dim1"])
        if step.target == "expand":
            return tensor.expand(like.shape)
    if layer_type == "ChannelShuffle":
        raise AssertionError("a channel shuffle is a permutation by itself")
    return tensor.reshape(like.shape)


_SAME_LAYERS = {
    *("ReLU", "ReLU6", "LeakyReLU", "ELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Hardswish"),
    *("Hardsigmoid", "Hardtanh", "Dropout", "Dropout2d", "StochasticDepth", "Identity", "LocalResponseNorm"),
}
_SAME_FUNCTIONS = {
    *("pow", "neg", "clamp", "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh"),
    *("softplus", "hardswish", "hardsigmoid", "normalize", "contiguous"),
}
# These work on height and width, the last two dimensions.
_PLANE_LAYERS = {
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "ZeroPad2d",
    "ReflectionPad2d",
}
_PLANE_FUNCTIONS = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
_SHAPE_FUNCTIONS = {"view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "expand"}
_REARRANGING = (_SHAPE_FUNCTIONS - {"expand"}) | {"contiguous"}


class Flow:
    """The labels of every value of `network`, after a run."""

    def __init__(self, network: Network) -> None:
        with torch.device("meta"):
            self._blueprint = Network(network.graph)
        self.graph = network.graph
        self.steps = self._blueprint._steps
        self.dry = dry_values(self._blueprint)
        self.labels = Labels()
        self.values: dict[str, Any] = {}
        """By node: a Value, or a tuple of them; nothing for numbers and inside permutations."""
        self.slots: list[Slot] = []
        self._placed: set[tuple[str, int]] = set()
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        """By layer: the labels of its input's and its output's channels, 1-D."""
        self.norm_dims: dict[str, int] = {}
        """By layer norm: which of its normalised dimensions the channels lie along."""
        self.permutations: list[Permutation] = []
        self.whole: dict[str, str] = {}
        """Layers that can never be narrowed, and why."""
        self._tensors: dict[str, Value] = {}
        self._state = set(self._blueprint.state_dict())
        self._uses = Counter(name for step in self.steps for name in names([step.args, step.kwargs]))
        self._done: set[int] = set()
        for position, step in enumerate(self.steps):
            if position not in self._done:
                self._run(position, step)
        self._place_tensors()

    def layer_type(self, step: Step) -> str | None:
        return type(self._blueprint.get_submodule(step.target)).__name__ if step.op == "layer" else None

    # ------------------------------------------------------------------------------------------- the steps

    def _run(self, position: int, step: Step) -> None:
        if step.op == "input":
            self.values[step.name] = self._none(step, "the images' channels are given")
        elif step.op == "tensor":
            self.values[step.name] = self._tensor(step)
        elif step.op == "output":
            self.labels.keep(self._value(step.args[0]).labels, "its outputs are the network's")
        elif step.op == "layer":
            self._run_layer(position, step)
        elif not isinstance(self.dry[step.name], int | float | torch.Size):
            self._run_function(position, step)

    def _run_layer(self, position: int, step: Step) -> None:
        layer_type = self.layer_type(step)
        if layer_type == "MultiheadAttention":
            self.whole[step.target] = "attention keeps its width"
            self.values[step.name] = self._keep_inputs(step, "is attention, which keeps its width")
            return
        value = self._value((step.args or list(step.kwargs.values()))[0])
        if layer_type in _SAME_LAYERS:
            self.values[step.name] = value
        elif layer_type in _PLANE_LAYERS:
            self.values[step.name] = self._carry(step, value, (-2, -1))
        elif layer_type == "Flatten":
            self._rearrange(position, step, value)
        elif layer_type == "ChannelShuffle":
            self.values[step.name] = self._shuffle(position, step, value)
        elif layer_type in ("Softmax", "LogSoftmax"):
            dim = getattr(self._blueprint.get_submodule(step.target), "dim", None)
            self.values[step.name] = self._softmax(step, value, dim)
        else:
            rule = {
                "Conv2d": self._convolution,
                "Linear": self._linear,
                "BatchNorm1d": self._channel_norm,
                "BatchNorm2d": self._channel_norm,
                "InstanceNorm2d": self._channel_norm,
                "GroupNorm": self._group_norm,
                "LayerNorm": self._layer_norm,
                "LayerNorm2d": self._channel_norm,
                "PReLU": self._prelu,
            }.get(str(layer_type))
            self.values[step.name] = rule(step, value) if rule else self._keep_inputs(step, "is not followed")

    def _run_function(self, position: int, step: Step) -> None:
        name = step.target
        arguments = {key: resolve(value, self.dry) for key, value in bind(step).items()}
        if name in _SHAPE_FUNCTIONS:
            self._rearrange(position, step, self._value(arguments["input"]))
            return
        if name in _SAME_FUNCTIONS:
            self.values[step.name] = self._value(arguments.get("input", arguments.get("a")))
            return
        if name in _PLANE_FUNCTIONS:
            self.values[step.name] = self._carry(step, self._value(arguments["input"]), (-2, -1))
            return
        rule = {
            "add": self._meet,
            "sub": self._meet,
            "mul": self._meet,
            "truediv": self._meet,
            "floordiv": self._meet,
            "mean": self._reduce,
            "sum": self._reduce,
            "amax": self._reduce,
            "cat": self._cat,
            "stack": self._stack,
            "chunk": self._split,
            "split": self._split,
            "unbind": self._unbind,
            "getitem": self._item,
            "index_select": self._select,
            "softmax": lambda step, arguments: self._softmax(
                step, self._value(arguments["input"]), arguments.get("dim")
            ),
            "log_softmax": lambda step, arguments: self._softmax(
                step, self._value(arguments["input"]), arguments.get("dim")
            ),
            "pad": self._pad,
            "layer_norm": self._norm_function,
        }.get(name)
        self.values[step.name] = (
            rule(step, arguments) if rule else self._keep_inputs(step, "cannot be narrowed")
        )

    # ---------------------------------------------------------------------------------------------- layers

    def _convolution(self, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.Conv2d)
        labels_I = self._same_inputs(step, self._channels(step, value, -3))
        groups, why = layer.groups, f"node {step.name!r} is a grouped convolution, and {value.why}"
        if groups > 1 and groups == layer.in_channels:
            outputs_O = labels_I.repeat_interleave(layer.out_channels // groups)
            self.outputs[step.target] = outputs_O
            self._add_slots(step, ("weight", "bias"), "depthwise", outputs_O)
            return self._spread(step, outputs_O, -3, value.why)
        if groups > 1:
            self.labels.couple(labels_I.view(groups, -1), 1, why)
        if step.target not in self.outputs:
            outputs_O = self.labels.fresh(layer.out_channels, step.target)
            if groups > 1:
                self.labels.couple(outputs_O.view(groups, -1), 1, why)
            self.outputs[step.target] = outputs_O
        self._add_slots(step, ("weight", "bias"), "out", self.outputs[step.target])
        columns = labels_I[: layer.in_channels // groups]
        self._add_slots(step, ("weight",), "in", columns, dim=1, repeats=groups)
        return self._spread(step, self.outputs[step.target], -3, "")

    def _linear(self, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.Linear)
        axis = self.axis(value)
        if axis not in (None, value.labels.ndim - 1):
            # Token mixing: it works along positions and leaves the channels where they are.
            self.whole[step.target] = f"node {step.name!r} mixes positions, not channels"
            return self._carry(step, value, (-1,))
        labels_I = self._same_inputs(step, self._channels(step, value, -1))
        if step.target not in self.outputs:
            self.outputs[step.target] = self.labels.fresh(layer.out_features, step.target)
        self._add_slots(step, ("weight", "bias"), "out", self.outputs[step.target])
        self._add_slots(step, ("weight",), "in", labels_I, dim=1)
        return self._spread(step, self.outputs[step.target], -1, "")

    def _channel_norm(self, step: Step, value: Value) -> Value:
        """One weight a channel, along dimension 1: batch and instance norm, LayerNorm2d."""
        labels_C = self._same_inputs(step, self._channels(step, value, 1))
        self._add_slots(step, ("weight", "bias", "running_mean", "running_var"), "norm", labels_C)
        return self._spread(step, labels_C, 1, value.why)

    def _group_norm(self, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.GroupNorm)
        result = self._channel_norm(step, value)
        if layer.num_groups < layer.num_channels:
            labels_C = self.inputs[step.target]
            why = f"node {step.name!r} is a group norm, and {value.why}"
            self.labels.couple(labels_C.view(layer.num_groups, -1), 1, why)
        return result

    def _layer_norm(self, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.LayerNorm)
        axis, first = self.axis(value), value.labels.ndim - len(layer.normalized_shape)
        if axis is None or axis < first:
            return value
        labels_C = self._same_inputs(step, column(value.labels, axis))
        self.norm_dims[step.target] = axis - first
        self._add_slots(step, ("weight", "bias"), "norm", labels_C, dim=axis - first)
        return value

    def _prelu(self, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.PReLU)
        if layer.num_parameters == 1:
            return value
        labels_C = self._same_inputs(step, self._channels(step, value, 1))
        self._add_slots(step, ("weight",), "scale", labels_C)
        return self._spread(step, labels_C, 1, value.why)

    def _shuffle(self, position: int, step: Step, value: Value) -> Value:
        layer = self._blueprint.get_submodule(step.target)
        assert isinstance(layer, nn.ChannelShuffle)
        labels_C = self._channels(step, value, 1)
        index = torch.arange(len(labels_C)).view(layer.groups, -1).t().flatten()
        source = names([step.args, step.kwargs])[0]
        self.permutations.append(Permutation([position], source, 1, index))
        return self._spread(step, labels_C[index], 1, value.why)

    # ------------------------------------------------------------------------------------------- functions

    def _meet(self, step: Step, arguments: dict[str, Any]) -> Value:
        """Two values element by element: what meets is one channel."""
        operands = [self._value(a) for a in arguments.values() if isinstance(a, Ref)]
        if len(operands) == 1:
            return operands[0]
        a, b = operands
        shape = self.dry[step.name].shape
        a_labels, b_labels = (_as_many_dims(v.labels, len(shape)) for v in (a, b))
        axes_a, axes_b = self.labels.axes(a_labels), self.labels.axes(b_labels)
        # A value of one channel that meets all of the other's (a spatial gate) is a factor, not a partner.
        a_is_spread = any(a_labels.shape[dim] == 1 for dim in axes_b)
        b_is_spread = any(b_labels.shape[dim] == 1 for dim in axes_a)
        if a_is_spread and b_is_spread:
            return self._keep_inputs(step, "is an outer product of channels")
        if a_is_spread:
            return Value(b_labels.expand(shape), b.why)
        if b_is_spread:
            return Value(a_labels.expand(shape), a.why)
        why = f"in node {step.name!r} ({step.target}) it meets what stays: {a.why or b.why}"
        self.labels.unite(a_labels.expand(shape), b_labels.expand(shape), why)
        # Where one has no label the other's is kept by now; the one with labels tells more.
        labels = a_labels if axes_a or not axes_b else b_labels
        return Value(labels.expand(shape), a.why or b.why)

    def _reduce(self, step: Step, arguments: dict[str, Any]) -> Value:
        value, dims = self._value(arguments["input"]), arguments.get("dim")
        ndim = value.labels.ndim
        gone = set(range(ndim)) if dims is None else {dim % ndim for dim in _as_list(dims)}
        axis = self.axis(value)
        if axis is None and not gone >= set(range(1, ndim)):
            axis = next(dim for dim in range(ndim) if dim not in gone)
        if axis is None or axis in gone:
            return self._none(step, f"node {step.name!r} ({step.target}) is over channels")
        new_axis = axis if arguments.get("keepdim") else axis - sum(dim < axis for dim in gone)
        return self._spread(step, column(value.labels, axis), new_axis, value.why)

    def _cat(self, step: Step, arguments: dict[str, Any]) -> Value:
        return self._join(step, self._values(arguments["tensors"]), arguments.get("dim", 0))

    def _stack(self, step: Step, arguments: dict[str, Any]) -> Value:
        pieces = self._values(arguments["tensors"])
        dim = arguments.get("dim", 0) % (pieces[0].labels.ndim + 1)
        return self._join(step, [Value(p.labels.unsqueeze(dim), p.why) for p in pieces], dim)

    def _join(self, step: Step, pieces: list[Value], dim: int) -> Value:
        dim %= pieces[0].labels.ndim
        found = {self.axis(piece) for piece in pieces} - {None}
        why = next((piece.why for piece in pieces if piece.why), "")
        if found <= {dim}:
            labels_C = torch.cat([column(piece.labels, dim) for piece in pieces])
            return self._spread(step, labels_C, dim, why)
        if len(found) > 1 or dim in found:
            return self._keep_inputs(step, "joins channels that lie along different dimensions")
        (axis,) = found
        assert axis is not None
        first = column(pieces[0].labels, axis)
        for piece in pieces[1:]:
            self.labels.unite(first, column(piece.labels, axis), f"in node {step.name!r} it meets: {why}")
        return self._spread(step, first, axis, why)

    def _split(self, step: Step, arguments: dict[str, Any]) -> tuple[Value, ...]:
        value = self._value(arguments.get("input", arguments.get("tensor")))
        sizes = [piece.shape[arguments.get("dim", 0)] for piece in self.dry[step.name]]
        pieces = value.labels.split(sizes, dim=arguments.get("dim", 0))
        return tuple(Value(piece, value.why) for piece in pieces)

    def _unbind(self, step: Step, arguments: dict[str, Any]) -> tuple[Value, ...]:
        value, dim = self._value(arguments["input"]), arguments.get("dim", 0)
        if self.axis(value) == dim % value.labels.ndim:
            self.labels.keep(value.labels, f"node {step.name!r} takes its channels one by one")
        return tuple(Value(piece, value.why) for piece in value.labels.unbind(dim))

    def _item(self, step: Step, arguments: dict[str, Any]) -> Any:
        index = arguments["index"]
        if arguments["value"].kind == "tensors":
            return self.values[arguments["value"].name][index]
        value = self._value(arguments["value"])
        axis = self.axis(value)
        labels = _getitem(value.labels, index)
        parts = index if isinstance(index, list) else [index]
        for position, dim in index_by_dim(index, value.labels.ndim):
            if dim == axis and isinstance(parts[position], int):
                self.labels.keep(labels, f"node {step.name!r} takes this channel by its number")
        return Value(labels, value.why)

    def _select(self, step: Step, arguments: dict[str, Any]) -> Value:
        value, dim = self._value(arguments["input"]), arguments["dim"]
        labels = value.labels.index_select(dim, torch.tensor(arguments["index"]))
        return Value(labels, value.why)

    def _softmax(self, step: Step, value: Value, dim: int | None) -> Value:
        axis = self.axis(value)
        if axis is not None and (dim is None or dim % value.labels.ndim == axis):
            return self._keep_inputs(step, "is a softmax over channels")
        return value

    def _pad(self, step: Step, arguments: dict[str, Any]) -> Value:
        value, ndim = self._value(arguments["input"]), len(self.dry[step.name].shape)
        pads = _as_list(arguments["pad"])
        padded = [ndim - 1 - k for k in range(len(pads) // 2) if pads[2 * k] or pads[2 * k + 1]]
        axis = self.axis(value)
        if axis is None and padded == [1]:
            axis = 1
        if axis not in padded or arguments.get("mode", "constant") != "constant":
            return self._carry(step, value, padded)
        assert axis is not None
        # New channels of zeros: whatever meets them decides whether they stay.
        before, after = pads[2 * (ndim - 1 - axis)], pads[2 * (ndim - 1 - axis) + 1]
        labels_C = column(value.labels, axis)
        labels_C = labels_C[max(-before, 0) : len(labels_C) - max(-after, 0)]
        new = [self.labels.fresh(max(count, 0), None) for count in (before, after)]
        return self._spread(step, torch.cat([new[0], labels_C, new[1]]), axis, value.why)

    def _norm_function(self, step: Step, arguments: dict[str, Any]) -> Value:
        value = self._value(arguments["input"])
        axis, num_dims = self.axis(value), len(arguments["normalized_shape"])
        first = value.labels.ndim - num_dims
        for name in ("weight", "bias"):
            if isinstance(arguments.get(name), Ref):
                own = self._value(arguments[name])
                if axis is None or axis < first:
                    self.labels.keep(own.labels, f"node {step.name!r} normalises positions")
                else:
                    along = spread(column(value.labels, axis), axis - first, own.labels.shape)
                    self.labels.unite(along, own.labels, f"node {step.name!r} (layer_norm): {value.why}")
        return value

    # ------------------------------------------------------------------------------------- shape functions

    def _rearrange(self, position: int, step: Step, value: Value) -> None:
        """View, permute and their kind. A split channel dimension that comes back as a permutation (a channel
        shuffle) couples nothing; any other couples the channels along the outer of the new dimensions."""
        self.axis(value)
        labels = rearrange(step, self.layer_type(step), self.dry[step.name], value.labels, self.dry)
        axes = self.labels.axes(labels)
        if len(axes) <= 1:
            self.values[step.name] = Value(labels, value.why)
            return
        permutation = self._permutation(position, step, value)
        if permutation is not None:
            self.permutations.append(permutation)
            self._done.update(permutation.positions)
            shuffled = value.labels.index_select(permutation.dim, permutation.index)
            self.values[self.steps[permutation.positions[-1]].name] = Value(shuffled, value.why)
            return
        why = f"node {step.name!r} ({step.target}) splits channels, and {value.why}"
        self.values[step.name] = Value(self.labels.couple(labels, axes[-1], why), value.why)

    def _permutation(self, position: int, step: Step, value: Value) -> Permutation | None:
        """The shortest run of shape functions from here on that only permutes the channels."""
        axis = self.axis(value)
        if axis is None or axis == 0:
            return None
        source = names([step.args, step.kwargs])[0]
        elements = torch.arange(value.labels.numel(), dtype=torch.int32).view(value.labels.shape)
        moved, at = elements, step
        run = self._run_of_rearrangements(position)
        for length, last in enumerate(run, start=1):
            at = self.steps[last]
            moved = rearrange(at, self.layer_type(at), self.dry[at.name], moved, self.dry)
            if moved.shape != elements.shape:
                continue
            stride = elements.stride(axis)
            index = column(moved, axis) // stride
            if torch.equal(elements.index_select(axis, index % elements.shape[axis]), moved):
                return Permutation(run[:length], source, axis, index.long())
        return None

    def _run_of_rearrangements(self, position: int) -> list[int]:
        """Positions of the steps from here on, each the only user of the one before."""
        run = [position]
        while self._uses[self.steps[run[-1]].name] == 1:
            name = self.steps[run[-1]].name
            user = next(
                p
                for p in range(run[-1] + 1, len(self.steps))
                if name in names([self.steps[p].args, self.steps[p].kwargs])
            )
            step = self.steps[user]
            rearranges = step.op == "function" and step.target in _REARRANGING
            if not (rearranges or self.layer_type(step) in ("Flatten", "Identity")):
                break
            run.append(user)
        return run

    # ------------------------------------------------------------------------------------------- the parts

    def _value(self, ref: Any) -> Value:
        value = self.values[ref.name]
        assert isinstance(value, Value), f"{ref.name} is no tensor"
        return value

    def _values(self, argument: Any) -> list[Value]:
        if isinstance(argument, Ref):
            return list(self.values[argument.name])
        return [self._value(part) for part in argument]

    def _none(self, step: Step, why: str) -> Any:
        """Labels for what `step` gives, none of which can be removed."""

        def none(tensor: Any) -> Value | None:
            if tensor is None:
                return None
            return Value(torch.tensor(NONE).expand(tensor.shape), why)

        found = self.dry[step.name]
        return tuple(map(none, found)) if isinstance(found, tuple) else none(found)

    def _keep_inputs(self, step: Step, what: str) -> Any:
        why = f"node {step.name!r} ({step.target}) {what}"
        for name in names([step.args, step.kwargs]):
            known = self.values.get(name)
            for value in known if isinstance(known, tuple) else (known,):
                if value is not None:
                    self.labels.keep(value.labels, why)
        return self._none(step, why)

    def axis(self, value: Value) -> int | None:
        """The dimension along which the channels lie; None where all elements are one."""
        found = self.labels.axes(value.labels)
        if len(found) > 1:  # a parameter that has met nothing yet
            self.labels.couple(value.labels, found[-1], value.why)
        return found[-1] if found else None

    def _channels(self, step: Step, value: Value, dim: int) -> Tensor:
        """The labels along `dim`, where the channels are supposed to lie."""
        dim %= value.labels.ndim
        if self.axis(value) in (None, dim):
            return column(value.labels, dim)
        self.labels.keep(value.labels, f"node {step.name!r} ({step.target}) works across its channels")
        return torch.full((value.labels.shape[dim],), NONE)

    def _carry(self, step: Step, value: Value, worked_on: Sequence[int]) -> Value:
        """The channels stay where they are; the sizes of the dimensions `worked_on` change."""
        axis, ndim = self.axis(value), value.labels.ndim
        if axis is None:
            axis = next(dim for dim in range(ndim) if dim not in {d % ndim for d in worked_on})
        if axis in {dim % ndim for dim in worked_on}:
            why = f"node {step.name!r} ({step.target}) works across its channels"
            self.labels.keep(value.labels, why)
            none: Value = self._none(step, why)
            return none
        return self._spread(step, column(value.labels, axis), axis, value.why)

    def _spread(self, step: Step, labels_C: Tensor, dim: int, why: str) -> Value:
        shape = self.dry[step.name].shape
        return Value(spread(labels_C, dim % len(shape), shape), why)

    def _same_inputs(self, step: Step, labels_C: Tensor) -> Tensor:
        """A layer that is called again has the channels of its first call."""
        first = self.inputs.setdefault(step.target, labels_C)
        self.labels.unite(first, labels_C, f"layer {step.target!r} is called again, on what stays")
        return first

    def _add_slots(
        self,
        step: Step,
        tensors: Sequence[str],
        role: Role,
        labels_C: Tensor,
        *,
        dim: int = 0,
        repeats: int = 1,
    ) -> None:
        for tensor in tensors:
            slot = Slot(f"{step.target}.{tensor}", dim, step.target, role, labels_C, repeats)
            if slot.tensor in self._state and (slot.tensor, dim) not in self._placed:
                self._placed.add((slot.tensor, dim))
                self.slots.append(slot)

    def _tensor(self, step: Step) -> Value:
        """A parameter or buffer of the graph: each element by itself until it meets something."""
        if step.target not in self._tensors:
            shape = self.dry[step.name].shape
            if shape.numel() > _LARGEST_FOLLOWED:
                self._tensors[step.target] = self._none(step, f"{step.target!r} is too large to be followed")
            else:
                labels = self.labels.fresh(shape.numel(), None).view(shape)
                self._tensors[step.target] = Value(labels, "")
        return self._tensors[step.target]

    def _place_tensors(self) -> None:
        for name, value in self._tensors.items():
            axes = self.labels.axes(value.labels)
            if len(axes) == 1:
                self.slots.append(Slot(name, axes[0], name, "scale", column(value.labels, axes[0])))


def names(arguments: Any) -> list[str]:
    """The nodes that are used in there."""
    if isinstance(arguments, Ref):
        return [arguments.name]
    if isinstance(arguments, dict):
        return names(list(arguments.values()))
    if isinstance(arguments, slice):
        return names([arguments.start, arguments.stop, arguments.step])
    if isinstance(arguments, list):
        return [name for part in arguments for name in names(part)]
    return []


def _as_many_dims(labels: Tensor, ndim: int) -> Tensor:
    return labels[(None,) * (ndim - labels.ndim)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
