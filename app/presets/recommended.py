"""A6: the order that the report recommends."""

from typing import Annotated

from pydantic import Field

from app.presets.base import Axis, ByteCounts, DistillingPreset, Epochs, Step


class Recommended(DistillingPreset):
    """The recommended way to so many bytes: distil a light network, prune it only if slightly too large, store 8 bits.

    The student is trained once for all sizes. A size that it keeps to leaves it unpruned; one that would take more than the
    allowed share of its parameters is infeasible: take a lighter student then.
    """

    NAME = "recommended"
    ROWS = ("A6", "C2")
    ASKS = "Which sizes does one distilled student reach in 8 bits, and what does a little pruning cost?"
    FOUND = (
        "Light architecture, then soft labels, then 8 bits; prune only if it is slightly over, at most 10 %. Distilled to "
        "10 MB and stored in 8 bits: 2.5 MB, 84 %."
    )
    SHORT = {
        "epochs": 10,
        "views": 4,
        "recovery_epochs": 2,
        "image_size": 32,
        "budgets": [130_000, 112_000, 107_000, 80_000],
        "seeds": 2,
    }

    budgets: ByteCounts = [130_000, 120_000, 112_000, 80_000]
    """Sizes of the file that is downloaded; `report/final` has about 114,000 bytes with 4 classes, 121,000 with 11."""
    recovery_epochs: Epochs = 20
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of distillation, and of the training after a cut."""

    def steps(self) -> list[Step]:
        return [
            self.distilled(self.trained(), alpha=self.alpha),
            {
                "method": "prune",
                "target": {"bytes": self.budgets[0], "bits": 8},
                "max_removed": 0.1,
                "recover": "lr_rewind",
                "training": {"epochs": self.recovery_epochs},
                "alpha": self.alpha,
            },
            {"method": "quantize", "scheme": "minmax", "bits": 8},
        ]

    def axes(self, teachers: list[str]) -> list[Axis]:
        fields = ["/steps/1/target/bytes", "/max_bytes"]
        return [{"name": "budget_bytes", "field": fields, "values": self.budgets}]
