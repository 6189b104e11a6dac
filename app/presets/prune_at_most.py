"""F11: where to stop."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import Axis, Epochs, PruningPreset, Share, Step, points
from app.spec.networks import ArchitectureName, Student

_EVERY_CUT = "every cut"


class PruneAtMost(PruningPreset):
    """Rules to stop pruning: a share of the parameters, or points of accuracy."""

    NAME = "prune_at_most"
    ROWS = ("F11", "B1")
    ASKS = "How far does pruning go for free?"
    FOUND = "Prune at most 10 %: beyond that the accuracy falls a lot."
    SHORT = {"epochs": 10, "finetune_epochs": 1, "iterations": 5, "image_size": 32, "seeds": 2}
    BASELINE = {"rule": _EVERY_CUT}
    ITERATIONS = True

    student: ArchitectureName | Student = "report/final"
    """The network that is trained and pruned."""
    shares: Annotated[list[Share], Field(max_length=10)] = [0.1]
    """Rules of the kind "at most this share of the parameters is removed"."""
    drops: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=10)] = [0.01, 0.02, 0.05]
    """Rules of the kind "until accuracy on val is more than this below the beginning's": 0.02 is two points."""
    keep_rate: Share = 0.95
    iterations: Annotated[int, Field(ge=1, le=1000)] = 15
    finetune_epochs: Epochs = 5

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": "l2",
            "keep_rate": self.keep_rate,
            "iterations": self.iterations,
            "exclude": self.exclude(),
            "recover": "finetune",
            "training": {"epochs": self.finetune_epochs},
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        rules: dict[str, dict[str, Any]] = {_EVERY_CUT: {"/steps/1/max_removed": None}}
        for share in self.shares:
            rules[f"at most {100 * share:g} % removed"] = {"/steps/1/max_removed": share}
        for drop in self.drops:
            rules[f"until {100 * drop:g} points are lost"] = {"/steps/1/stop_if_accuracy_drops": drop}
        return [points("rule", rules)]
