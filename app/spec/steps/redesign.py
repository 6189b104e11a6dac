"""Convolutions split into a cheap spatial one and a pointwise one (the report's architecture design)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.layers import LayerChoice
from app.spec.steps.base import StepSpec


class Redesign(StepSpec, LayerChoice):
    """Split every k x k convolution of one group, in→out, into two. Nothing is trained: distil or fine-tune afterwards.

    * `depthwise`: k x k on each channel by itself, then 1x1 in→out: in·k² + in·out weights instead of in·out·k².
    * `grouped`: k x k in→in in `groups`, then 1x1 in→out: in²·k²/groups + in·out weights.

    The pieces of `conv` are named `conv.depthwise` (or `conv.grouped`) and `conv.pointwise`.
    """

    method: Literal["redesign"]
    kind: Literal["depthwise", "grouped"] = "depthwise"
    groups: Literal["in", "in/2", "in/4", "in/8"] | Annotated[int, Field(ge=1, le=65536)] | None = None
    """For `grouped`: a number, or the input channels divided by 1, 2, 4 or 8; it must divide the input channels of every
    convolution that is split. 1 is a full k x k convolution in→in with a 1x1 behind it."""
    keep_first: Annotated[int, Field(ge=0, le=10_000)] = 0
    """So many of these convolutions, in the order of the network, stay as they are. The first ones see few
    channels: splitting them saves little and costs much."""
    norm_between: bool = False
    """Put a batch norm and an activation between the two pieces, as the report and MobileNet have them. The ones that follow
    the convolution alone move there; what is missing is new (BatchNorm2d, ReLU). No start is exact then."""
    initialise: Literal["svd", "new"] = "svd"
    """`svd`: the two pieces that come nearest to the trained convolution (per group of channels, in least squares).
    `new`: PyTorch's own random weights; everything else keeps its weights."""

    @model_validator(mode="after")
    def _groups_belong_to_grouped(self) -> "Redesign":
        if self.kind == "grouped" and self.groups is None:
            raise ValueError(
                "kind 'grouped' needs groups: give 'in', 'in/2', 'in/4', 'in/8' or a number that divides the channels"
            )
        if self.kind == "depthwise" and self.groups is not None:
            raise ValueError(
                f"groups is {self.groups!r}, and kind 'depthwise' has one group a channel: "
                "leave groups out or set kind 'grouped'"
            )
        return self

    @model_validator(mode="after")
    def _colours_can_be_grouped(self) -> "Redesign":
        # A network that begins otherwise is split by naming its layers; the worker then looks at the real channels.
        names_layers = bool({"layers", "exclude"} & self.model_fields_set)
        if self.groups not in (None, "in", 1, 3) and self.keep_first == 0 and not names_layers:
            raise ValueError(
                f"groups must divide in and out channels, and {self.groups!r} does not divide the 3 colours that the first "
                "convolution sees: set keep_first to 1 or more, or say with layers or exclude which ones are split"
            )
        return self
