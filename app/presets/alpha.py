"""B16: how much of the loss should be the soft label."""

from typing import Annotated

from pydantic import Field

from app.presets.base import Axis, Epochs, Preset, Step, Values, values


class Alpha(Preset):
    """Alpha: the share of the soft label, with few samples."""

    NAME = "alpha"
    ROWS = ("B8", "B16")
    ASKS = "How much should a student listen to the teacher, and how much to the labels, when it sees few photos?"
    FOUND = "Best at 0.8; alpha 0 is plain cross-entropy. No interval was given."
    SHORT = {"epochs": 12, "image_size": 32, "alphas": [0, 0.4, 0.8, 1], "train_fraction": 0.3}

    alphas: Values[Annotated[float, Field(ge=0, le=1)]] = [0, 0.2, 0.4, 0.6, 0.8, 0.9, 1]
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The share of the training photos that the student sees."""
    epochs: Epochs = 200

    def steps(self) -> list[Step]:
        return [
            {
                "method": "distill",
                "student": self.trained(),
                "alpha": self.alphas[0],
                "temperature": self.temperature,
                "epochs": self.epochs,
                "train_fraction": self.train_fraction,
            }
        ]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [values("alpha", "/steps/0/alpha", self.alphas)]

    def baseline(self) -> dict[str, float]:
        """Hard labels alone, where they are among the points."""
        return {"alpha": 0} if 0 in self.alphas else {}
