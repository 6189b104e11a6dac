"""What each layer does to channels: make, read, normalise, or leave them where they are."""

import torch
from torch import nn

from ..load_artifact import Step
from .labels import Value, column
from .parts import Parts, Permutation
from .reading import names


class LayerRules(Parts):
    """One method a kind of layer: it takes the input's labels and gives the output's."""

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
