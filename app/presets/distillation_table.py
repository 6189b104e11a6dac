"""E: the table that the course asked for."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import STUDENTNET, Axis, DistillingPreset, Step, points
from app.spec.networks import ArchitectureName, Student

_COURSE = {"optimizer": "adamw", "learning_rate": 1e-3, "schedule": "constant", "warmup_epochs": 0}


class DistillationTable(DistillingPreset):
    """Two teachers: the student alone, from the weaker, from the stronger.

    Five rows. The teachers' own are stage 0 of the two distilled ones (`table?rows=stages`), measured on the same photos.
    """

    NAME = "distillation_table"
    ROWS = ("E", "D2")
    ASKS = "Does a student gain by a teacher, and more by a better one?"
    FOUND = (
        "Teachers 80.09 and 88.41 (ResNet-18); students alone about 79 to 80, from the weaker 80 to 84, from the stronger "
        "82 to 84."
    )
    SHORT = {"epochs": 10, "views": 4, "image_size": 64}
    NUM_TEACHERS = (2, 2)
    BASELINE = {"row": "student alone"}

    student: ArchitectureName | Student = STUDENTNET
    """The network of the last three rows."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 20.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    ensemble: bool = False
    """A sixth row, from both teachers at once."""

    def _alone(self) -> Step:
        training = {"student": self.trained(), "epochs": self.epochs, "batch_size": self.batch_size}
        return {"method": "train", **training, **_COURSE}

    def steps(self) -> list[Step]:
        return [self._alone()]

    def axes(self, teachers: list[str]) -> list[Axis]:
        taught = {"temperature": self.temperature, "alpha": self.alpha}
        distilled = self._alone() | self.distilled(self.trained(), **taught)

        def taught_by(named: list[str]) -> dict[str, Any]:
            return {"/teachers": named, "/steps": [distilled]}

        rows = {
            "student alone": {"/steps": [self._alone()]},
            "from teacher A": taught_by(teachers[:1]),
            "from teacher B": taught_by(teachers[1:]),
        }
        if self.ensemble:
            rows["from both"] = taught_by(teachers)
        return [points("row", rows)]
