"""F3: what the epochs of fine-tuning do, and what they did in the course's code."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import Axis, Epochs, PruningPreset, Share, Step, Values, points, values


class FinetuneEpochs(PruningPreset):
    """Fine-tuning after each cut: how many epochs, and whether the optimizer knows the new weights."""

    NAME = "finetune_epochs"
    ROWS = ("F3",)
    ASKS = "Do more epochs of fine-tuning after each cut help?"
    FOUND = (
        "Little: but the course's code never rebuilt its optimizer after a cut, so that fine-tuning moved the running "
        "statistics alone. Both are here."
    )
    SHORT = {"epochs": 8, "finetune_epochs": [1, 3], "iterations": 2, "image_size": 48, "seeds": 2}
    ITERATIONS = True

    finetune_epochs: Values[Epochs] = [1, 2, 5, 10]
    keep_rate: Share = 0.9
    iterations: Annotated[int, Field(ge=1, le=1000)] = 5

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": "bn_gamma_signed",
            "keep_rate": self.keep_rate,
            "iterations": self.iterations,
            "exclude": self.exclude(),
            "recover": "finetune",
            "training": {"epochs": self.finetune_epochs[0]},
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        optimizer: dict[str, dict[str, Any]] = {
            "rebuilt": {"/steps/1/compat": None},
            "stale, as in the course's code": {"/steps/1/compat": "stale_optimizer"},
        }
        return [
            values("finetune_epochs", "/steps/1/training/epochs", self.finetune_epochs),
            points("optimizer", optimizer),
        ]
