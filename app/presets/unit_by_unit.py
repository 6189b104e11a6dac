"""F6: the gentlest cut there is."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import Axis, Criterion, PruningPreset, Step, Values, values
from app.spec.networks import ArchitectureName, Student


class UnitByUnit(PruningPreset):
    """One unit at a time, anywhere in the network, without retraining."""

    NAME = "unit_by_unit"
    ROWS = ("F6",)
    ASKS = "How many single channels can go before the accuracy does, and who chooses them best?"
    FOUND = "The rate went to 0.999…, which is one unit a step; no figure is left of it."
    SHORT = {"epochs": 10, "iterations": 24, "image_size": 32, "seeds": 2}
    BASELINE = {"criterion": "random"}
    ITERATIONS = True

    student: ArchitectureName | Student = "report/final"
    """The network that is trained and pruned."""
    criteria: Values[Criterion] = ["random", "l2", "bn_gamma"]
    iterations: Annotated[int, Field(ge=1, le=1000)] = 100
    """Units that go."""

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": self.criteria[0],
            "units": 1,
            "iterations": self.iterations,
            "exclude": self.exclude(),
            "recover": "none",
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [values("criterion", "/steps/1/criterion", self.criteria)]

    def baseline(self) -> dict[str, Any]:
        return self.BASELINE if "random" in self.criteria else {}
