"""F7: the Taylor criterion on a plain network."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.presets.base import Axis, Criterion, Epochs, PruningPreset, Step, Values, points
from app.spec.networks import ArchitectureName, Student

_PER_EXAMPLE = "taylor, absolute per image"


class Taylor(PruningPreset):
    """The Taylor criterion against others and against chance, 30 % removed."""

    NAME = "taylor"
    ROWS = ("F7",)
    ASKS = "Which channels can go: those that a gradient finds, the small ones, or any?"
    FOUND = "Taylor on a plain CNN, 30 % removed: about 75 %, and fine-tuning adds 5 points."
    SHORT = {
        "epochs": 10,
        "finetune_epochs": 2,
        "image_size": 32,
        "seeds": 2,
        "criteria": ["random", "l2", "taylor"],
    }
    BASELINE = {"criterion": "random"}
    ITERATIONS = True

    student: ArchitectureName | Student = "report/plain"
    """The network that is trained and pruned."""
    criteria: Values[Criterion | Literal["taylor, absolute per image"]] = [
        "random",
        "l1",
        "l2",
        "bn_gamma",
        "taylor",
        "taylor_weight",
        _PER_EXAMPLE,
    ]
    """Of `prune`; and `taylor, absolute per image`, as the paper has it."""
    removed: Annotated[float, Field(ge=0.001, le=0.999)] = 0.3
    """The share of the parameters."""
    finetune_epochs: Epochs = 10

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": "random",
            "target": {"ratio": round(1 - self.removed, 9)},
            "exclude": self.exclude(),
            "recover": "finetune",
            "training": {"epochs": self.finetune_epochs},
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [points("criterion", {name: _setting(name) for name in self.criteria})]

    def baseline(self) -> dict[str, Any]:
        return self.BASELINE if "random" in self.criteria else {}


def _setting(criterion: str) -> dict[str, Any]:
    if criterion == _PER_EXAMPLE:
        return {"/steps/1/criterion": "taylor", "/steps/1/abs_per_example": True}
    return {"/steps/1/criterion": criterion}
