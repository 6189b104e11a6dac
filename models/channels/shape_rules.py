"""Shape functions: executed on the labels as they are; only a channel dimension that is split needs thought."""

from typing import Any

import torch
from torch import Tensor

from ..load_artifact import Step
from .labels import Value, column
from .parts import Parts, Permutation
from .reading import bind, names, resolve

SHAPE_FUNCTIONS = {"view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "expand"}
_REARRANGING = (SHAPE_FUNCTIONS - {"expand"}) | {"contiguous"}


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


class ShapeRules(Parts):
    """View, permute and their kind, and channel shuffles written with them."""

    def _rearrange(self, position: int, step: Step, value: Value) -> None:
        """View, permute and their kind. A split channel dimension that comes back as a permutation (a channel
        shuffle) couples nothing; any other couples the channels along the outer of the new dimensions."""
        labels = rearrange(step, self.layer_type(step), self.dry[step.name], value.labels, self.dry)
        axes = self.labels.axes(labels)
        # A parameter that has met nothing yet changes along several; what it meets will tell.
        if len(axes) <= 1 or len(self.labels.axes(value.labels)) > 1:
            self.values[step.name] = Value(labels, value.why)
            return
        permutation = self._permutation(position, step, value)
        if permutation is not None:
            self.permutations.append(permutation)
            self._done.update(permutation.positions)
            shuffled = value.labels.index_select(permutation.dim, permutation.order)
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
