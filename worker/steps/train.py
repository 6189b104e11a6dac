"""Training from scratch on hard labels: the baseline that Liu et al. 2019, "Rethinking the Value of Network
Pruning" (https://arxiv.org/abs/1810.05270), ask of every comparison. Cross-entropy, nothing else.
"""

from app.spec.steps.train import Train
from models import Network
from worker.run import Run
from worker.training.loop import concatenated, train
from worker.training.losses import hard_loss
from worker.training.students import build_student


def apply(model: Network | None, spec: Train, run: Run) -> Network:
    """Build the student and train it; `model`, the network of the step before, is used where the student is
    'previous'."""
    student = build_student(spec.student, model, run)
    assert student.preprocessing is not None
    return train(
        student,
        spec,
        run,
        images=concatenated(run, spec.splits, spec),
        preprocessing=student.preprocessing,
        batch_loss=hard_loss,
    )
