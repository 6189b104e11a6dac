"""Knowledge distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.spec.base import Split
from app.spec.networks import StudentField
from app.spec.steps.base import StepSpec
from app.spec.training import Training


class Distill(StepSpec, Training):
    """Train a small student on the labels and on the teachers' outputs.

    loss = (1 - alpha) * CE(student, label) + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T))

    alpha is the share of the *soft* label: 0 is plain cross-entropy, 1 is soft labels only. CE averages over the labelled
    images of a batch, KL over all of them. Teacher and student see the same augmented view.
    """

    method: Literal["distill"]
    student: StudentField
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    combine: Literal["mean_probability", "mean_logit"] = "mean_probability"
    """How several teachers become one target."""
    weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, max_length=16)] | None = None
    """One weight a teacher, normalised to sum 1; null: equal."""
    transfer_splits: Annotated[list[Split], Field(min_length=1, max_length=4)] = ["train"]

    @model_validator(mode="after")
    def _fields_agree(self) -> "Distill":
        if self.alpha == 0 and "unlabeled" in self.transfer_splits:
            raise ValueError(
                "alpha 0 uses hard labels only, and the split 'unlabeled' has none: raise alpha or drop 'unlabeled'"
            )
        if self.alpha < 1 and set(self.transfer_splits) == {"unlabeled"}:
            raise ValueError(
                "transfer_splits holds only 'unlabeled', which has no hard labels: set alpha to 1"
            )
        if len(set(self.transfer_splits)) != len(self.transfer_splits):
            raise ValueError("transfer_splits names a split twice: name each once")
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights are all 0: give at least one teacher a positive weight")
        return self

    @property
    def trained_splits(self) -> list[Split]:
        return list(self.transfer_splits)

    @property
    def needs_model(self) -> bool:
        return self.student.previous is not None

    @property
    def trains(self) -> bool:
        return True
