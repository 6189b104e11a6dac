"""B9 to B15: hard and soft labels, with and without regularisation, with more and less data."""

from typing import Annotated, Any

from pydantic import Field

from app.presets.base import Axis, Epochs, Preset, Step, Values, points, values
from app.spec.networks import ArchitectureName, Student

_WITHOUT = {"/steps/0/augmentation": "none", "/steps/0/dropout": 0}


class Regularisation(Preset):
    """Hard or soft labels, with or without dropout and augmentation, with more and less data."""

    NAME = "regularisation"
    ROWS = ("B9", "B10", "B11", "B12", "B13", "B14", "B15")
    ASKS = "What do dropout and augmentation, soft labels, and more photos each do for a student?"
    FOUND = (
        "Hard labels: 84 % with, 60 % without dropout and augmentation. Without them soft labels beat hard ones by more "
        "than 10 points and still overfit; more data helps; unlabelled photos alone were memorised."
    )
    SHORT = {"epochs": 6, "image_size": 32, "train_fractions": [0.1, 0.4], "seeds": 2}

    student: ArchitectureName | Student = "report/plain"
    """Without dropout layers of its own, only augmentation makes the difference."""
    epochs: Epochs = 200
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    train_fractions: Values[Annotated[float, Field(gt=0, le=1)]] = [0.1, 0.3, 1]
    unlabeled: bool = False
    """The data set has a split `unlabeled`: a further kind of labels, soft ones of those photos alone."""

    def steps(self) -> list[Step]:
        return [
            {
                "method": "distill",
                "student": self.trained(),
                "alpha": 0,
                "temperature": self.temperature,
                "epochs": self.epochs,
                "transfer_splits": ["train"],
            }
        ]

    def axes(self, teachers: list[str]) -> list[Axis]:
        kinds: dict[str, dict[str, Any]] = {"hard": {"/steps/0/alpha": 0}, "soft": {"/steps/0/alpha": 1}}
        if self.unlabeled:
            kinds["soft, unlabelled photos only"] = {
                "/steps/0/alpha": 1,
                "/steps/0/transfer_splits": ["unlabeled"],
            }
        return [
            points("labels", kinds),
            points("regularisation", {"with": {"/steps/0/augmentation": "light"}, "without": _WITHOUT}),
            values("train_fraction", "/steps/0/train_fraction", self.train_fractions),
        ]

    def baseline(self) -> dict[str, Any]:
        return {"labels": "hard", "regularisation": "with", "train_fraction": max(self.train_fractions)}
