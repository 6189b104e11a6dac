"""F4, F5, F9, F10: what to do after a cut, at a quarter of the size."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import Axis, Epochs, PruningPreset, Recovering, Share, Step, Values, points


class Recoveries(PruningPreset):
    """A quarter of the size: eight ways to recover from the same cuts."""

    NAME = "recoveries"
    ROWS = ("B2", "B3", "F4", "F5", "F9", "F10")
    ASKS = "After pruning to a quarter: which retraining brings the accuracy back, and what does it cost?"
    FOUND = (
        "62,619 of 256,779 parameters (0.95 nineteen times): no retraining 64 %, once at the end 68 %, new weights after "
        "each cut 71 %. Renda et al.: rewinding is as good as new weights, and both are better than fine-tuning."
    )
    SHORT = {
        "epochs": 8,
        "recovery_epochs": 2,
        "iterations": 2,
        "keep_rate": 0.6143,
        "image_size": 48,
        "seeds": 2,
    }
    BASELINE = {"recover": "none"}

    recoveries: Values[Recovering] = [
        "none",
        "finetune",
        "reinit_once",
        "reinit_each",
        "scratch_e",
        "scratch_b",
        "weight_rewind",
        "lr_rewind",
    ]
    keep_rate: Share = 0.95
    iterations: Annotated[int, Field(ge=1, le=1000)] = 19
    recovery_epochs: Epochs = 40
    """Of each training after a cut; Scratch-B trains so many times more as the network has fewer multiply-adds."""

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": "l2",
            "keep_rate": self.keep_rate,
            "iterations": self.iterations,
            "exclude": self.exclude(),
            "recover": "none",
            "training": {"epochs": self.recovery_epochs},
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [points("recover", {recover: self._setting(recover) for recover in self.recoveries})]

    def _setting(self, recover: str) -> dict[str, Any]:
        if recover != "weight_rewind":
            return {"/steps/1/recover": recover}
        # Not to epoch 0, which is before the training: that is a re-initialisation with the first weights.
        early = min(max(1, self.recovery_epochs // 10), self.epochs, self.recovery_epochs - 1)
        return {"/steps/1/recover": recover, "/steps/1/weights_from_epoch": early}

    def baseline(self) -> dict[str, Any]:
        return self.BASELINE if "none" in self.recoveries else {}
