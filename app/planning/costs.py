"""What a job costs, before it runs: multiply-adds, counted as forward passes.

A training step of one image is three forward passes of the student (forward, and two products of the same size
backward) and one of each teacher that looks at it; the worker's own count (`trained_macs`) says the same. Added:
the look at val after each epoch, and the measurement of every step on all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Problem
from app.spec.job import JobSpec
from app.spec.steps.base import StepSpec
from app.spec.steps.prune import BY_DATA, Prune
from app.spec.steps.quantize import Quantize
from app.spec.training import Training

_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Macs:
    """Multiply-adds. `about` is None where only doing it tells, `at_most` where nothing bounds it either."""

    about: float | None
    at_most: float | None

    def times(self, factor: float, plus: float = 0.0) -> "Macs":
        def scaled(value: float | None) -> float | None:
            return None if value is None else factor * value + plus

        return Macs(scaled(self.about), scaled(self.at_most))

    @property
    def bound(self) -> float:
        """What a limit is compared with; 0 where nothing is known."""
        return self.about if self.about is not None else self.at_most or 0.0


def step_macs(step: StepSpec, network: Macs, teacher_macs: float, num_images: dict[str, int]) -> Macs:
    """What the step costs with one seed. `network`: one image through the network that it trains, or leaves behind;
    `teacher_macs`: one image through all teachers."""
    training = _training(step)
    trained = sum(num_images.get(split, 0) for split in step.trained_splits)
    measured = sum(num_images.values())
    passes, asked = float(measured), 0.0
    if training is not None:
        epochs = _epochs(step, training)
        images = trained * training.train_fraction
        passes += epochs * (_FORWARD_AND_BACKWARD * images + num_images.get("val", 0))
        cache = getattr(step, "soft_labels", None)
        views = min(epochs, cache.views) if cache is not None else epochs
        asked = teacher_macs * images * views if getattr(step, "alpha", 0) > 0 else 0.0
    if isinstance(step, Prune):
        passes += step.iterations * _looks_of_a_cut(step, trained, num_images.get("val", 0))
    elif isinstance(step, Quantize) and step.calibrates:
        passes += step.calibration_images
    if network.bound == 0.0:
        return Macs(None, asked or None)
    return network.times(passes, plus=asked)


def _looks_of_a_cut(step: Prune, trained: int, num_val: int) -> float:
    """Passes of each iteration beside its training: scores by gradients, batch norms anew, accuracy before and after."""
    batch_size = step.training.batch_size
    scored = 0.0
    if step.criterion in BY_DATA:
        images = trained if step.score_batches is None else step.score_batches * batch_size
        scored = _FORWARD_AND_BACKWARD * float(images)
    return scored + step.bn_reestimation_batches * batch_size + 2 * num_val


def trained_epochs(step: StepSpec) -> int:
    """All epochs that the step names; Scratch-B trains more, as many as the multiply-adds that its cut saves."""
    training = _training(step)
    return 0 if training is None else _epochs(step, training)


def _training(step: StepSpec) -> Training | None:
    if isinstance(step, Training):
        return step
    training: Training | None = getattr(step, "training", None)
    return training if step.trained_splits else None


def _epochs(step: StepSpec, training: Training) -> int:
    """All that are trained: a prune step trains after each cut, and some before the first."""
    epochs = training.epochs
    if getattr(step, "recovers", True) is False:
        epochs = 0
    elif getattr(step, "recover_after", None) == "each":
        epochs *= getattr(step, "iterations", 1)
    sparsity = getattr(step, "sparsity", None)
    return epochs + (getattr(sparsity, "epochs", 0) or 0)


def job_macs(spec: JobSpec, steps: Sequence[Macs]) -> float | None:
    """What all steps cost with all seeds; None when one of them only tells by being done."""
    known = [step.about for step in steps if step.about is not None]
    return spec.seeds * sum(known) if len(known) == len(steps) else None


def check_job(spec: JobSpec, steps: Sequence[Macs], limit: float) -> None:
    """`steps`: what each costs with one seed. Raises Problem 422 JOB_TOO_LARGE."""
    total = spec.seeds * sum(step.bound for step in steps)
    if not limit or total <= limit:
        return
    most = max(range(len(steps)), key=lambda index: steps[index].bound)
    hint = "Lower epochs, seeds or iterations, take a smaller train_fraction, or a smaller student."
    detail = f"The job would take about {total:.1e} multiply-adds, and this service does at most {limit:.1e} in one job."
    error: dict[str, Any] = {
        "pointer": f"/steps/{most}",
        "code": "JOB_TOO_LARGE",
        "detail": f"This step takes {steps[most].bound:.1e} of them with each of {spec.seeds} seeds.",
        "hint": hint,
    }
    raise Problem(422, "JOB_TOO_LARGE", f"{detail} {error['detail']} {hint}", errors=[error])
