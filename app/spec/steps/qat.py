"""Training a network to work with few bits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import Split
from app.spec.steps.base import StepSpec
from app.spec.steps.quantize import Bits, Pattern
from app.spec.training import Training


class Qat(StepSpec, Training):
    """Quantization-aware training: the network of the step before learns, from labels and teachers, with its weights rounded
    to few bits in every forward pass; the distances between levels are learned too (Esser et al. 2020).

    Weights of convolutions and linear layers are stored in `bits`, everything else in fp16. The loss is that of `distill`.
    """

    method: Literal["qat"]
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    scheme: Literal["symmetric"] = "symmetric"
    bits: Bits = 4
    edge_bits: Bits | None = 8
    """Bits of the first and the last convolution or linear layer, which suffer most and weigh little; null: as others."""
    overrides: Annotated[dict[Pattern, Bits], Field(max_length=64)] = {}
    """Bits of the tensors whose name matches, `edge_bits` or not; of several patterns that match one, the longest counts."""
    granularity: Literal["tensor", "channel"] = "channel"
    """One step a tensor, or one for each output channel."""
    step_init: Literal["mse", "lsq"] = "mse"
    """The steps' first values: those with the least squared error, or 2 * mean|w| / sqrt(2^(bits-1) - 1) as Esser has it."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    """The share of the soft label, as in `distill`."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    combine: Literal["mean_probability", "mean_logit", "random_per_batch"] = "mean_probability"
    weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, max_length=16)] | None = None
    """One weight a teacher, normalised to sum 1; null: equal."""

    @model_validator(mode="after")
    def _weights_count(self) -> "Qat":
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights are all 0: give at least one teacher a positive weight")
        return self

    @property
    def bits_per_weight(self) -> float:
        return self.bits

    @property
    def trained_splits(self) -> list[Split]:
        return ["train"]

    @property
    def keeps_layers(self) -> bool:
        return True
