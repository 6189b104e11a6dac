"""The knobs of the one training loop; every step that trains inherits them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from app.spec.base import Spec, Split


def _each_once_and_labelled(splits: list[Split]) -> list[Split]:
    if "unlabeled" in splits:
        raise ValueError(
            "splits names 'unlabeled', and this step learns from labels alone: drop it, or use the step 'distill' "
            "(its student may be 'previous')"
        )
    if len(set(splits)) != len(splits):
        raise ValueError("splits names a split twice: name each once")
    return splits


LabelledSplits = Annotated[
    list[Split], Field(min_length=1, max_length=3), AfterValidator(_each_once_and_labelled)
]
"""What a step trains on that knows hard labels only."""


class Training(Spec):
    """How weights are trained. Field names follow PyTorch where PyTorch has one."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 30
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "constant", "step", "one_cycle"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] = 1.0
    augmentation: Literal["none", "light", "strong"] = "light"
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Images are blended in pairs with a share drawn from Beta(mixup, mixup) (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412), their labels likewise; teacher and student see the same blend. 0: off."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The probability of every Dropout and Dropout2d layer while this step trains; null leaves the network's own."""
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of the training images that is used: stratified by class, the same ones for the same seed."""
    precision: Literal["fp32", "amp_bf16", "amp_fp16"] = "fp32"
    select: Literal["best", "last"] = "best"
    """Which epoch's weights become the result: the best on val (optimistic there; test stays honest) or the last."""
    best_k: Annotated[int, Field(ge=1, le=100)] = 5
    """The report's metric, the mean validation accuracy of the best k epochs, is noted beside best and last."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Training":
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            if "warmup_epochs" in self.model_fields_set:
                raise ValueError(
                    f"warmup_epochs {self.warmup_epochs} must be smaller than epochs {self.epochs}: lower it or set 0"
                )
            object.__setattr__(self, "warmup_epochs", 0.0)  # a one-epoch job needs no ceremony
        return self
