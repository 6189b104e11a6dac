"""Low-rank factorisation of trained weights."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.layers import LayerChoice
from app.spec.steps.base import StepSpec


class Factorise(StepSpec, LayerChoice):
    """Replace layers by chains of smaller ones that compute nearly the same. Nothing is trained: fine-tune or
    distil afterwards.

    * `svd`: linear in→out into in→r and r→out, r·(in + out) weights; 1x1 convolutions likewise.
    * `spatial_svd`: a k x k convolution into k x 1, in→r, and 1 x k, r→out: r·k·(in + out).
    * `tucker2`: a k x k convolution into 1x1, in→r; k x k, r→s; 1x1, s→out: in·r + r·s·k² + s·out.
    * `auto`: `svd` for linear and 1x1, `tucker2` for k x k.

    How far is said by exactly one of `energy`, `ratio`, `budget` and `rank`. A layer that would not shrink stays
    as it is, and is named, with the reason, in the step's `details`; grouped and depthwise convolutions stay.
    """

    method: Literal["factorise"]
    scheme: Literal["auto", "svd", "spatial_svd", "tucker2"] = "auto"
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep at least this share of every weight's squared norm (of its squared singular values), with as few
    parameters as do it."""
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep at most this share of every layer's parameters, with as much energy as they hold."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """At most so many parameters in the whole network; they go where they keep the most energy."""
    rank: Annotated[int, Field(ge=1, le=65536)] | None = None
    """The same rank in every layer (Tucker-2: of inputs and outputs, each at most what the layer has)."""

    @model_validator(mode="after")
    def _one_measure(self) -> "Factorise":
        measures = ("energy", "ratio", "budget", "rank")
        given = [name for name in measures if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"factorise needs exactly one of {', '.join(measures)}, not {' and '.join(given) or 'none'}: "
                "say once how small the layers become"
            )
        return self
