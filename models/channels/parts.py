"""What the rules share: the labels found so far, and how values are read, carried on and kept."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..load_artifact import Network, Ref, Step
from .labels import NONE, Labels, Value, column, spread
from .reading import NUM_IMAGES, dry_values, names

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
    """The steps at these positions together are `source.index_select(dim, order)`."""

    positions: list[int]
    source: str
    dim: int
    order: Tensor


class Parts:
    """The labels of a network's values, as far as its steps have been run."""

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

    def layer_type(self, step: Step) -> str | None:
        return type(self._blueprint.get_submodule(step.target)).__name__ if step.op == "layer" else None

    def follows_the_batch(self, name: str) -> bool:
        """Whether this number is another one for another number of images."""
        return bool(dry_values(self._blueprint, NUM_IMAGES + 1)[name] != self.dry[name])

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

    def _settle(self) -> None:
        """Find out along which dimension the channels of every value and tensor lie."""
        for value in self.values.values():
            for part in value if isinstance(value, tuple) else (value,):
                if part is not None:
                    self.axis(part)
        for name, value in self._tensors.items():
            axes = self.labels.axes(value.labels)
            if len(axes) == 1:
                self.slots.append(Slot(name, axes[0], name, "scale", column(value.labels, axes[0])))
