"""Training the network of the step before a little further."""

from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import Split
from app.spec.steps.base import StepSpec
from app.spec.training import LabelledSplits, Training


class Finetune(StepSpec, Training):
    """Train the network of the step before on the labels, from the weights it has.

    A small constant rate, as Liu et al. 2019 (https://arxiv.org/abs/1810.05270) fine-tune. In the first step it trains a
    copy of the one teacher.
    """

    method: Literal["finetune"]
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    schedule: Literal["cosine", "constant", "step", "one_cycle"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] = 0.0
    splits: LabelledSplits = ["train"]

    @property
    def trained_splits(self) -> list[Split]:
        return list(self.splits)

    @property
    def trains(self) -> bool:
        return True

    @property
    def keeps_layers(self) -> bool:
        return True
