"""Setting single weights to zero."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import Split
from app.spec.layers import LayerChoice
from app.spec.steps.base import StepSpec
from app.spec.steps.quantize import Bits
from app.spec.training import Training

_STORED_BITS = {"raw": 32, "fp16": 16, "minmax": 8}


class Sparsify(StepSpec, LayerChoice):
    """Set the smallest weights to zero and store only the others: a bit an element says which they are.

    The file shrinks; the network computes as before, no faster. `layers` and `exclude` choose among convolutions and linear
    layers. A `quantize` after this step keeps the zeros.
    """

    method: Literal["sparsify"]
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """`2:4`: of four weights that follow each other along the input channels, the two smaller are removed."""
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the chosen layers' weights that is removed; null: 0.5."""
    ranking: Literal["global", "layer"] | None = None
    """Whether weights compete over all chosen layers or within each; null: global. Each layer keeps one weight at least."""
    store: Literal["raw", "fp16", "minmax"] = "fp16"
    """What the weights that stay are stored as; biases and norms are kept in fp16, or raw with `raw`."""
    bits: Bits | None = None
    """Of minmax; null: 8."""
    training: Training | None = None
    """Fine-tune on hard labels of train, with the zeros kept; null: no training."""

    @model_validator(mode="after")
    def _fields_agree(self) -> "Sparsify":
        if self.pattern == "2:4" and self.sparsity not in (None, 0.5):
            raise ValueError(
                f"pattern '2:4' removes two of four, a sparsity of 0.5, not {self.sparsity}: "
                "leave sparsity out or take pattern 'unstructured'"
            )
        if self.pattern == "2:4" and self.ranking is not None:
            raise ValueError(
                f"ranking {self.ranking!r} has no meaning with pattern '2:4', where four neighbours compete: leave it out"
            )
        if self.bits is not None and self.store != "minmax":
            raise ValueError(
                f"bits {self.bits} is for store 'minmax', and store is {self.store!r}: leave bits out or change store"
            )
        return self

    @property
    def removed_share(self) -> float:
        return 0.5 if self.sparsity is None else self.sparsity

    @property
    def stored_bits(self) -> int:
        return self.bits or _STORED_BITS[self.store]

    @property
    def bits_per_weight(self) -> float:
        return 1 + (1 - self.removed_share) * self.stored_bits

    @property
    def trained_splits(self) -> list[Split]:
        return ["train"] if self.training is not None else []

    @property
    def keeps_layers(self) -> bool:
        return True
