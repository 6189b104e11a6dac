"""Training from scratch on hard labels: what every compressed network is compared with."""

from typing import Literal

from app.spec.base import Split
from app.spec.networks import StudentField
from app.spec.steps.base import StepSpec
from app.spec.training import LabelledSplits, Training


class Train(StepSpec, Training):
    """Train a student on the labels alone; no teacher is asked.

    The baseline of a comparison: distillation and pruning are worth what they gain over the same network trained like this.
    """

    method: Literal["train"]
    student: StudentField
    splits: LabelledSplits = ["train"]

    @property
    def trained_splits(self) -> list[Split]:
        return list(self.splits)

    @property
    def needs_model(self) -> bool:
        return self.student.previous is not None

    @property
    def trains(self) -> bool:
        return True

    @property
    def depends_on_later_steps(self) -> bool:
        return self.student.budget is not None
