"""Runs a network on labels: where every channel goes, and what must be removed together.

One rule a layer or function. Shape functions are simply executed on the labels; a convolution reads the labels
of its input columns and gives new ones to its outputs; what computes element by element unites the labels
that meet. What is in no rule keeps its inputs whole, with a reason that names the node.
"""

import torch

from ..load_artifact import Network, Step
from .function_rules import FunctionRules
from .layer_rules import LayerRules
from .reading import bind, resolve
from .shape_rules import SHAPE_FUNCTIONS, ShapeRules

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


class Flow(LayerRules, FunctionRules, ShapeRules):
    """The labels of every value of `network`, after a run."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        for position, step in enumerate(self.steps):
            if position not in self._done:
                self._run(position, step)
        self._settle()

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
        if name in SHAPE_FUNCTIONS:
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
