"""Knowledge distillation: a small network learns from the labels and from the outputs of large ones.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531.
Changed: several teachers make one target; images without labels join through the soft term; teachers run live
on the student's view, as Beyer et al. 2022 (https://arxiv.org/abs/2106.05237) found that it must be, instead
of once before the training.
"""

import torch

from app.spec.steps.distill import Distill
from models import Network, layer_table
from worker.run import Run
from worker.training.batches import Batch
from worker.training.loop import concatenated, train
from worker.training.losses import distillation_loss
from worker.training.students import build_student
from worker.training.teachers import TeacherTargets


def apply(model: Network | None, spec: Distill, run: Run) -> Network:
    """Build the student and train it; `model`, the network of the step before, is used where the student is
    'previous'."""
    student = build_student(spec.student, model, run)
    assert student.preprocessing is not None
    images = concatenated(run, spec.transfer_splits, spec)
    # With hard labels only, no teacher is run at all.
    teachers = run.teachers if spec.alpha > 0 else []
    with TeacherTargets(
        teachers, images, temperature=spec.temperature, combine=spec.combine, weights=spec.weights
    ) as targets:

        def batch_loss(logits_NC: torch.Tensor, batch: Batch) -> torch.Tensor:
            return distillation_loss(
                logits_NC,
                batch,
                targets(batch) if teachers else None,
                alpha=spec.alpha,
                temperature=spec.temperature,
            )

        return train(
            student,
            spec,
            run,
            images=images,
            preprocessing=student.preprocessing,
            batch_loss=batch_loss,
            teacher_macs=sum(layer_table(teacher.network)["macs"] for teacher in teachers),
        )
