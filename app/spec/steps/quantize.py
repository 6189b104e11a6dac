"""Storing weights in fewer bits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import Split
from app.spec.steps.base import StepSpec

_BITS = {"fp16": 16, "bf16": 16, "float8": 8, "minmax": 8, "symmetric": 8, "codebook": 4, "cast": 8}
_GRIDS = ("minmax", "symmetric")
_ANY_BITS = (*_GRIDS, "codebook")

Bits = Annotated[int, Field(ge=2, le=8)]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
"""Of tensor names, as in a shell: `*` is any text, `?` one letter, `[abc]` one of these."""


class Quantize(StepSpec):
    """Store each tensor in fewer bits; the network computes in fp32 with the values that were stored.

    * `fp16`, `bf16`: half precision, and the upper half of fp32.
    * `float8`: floating point with 4 bits of exponent and 3 of mantissa (e4m3), under one scale a tensor.
    * `minmax`: unsigned integers between the minimum and the maximum; error at most (max - min) / (2 * (2^bits - 1)) an
      element.
    * `symmetric`: signed integers times a step; 0 stays 0.
    * `codebook`: the 2^bits values that k-means finds for a tensor.
    * `cast`: the number is truncated to an integer. A negative control: it destroys a network.

    Zeros of a sparse tensor stay 0 and cost a bit each, whatever the scheme, except `cast`.
    """

    method: Literal["quantize"]
    scheme: Literal["fp16", "bf16", "float8", "minmax", "symmetric", "codebook", "cast"] = "minmax"
    bits: Annotated[int, Field(ge=2, le=16)] | None = None
    """2 to 8 for minmax, symmetric and codebook. Null: the scheme's own (fp16, bf16: 16; float8, minmax, symmetric, cast: 8;
    codebook: 4)."""
    granularity: Literal["tensor", "channel"] = "tensor"
    """One grid a tensor, or one for each of a weight's output channels. For minmax and symmetric."""
    clip: Literal["none", "mse"] = "none"
    """`mse`: a grid narrower than the weights' range where that lowers the squared error. For minmax and symmetric."""
    rounding: Literal["nearest", "adaround"] = "nearest"
    """`adaround`: up or down so that each layer's output on calibration images stays close (Nagel et al. 2020). For minmax
    and symmetric; weights of convolutions and linear layers."""
    bias_correction: bool = False
    """Restore the mean output of each channel of each convolution and linear layer on calibration images, by its bias (or
    the batch norm after it; Nagel et al. 2019)."""
    calibration_images: Annotated[int, Field(ge=8, le=10_000)] = 256
    """Drawn from train, for adaround and bias_correction."""
    overrides: Annotated[dict[Pattern, Bits], Field(max_length=64)] = {}
    """Bits of the tensors whose name matches; of several patterns that match one, the longest counts. For minmax, symmetric
    and codebook."""
    tensors: Literal["all", "weights"] = "weights"
    """`weights`: tensors of two or more dimensions; biases and norms are kept in fp16. `all`: every floating-point tensor
    that is not a scalar, as the course's 8-bit files have it."""

    @model_validator(mode="after")
    def _bits_fit_the_scheme(self) -> "Quantize":
        own = _BITS[self.scheme]
        if self.scheme in _ANY_BITS:
            if self.bits is not None and self.bits > 8:
                raise ValueError(
                    f"scheme {self.scheme!r} stores 2 to 8 bits, not {self.bits}: lower bits or take scheme 'fp16'"
                )
        elif self.bits not in (None, own):
            raise ValueError(
                f"scheme {self.scheme!r} stores {own} bits, not {self.bits}: leave bits out or change scheme"
            )
        return self

    @model_validator(mode="after")
    def _fields_fit_the_scheme(self) -> "Quantize":
        asked = {
            "granularity": self.granularity == "channel",
            "clip": self.clip == "mse",
            "rounding": self.rounding == "adaround",
        }
        for field, is_asked in asked.items():
            if is_asked and self.scheme not in _GRIDS:
                raise ValueError(
                    f"{field} {getattr(self, field)!r} needs a grid and scheme {self.scheme!r} has none: "
                    "take scheme 'minmax' or 'symmetric'"
                )
        if self.overrides and self.scheme not in _ANY_BITS:
            raise ValueError(
                f"overrides chooses bits and scheme {self.scheme!r} has only {_BITS[self.scheme]}: "
                "drop it or take scheme 'minmax', 'symmetric' or 'codebook'"
            )
        if self.bias_correction and self.scheme == "cast":
            raise ValueError(
                "bias_correction would soften the negative control: drop it or change scheme 'cast'"
            )
        return self

    @property
    def stored_bits(self) -> int:
        return self.bits or _BITS[self.scheme]

    @property
    def bits_per_weight(self) -> float:
        return self.stored_bits

    @property
    def calibrates(self) -> bool:
        """Whether images are needed."""
        return self.rounding == "adaround" or self.bias_correction

    @property
    def trained_splits(self) -> list[Split]:
        return ["train"] if self.calibrates else []

    @property
    def keeps_layers(self) -> bool:
        return True
