"""Fine-tuning: a network is trained further on hard labels, at a small constant rate where nothing else is said
(Liu et al. 2019, https://arxiv.org/abs/1810.05270, section 4).
"""

from app.spec.networks import Student
from app.spec.steps.finetune import Finetune
from models import Network
from worker.run import Run
from worker.training.loop import concatenated, train
from worker.training.losses import hard_loss
from worker.training.students import build_student


def apply(model: Network | None, spec: Finetune, run: Run) -> Network:
    """A copy of `model`, trained further. Its tensors are stored raw again: the forms of the old values are dropped."""
    network = build_student(Student(previous=True), model, run)
    assert network.preprocessing is not None
    return train(
        network,
        spec,
        run,
        images=concatenated(run, spec.splits, spec),
        preprocessing=network.preprocessing,
        batch_loss=hard_loss,
    )
