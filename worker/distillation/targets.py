"""The soft term of distillation as a spec asks for it: which loss, on which form of the teachers' answer.

Shapes: N images, C classes.
"""

from torch import Tensor

from app.spec.steps.distill import Distill
from worker.distillation.teachers import Heard, TeacherTargets
from worker.training.batches import Batch
from worker.training.losses import UNLABELLED, decoupled_loss, dist_loss, soft_loss, standardized


def soft_term(
    logits_NC: Tensor, heard: Heard, batch: Batch, *, spec: Distill, targets: TeacherTargets
) -> Tensor:
    """The spec's loss between the student's logits and what the teachers said, a scalar.

    `targets` standardises the teachers' logits where the spec says so; here the student's are.
    """
    if spec.standardize_logits:
        logits_NC = standardized(logits_NC)
    if spec.loss == "dkd":
        log_targets_NC = targets.log_probabilities(heard)
        return decoupled_loss(
            logits_NC,
            log_targets_NC,
            target_classes(batch.labels_N, log_targets_NC),
            temperature=spec.temperature,
            target_weight=spec.dkd_target_weight,
            other_weight=spec.dkd_other_weight,
        )
    if spec.loss == "dist":
        return dist_loss(
            logits_NC,
            targets.probabilities(heard),
            temperature=spec.temperature,
            inter_weight=spec.dist_inter_weight,
            intra_weight=spec.dist_intra_weight,
        )
    return soft_loss(logits_NC, targets.probabilities(heard), spec.temperature)


def target_classes(labels_N: Tensor, log_targets_NC: Tensor) -> Tensor:
    """int64 [N]: the label, or the teachers' first class where there is none."""
    return labels_N.where(labels_N != UNLABELLED, log_targets_NC.argmax(dim=1))
