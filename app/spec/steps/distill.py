"""Knowledge distillation (Hinton et al. 2015, https://arxiv.org/abs/1503.02531) and its descendants."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.spec.base import Spec, Split
from app.spec.networks import StudentField
from app.spec.steps.base import StepSpec
from app.spec.training import Training

NodeName = Annotated[str, Field(min_length=1, max_length=512)]
Weight = Annotated[float, Field(ge=0, le=1e6)]

# Beyer et al. 2022, https://arxiv.org/abs/2106.05237: teacher and student see the same blend of strong crops, no labels, for
# very long; the last weights count, so that nothing is picked on val.
_FUNCTION_MATCHING: dict[str, Any] = {
    "alpha": 1.0,
    "augmentation": "strong",
    "mixup": 1.0,
    "schedule": "cosine",
    "epochs": 300,
    "select": "last",
}


class Hint(Spec):
    """The student's value at one node of its graph learns from a teacher's at one of its own.

    * `hint`: the mean squared error after a 1x1 convolution, trained with the student, that gives the student's map the
      teacher's channels (FitNets, Romero et al. 2015, https://arxiv.org/abs/1412.6550).
    * `attention`: the squared distance of the maps of mean squared activation, each of norm 1 (Zagoruyko and Komodakis
      2017, https://arxiv.org/abs/1612.03928).

    Maps of different sizes are averaged down to the smaller height and width.
    """

    student: NodeName
    """A node of the student's graph (docs/formats.md)."""
    teacher: NodeName
    """A node of that teacher's graph."""
    teacher_index: Annotated[int, Field(ge=0, le=15)] = 0
    """The position of the teacher in the job's `teachers`."""
    kind: Literal["hint", "attention"] = "hint"
    weight: Weight = 1.0


class SoftLabelCache(Spec):
    """A speed mode: each view of an image is shown to the teachers once, and what they said is kept for later epochs.

    Epoch e shows view e mod `views` of each image. Few views are memorised by a student (the report's B11 to B15), so this
    buys time with accuracy.
    """

    views: Annotated[int, Field(ge=1, le=10_000)] = 1
    normalise: Literal["none", "temperature", "zscore"] = "none"
    """What is kept of a teacher's logits: as they are; softmax(logits / temperature); or each row with mean 0 and
    standard deviation 1, from which the student then learns."""
    dtype: Literal["float32", "float16"] = "float32"
    keep: bool = False
    """Offer the labels of the plain view for download, as a file that can be registered as a teacher."""


class Distill(StepSpec, Training):
    """Train a small student on the labels and on the teachers' outputs.

    loss = (1 - alpha) * CE(student, label) + alpha * soft + sum of the hints' weight * loss

    alpha is the share of the *soft* label: 0 is plain cross-entropy, 1 is soft labels only. CE averages over the labelled
    images of a batch, the soft term over all of them. Teacher and student see the same augmented view. Soft terms:

    * `kd`: T^2 * KL(softmax(teacher / T) || softmax(student / T)).
    * `dkd`: T^2 * (dkd_target_weight * KL of the target class against the rest + dkd_other_weight * KL among the rest)
      (Zhao et al. 2022, https://arxiv.org/abs/2203.08679; alpha and beta there). An image without a label has the
      teachers' first class as its target.
    * `dist`: T^2 * (dist_inter_weight * (1 - correlation over classes) + dist_intra_weight * (1 - correlation over the
      batch)) (Huang et al. 2022, https://arxiv.org/abs/2205.10536; beta and gamma there).
    """

    method: Literal["distill"]
    student: StudentField
    recipe: Literal["function_matching"] | None = None
    """Sets what is not given: `function_matching` (Beyer et al. 2022, https://arxiv.org/abs/2106.05237) is alpha 1,
    strong augmentation, mixup 1, a cosine of 300 epochs, and the last weights."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    temperature: Annotated[float, Field(gt=0, le=100)] = 4.0
    loss: Literal["kd", "dkd", "dist"] = "kd"
    standardize_logits: bool = False
    """Teachers' and student's logits get mean 0 and standard deviation 1 before the softmax of the soft term (Sun et al.
    2024, https://arxiv.org/abs/2403.01427)."""
    dkd_target_weight: Weight = 1.0
    dkd_other_weight: Weight = 8.0
    dist_inter_weight: Weight = 1.0
    dist_intra_weight: Weight = 1.0
    combine: Literal["mean_probability", "mean_logit", "random_per_batch"] = "mean_probability"
    """How several teachers become one target; `random_per_batch` draws one for each batch."""
    weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, max_length=16)] | None = None
    """One weight a teacher, normalised to sum 1; null: equal. Under `random_per_batch` they are probabilities."""
    transfer_splits: Annotated[list[Split], Field(min_length=1, max_length=4)] = ["train"]
    hints: Annotated[list[Hint], Field(max_length=16)] = []
    soft_labels: SoftLabelCache | None = None

    @model_validator(mode="before")
    @classmethod
    def _recipe_fills_in(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("recipe") == "function_matching":
            return {**_FUNCTION_MATCHING, **fields}
        return fields

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

    @model_validator(mode="after")
    def _loss_fits(self) -> "Distill":
        for loss in ("dkd", "dist"):
            given = sorted(name for name in self.model_fields_set if name.startswith(f"{loss}_"))
            # Only what differs: a resolved spec names every field.
            changed = [name for name in given if getattr(self, name) != type(self).model_fields[name].default]
            if changed and self.loss != loss:
                raise ValueError(f"{changed[0]} belongs to loss '{loss}', not '{self.loss}': leave it out")
        if self.loss == "dkd" and self.dkd_target_weight == self.dkd_other_weight == 0:
            raise ValueError("dkd_target_weight and dkd_other_weight are both 0: raise one")
        if self.loss == "dist" and self.dist_inter_weight == self.dist_intra_weight == 0:
            raise ValueError("dist_inter_weight and dist_intra_weight are both 0: raise one")
        if self.loss == "dkd" and self.mixup:
            raise ValueError(
                f"loss 'dkd' splits at an image's one class, and mixup {self.mixup} blends images of two: "
                "set mixup to 0 or loss to 'kd'"
            )
        return self

    @model_validator(mode="after")
    def _cache_fits(self) -> "Distill":
        cache = self.soft_labels
        if cache is None:
            return self
        if self.alpha == 0:
            raise ValueError("soft_labels are not used at alpha 0: raise alpha or leave soft_labels out")
        if self.mixup:
            raise ValueError(
                f"soft_labels keeps answers for later epochs, and mixup {self.mixup} never shows the same blend twice: "
                "set mixup to 0 or leave soft_labels out"
            )
        if self.hints:
            raise ValueError(
                "hints need the teachers' inner values, which soft_labels does not keep: leave one of them out"
            )
        if cache.views > self.epochs:
            raise ValueError(
                f"soft_labels.views {cache.views} are more than the {self.epochs} epochs can show: "
                "lower views or raise epochs"
            )
        if self.augmentation == "none" and cache.views > 1:
            raise ValueError(
                f"soft_labels.views {cache.views} would all be the same under augmentation 'none': set views to 1 or augment"
            )
        return self

    @property
    def trained_splits(self) -> list[Split]:
        return list(self.transfer_splits)

    @property
    def needs_model(self) -> bool:
        return self.student.previous is True

    @property
    def trains(self) -> bool:
        return True

    @property
    def depends_on_later_steps(self) -> bool:
        return self.student.budget is not None

    def class_errors(self, num_classes: int) -> list[tuple[str, str]]:
        if num_classes > 2 or self.alpha == 0:
            return []
        always = "are always 0.71 and -0.71, whatever the teacher says"
        rules = [
            (
                self.loss == "dkd",
                "loss",
                "dkd compares the classes other than the target, and of 2 classes there is only one: set loss to 'kd'.",
            ),
            (
                self.loss == "dist" and self.dist_inter_weight > 0,
                "dist_inter_weight",
                "The correlation over 2 classes is always 1 or -1, whatever the teacher says: set it to 0.",
            ),
            (
                self.standardize_logits,
                "standardize_logits",
                f"2 standardised logits {always}: set it to false.",
            ),
            (
                self.soft_labels is not None and self.soft_labels.normalise == "zscore",
                "soft_labels/normalise",
                f"2 standardised logits {always}: set it to 'none'.",
            ),
        ]
        return [(field, message) for is_wrong, field, message in rules if is_wrong]
