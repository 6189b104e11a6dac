"""B7: how few bits a weight needs."""

from typing import Any, Literal

from app.presets.base import Axis, DistillingPreset, Step, Values, points
from app.spec.budget import StoredBits


class Bits(DistillingPreset):
    """One network stored in 32, 16, 8, … 2 bits."""

    NAME = "bits"
    ROWS = ("B6", "B7")
    ASKS = "How few bits a weight can a network be stored in?"
    FOUND = "16 bits halve and 8 bits quarter the file with little loss: 86 % of 88 % at 8 bits."
    SHORT = {"epochs": 12, "views": 4, "image_size": 32, "bits": [32, 16, 8, 6, 5, 4, 3, 2]}
    BASELINE = {"bits": "32"}

    bits: Values[StoredBits] = [32, 16, 8, 7, 6, 5, 4, 3, 2]
    granularity: Literal["tensor", "channel"] = "tensor"
    """Of 8 bits and fewer: one grid a tensor, or one for each output channel."""

    def steps(self) -> list[Step]:
        return [self.distilled(self.trained())]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [points("bits", {str(bits): {"/steps": self._stored(bits)} for bits in self.bits})]

    def _stored(self, bits: int) -> list[Step]:
        if bits == 32:
            return self.steps()
        if bits == 16:
            return [*self.steps(), {"method": "quantize", "scheme": "fp16"}]
        grid = {"method": "quantize", "scheme": "minmax", "bits": bits, "granularity": self.granularity}
        return [*self.steps(), grid]

    def baseline(self) -> dict[str, Any]:
        return self.BASELINE if 32 in self.bits else {}
