"""F1 and F2: pruning curves at several rates, with and without fine-tuning."""

from typing import Annotated

from pydantic import Field

from app.presets.base import Axis, Criterion, Epochs, PruningPreset, Share, Step, Values, values


class PruningRates(PruningPreset):
    """Pruning curves: three rates, five cuts each, with and without fine-tuning."""

    NAME = "pruning_rates"
    ROWS = ("F1", "F2", "B1")
    ASKS = "How does accuracy fall with the parameters, and are gentler cuts better?"
    FOUND = (
        "StudentNet's 256,779 parameters fall to 171,606 by five times 0.95, to 114,810 by 0.9, to 236,066 by 0.99. Gentler "
        "looked better without fine-tuning, which it cannot be: 0.99 five times and 0.95 once leave the same network."
    )
    SHORT = {"epochs": 8, "finetune_epochs": 1, "image_size": 48, "seeds": 2}
    ITERATIONS = True

    keep_rates: Values[Share] = [0.99, 0.95, 0.9]
    """The share of the channels that each cut leaves."""
    iterations: Annotated[int, Field(ge=1, le=1000)] = 5
    finetune_epochs: Epochs = 5
    """After each cut, where there is any."""
    criterion: Criterion = "bn_gamma_signed"

    def steps(self) -> list[Step]:
        prune = {
            "method": "prune",
            "criterion": self.criterion,
            "keep_rate": self.keep_rates[0],
            "iterations": self.iterations,
            "exclude": self.exclude(),
            "recover": "none",
            "training": {"epochs": self.finetune_epochs},
        }
        return [self.pretraining(), prune]

    def axes(self, teachers: list[str]) -> list[Axis]:
        return [
            values("keep_rate", "/steps/1/keep_rate", self.keep_rates),
            values("recover", "/steps/1/recover", ["none", "finetune"]),
        ]
