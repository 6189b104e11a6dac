"""Storing weights in fewer bits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.steps.base import StepSpec


class Quantize(StepSpec):
    """Store each tensor in fewer bits; the network computes in fp32 with the values that were stored.

    * `fp16`: half precision.
    * `minmax`: unsigned integers between the tensor's minimum and maximum, one pair a tensor; error at most
      (max - min) / (2 * (2^bits - 1)) an element.
    * `cast`: the number is truncated to an integer. A negative control: it destroys a network.
    """

    method: Literal["quantize"]
    scheme: Literal["fp16", "minmax", "cast"] = "minmax"
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    """Null: the scheme's own (fp16: 16, minmax: 8, cast: 8)."""
    tensors: Literal["all", "weights"] = "weights"
    """`weights`: tensors of two or more dimensions; biases and norms are kept in fp16. `all`: every floating-point tensor
    that is not a scalar, as the course's 8-bit files have it."""

    @model_validator(mode="after")
    def _bits_fit_the_scheme(self) -> "Quantize":
        allowed = {"fp16": 16, "minmax": 8, "cast": 8}[self.scheme]
        if self.bits is not None and self.bits != allowed:
            raise ValueError(
                f"scheme {self.scheme!r} stores {allowed} bits, not {self.bits}: leave bits out or change scheme"
            )
        return self
