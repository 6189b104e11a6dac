"""A1, B17 and C4: one teacher, one size, every method."""

from typing import Any

from app.presets.base import Axis, DistillingPreset, Epochs, Step, points
from app.spec.budget import Bytes
from app.spec.networks import ArchitectureName, Student

_EIGHT_BITS: Step = {"method": "quantize", "scheme": "minmax", "bits": 8}


class SameSize(DistillingPreset):
    """One teacher, one size: every method side by side, with a control, and with those that cannot reach it.

    The size is a gate of each job (`max_bytes`): a method that has no size to choose, as 8 bits, says by `passed` whether
    it kept to it. A method that has one and cannot reach it is infeasible.
    """

    NAME = "same_size"
    ROWS = ("A1", "B5", "B17", "C4")
    ASKS = "A file of one size: is it best pruned, quantized or distilled, and what cannot get there?"
    FOUND = (
        "At a quarter of 40.7 MB: original 88, pruned 85, quantized 86, distilled 86.5. At 1 MB only distillation gets "
        "there directly. Weights cast to integers: the accuracy collapses."
    )
    SHORT = {
        "target_bytes": 250_000,
        "epochs": 8,
        "views": 4,
        "retraining_epochs": 1,
        "image_size": 32,
        "seeds": 2,
    }
    NUM_TEACHERS = (1, 1)
    BASELINE = {"way": "distilled"}

    student: ArchitectureName | Student = "report/plain"
    """Of the two distilled rows, as wide as the size allows (a name, or a student without `width` and `budget`)."""
    target_bytes: Bytes = 1_000_000
    retraining_epochs: Epochs = 20
    """Of the teacher, once it is pruned."""

    def _distilled(self, bits: int) -> Step:
        student = self.trained() | {"budget": {"bytes": self.target_bytes, "bits": bits}}
        return self.distilled(student)

    def _pruned(self, bits: int) -> Step:
        return {
            "method": "prune",
            "target": {"bytes": self.target_bytes, "bits": bits},
            "recover": "lr_rewind",
            "training": {"epochs": self.retraining_epochs},
        }

    def steps(self) -> list[Step]:
        return [self._distilled(32)]

    def job(self) -> dict[str, Any]:
        return {"steps": self.steps(), "max_bytes": self.target_bytes}

    def axes(self, teachers: list[str]) -> list[Axis]:
        ways: dict[str, list[Step]] = {
            "distilled": [self._distilled(32)],
            "distilled, 8 bits": [self._distilled(8), _EIGHT_BITS],
            "pruned": [self._pruned(32)],
            "pruned, 8 bits": [self._pruned(8), _EIGHT_BITS],
            "pruned by a tenth at most": [self._pruned(32) | {"max_removed": 0.1}],
            "8 bits": [_EIGHT_BITS],
            "2 bits": [_EIGHT_BITS | {"bits": 2}],
            "cast to integers": [{"method": "quantize", "scheme": "cast"}],
        }
        return [points("way", {way: {"/steps": steps} for way, steps in ways.items()})]
