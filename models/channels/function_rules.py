"""What each function does to channels: join, part, pick, meet, sum up."""

from typing import Any

import torch
from torch import Tensor

from ..load_artifact import Ref, Step, _getitem
from .labels import Value, column, spread
from .parts import Parts
from .reading import index_by_dim


class FunctionRules(Parts):
    """One method a function: it takes the arguments by name, numbers computed, and gives the result's labels."""

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
        if (a_is_spread and axes_a) or (b_is_spread and axes_b):
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


def _as_many_dims(labels: Tensor, ndim: int) -> Tensor:
    return labels[(None,) * (ndim - labels.ndim)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
