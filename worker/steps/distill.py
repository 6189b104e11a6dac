"""Knowledge distillation: a small network learns from the labels and from the outputs of large ones.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531.
Changed: several teachers make one target; images without labels join through the soft term; teachers run live
on the student's view, as Beyer et al. 2022 (https://arxiv.org/abs/2106.05237) found that it must be, instead
of once before the training.
"""

import torch

from app.errors import Problem
from app.spec.networks import Preprocessing, scaled_preprocessing
from app.spec.steps.distill import Distill
from models import Network
from models.architectures import create_network
from worker.run import Run
from worker.training.batches import Batch
from worker.training.loop import concatenated, train
from worker.training.losses import distillation_loss
from worker.training.teachers import TeacherTargets


def apply(model: Network | None, spec: Distill, run: Run) -> Network:
    """Build the student and train it; `model`, the network of the step before, is not used: the run's
    teachers are."""
    student = _build_student(spec, run)
    preprocessing = _preprocessing(spec, run, student.input_shape[-1]).model_dump()
    student.preprocessing = preprocessing
    images = concatenated(run, spec.transfer_splits, spec)
    # With hard labels only, no teacher is run at all.
    teachers = run.teachers if spec.alpha > 0 else []
    with TeacherTargets(
        teachers, images, temperature=spec.temperature, combine=spec.combine, weights=spec.weights
    ) as targets:

        def batch_loss(logits_NC: torch.Tensor, batch: Batch) -> torch.Tensor:
            return distillation_loss(
                logits_NC,
                batch.labels_N,
                targets(batch) if teachers else None,
                alpha=spec.alpha,
                temperature=spec.temperature,
            )

        return train(student, spec, run, images=images, preprocessing=preprocessing, batch_loss=batch_loss)


def _build_student(spec: Distill, run: Run) -> Network:
    assert spec.student.architecture is not None
    image_size = spec.student.image_size
    if spec.student.preprocessing is not None:
        height, width = spec.student.preprocessing.input_size
        if height != width:
            raise Problem(
                422,
                "STUDENT_INPUT_NOT_SQUARE",
                f"The student's preprocessing gives {height}x{width} pixels: students take squares.",
            )
        image_size = height
    if taken := {"name", "num_classes", "image_size", "seed"} & spec.student.options.keys():
        raise Problem(
            422, "STUDENT_IMPOSSIBLE", f"student.options may not hold {sorted(taken)}: the job decides these."
        )
    try:
        return create_network(
            spec.student.architecture,
            num_classes=len(run.data.class_names),
            image_size=image_size,
            seed=run.seed,
            **spec.student.options,
        )
    except ValueError as error:
        raise Problem(422, "STUDENT_IMPOSSIBLE", f"The student cannot be built: {error}") from error


def _preprocessing(spec: Distill, run: Run, image_size: int) -> Preprocessing:
    if spec.student.preprocessing is not None:
        return spec.student.preprocessing
    return scaled_preprocessing(Preprocessing(**run.teachers_preprocessing()), image_size)
