"""The losses of knowledge distillation.

* KD: Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
* DKD: Zhao et al. 2022, "Decoupled Knowledge Distillation", https://arxiv.org/abs/2203.08679.
* DIST: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", https://arxiv.org/abs/2205.10536.
* Logit standardisation: Sun et al. 2024, https://arxiv.org/abs/2403.01427.

Shapes: N images, C classes, M teachers. "Soft" targets are the teachers' probabilities at a temperature.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.training.batches import Batch

UNLABELLED = -1


def distillation_loss(
    logits_NC: Tensor,
    labels: Tensor | Batch,
    targets_NC: Tensor | None,
    *,
    alpha: float,
    temperature: float = 1.0,
) -> Tensor:
    """(1 - alpha) * CE(student, label) + alpha * T^2 * KL(target || softmax(student / T)), a scalar.

    `targets_NC`: what `soft_targets` gives at the same temperature; None only where alpha is 0. Images with
    label -1 count in the soft term alone: CE is the mean over the labelled ones, KL over all. At alpha 0 and
    1 the other term is not computed at all, so that the result is exactly cross-entropy, or exactly the soft
    term. T^2 keeps the soft gradients' size independent of T (section 2.1 there).
    """
    return blended(
        alpha,
        hard=lambda: hard_loss(logits_NC, labels),
        soft=lambda: soft_loss(logits_NC, _needed(targets_NC), temperature),
    )


def _needed(targets_NC: Tensor | None) -> Tensor:
    assert targets_NC is not None, "alpha > 0 needs the teachers' targets"
    return targets_NC


def blended(alpha: float, *, hard: Callable[[], Tensor], soft: Callable[[], Tensor]) -> Tensor:
    """(1 - alpha) * hard + alpha * soft. A term of weight 0 is not computed, the other is then exact to the bit."""
    if alpha == 0:
        return hard()
    if alpha == 1:
        return soft()
    return (1 - alpha) * hard() + alpha * soft()


def hard_loss(logits_NC: Tensor, labels: Tensor | Batch) -> Tensor:
    """Cross-entropy, the mean over the labelled images; 0 (not 0/0) where there are none.

    `labels`: int64 [N], or a batch. A batch with mixup gives share * CE(label) + (1 - share) * CE(partner's label),
    as Zhang et al. 2018 (https://arxiv.org/abs/1710.09412) have it. A part of a batch gives its sum over the mean
    number of labelled images in a part of its size, so that the parts, weighted by size, add up to the whole.
    """
    if isinstance(labels, Tensor):
        return _cross_entropy(logits_NC, labels)
    whole, scale = labels.whole, None
    if whole is not None:
        num_labelled = (
            (whole.labels_N != UNLABELLED).sum().item()
        )  # of the partners, too: they are a permutation
        scale = num_labelled * len(labels.labels_N) / len(whole.labels_N)
    loss = _cross_entropy(logits_NC, labels.labels_N, scale)
    if labels.mixup is None:
        return loss
    share = labels.mixup.share
    return share * loss + (1 - share) * _cross_entropy(logits_NC, labels.mixup.partner_labels_N, scale)


def _cross_entropy(logits_NC: Tensor, labels_N: Tensor, scale: float | None = None) -> Tensor:
    """Over the labelled images: the mean, or the sum divided by `scale`."""
    if bool((labels_N == UNLABELLED).all()):
        return logits_NC.sum() * 0
    if scale is None:
        return F.cross_entropy(logits_NC, labels_N, ignore_index=UNLABELLED)
    return F.cross_entropy(logits_NC, labels_N, ignore_index=UNLABELLED, reduction="sum") / scale


def soft_loss(logits_NC: Tensor, targets_NC: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(target || softmax(student / T)), the mean over the images."""
    log_probabilities_NC = F.log_softmax(logits_NC / temperature, dim=1)
    return temperature**2 * F.kl_div(log_probabilities_NC, targets_NC, reduction="batchmean")


def decoupled_loss(
    logits_NC: Tensor,
    log_targets_NC: Tensor,
    classes_N: Tensor,
    *,
    temperature: float,
    target_weight: float,
    other_weight: float,
) -> Tensor:
    """DKD: T^2 * (target_weight * TCKD + other_weight * NCKD), the mean over the images.

    TCKD is the KL of the two-way split {target class, any other}, NCKD that among the other classes alone; the paper
    calls the weights alpha and beta. At weights 1 and 1 - p_teacher(target) it is KD.

    `log_targets_NC`: the teachers' log-probabilities at the temperature; as logs, because a sure teacher's other classes
    underflow. `classes_N`: int64, each image's target class. Needs 3 classes: among one other class there is
    nothing to compare.
    """
    assert logits_NC.shape[1] > 2, "DKD needs 3 classes"
    is_target_NC = F.one_hot(classes_N, logits_NC.shape[1]).bool()
    split = _kl(
        *(_target_or_not(log_p, is_target_NC) for log_p in (_log_p(logits_NC, temperature), log_targets_NC))
    )
    others = _kl(
        *(_among_others(log_p, is_target_NC) for log_p in (_log_p(logits_NC, temperature), log_targets_NC))
    )
    return temperature**2 * (target_weight * split + other_weight * others)


def _log_p(logits_NC: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(logits_NC / temperature, dim=1)


def _kl(log_student_NK: Tensor, log_target_NK: Tensor) -> Tensor:
    return F.kl_div(log_student_NK, log_target_NK, reduction="batchmean", log_target=True)


def _target_or_not(log_p_NC: Tensor, is_target_NC: Tensor) -> Tensor:
    """log of [N, 2]: the probability of the target class, and of all others."""
    return torch.stack(
        [log_p_NC[is_target_NC], log_p_NC.masked_fill(is_target_NC, -torch.inf).logsumexp(dim=1)], dim=1
    )


def _among_others(log_p_NC: Tensor, is_target_NC: Tensor) -> Tensor:
    """log of [N, C - 1]: the probabilities of the other classes, given that it is one of them."""
    num_images, num_classes = log_p_NC.shape
    return log_p_NC[~is_target_NC].view(num_images, num_classes - 1).log_softmax(dim=1)


def dist_loss(
    logits_NC: Tensor, targets_NC: Tensor, *, temperature: float, inter_weight: float, intra_weight: float
) -> Tensor:
    """DIST: T^2 * (inter_weight * (1 - r over the classes of an image) + intra_weight * (1 - r over the images of a
    class)), r being Pearson's correlation of the student's and the target's probabilities.

    It asks for the teachers' relations, not their values: a much stronger teacher's are easier to follow. The paper calls
    the weights beta and gamma.
    """
    probabilities_NC = F.softmax(logits_NC / temperature, dim=1)
    inter = _one_minus_correlation(probabilities_NC, targets_NC)
    intra = _one_minus_correlation(probabilities_NC.T, targets_NC.T)
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _one_minus_correlation(first_KL: Tensor, second_KL: Tensor) -> Tensor:
    """1 - the mean over the rows of Pearson's correlation."""
    centred_KL, other_KL = (rows_KL - rows_KL.mean(dim=1, keepdim=True) for rows_KL in (first_KL, second_KL))
    return 1 - F.cosine_similarity(centred_KL, other_KL, dim=1, eps=1e-8).mean()


def standardized(logits_NC: Tensor) -> Tensor:
    """Each row with mean 0 and standard deviation 1 (n - 1, as the authors have it): then a student need not match the
    size of a teacher's logits, only their pattern. A constant row becomes 0."""
    centred_NC = logits_NC - logits_NC.mean(dim=1, keepdim=True)
    return centred_NC / (logits_NC.std(dim=1, keepdim=True) + 1e-7)


def soft_targets(
    members_NC: Sequence[Tensor],
    temperature: float,
    *,
    combine: Literal["mean_probability", "mean_logit"] = "mean_probability",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """One target [N, C], rows summing to 1, from the logits of one or more teachers.

    `mean_probability`: the mean of softmax(logits / T); `mean_logit`: softmax of the mean logits / T.
    `weights` are normalised to sum 1. A single teacher's target is its own softmax, to the bit: its weight
    becomes exactly 1.
    """
    shares = normalised_shares(weights, len(members_NC))
    if combine == "mean_logit":
        return F.softmax(_weighted_sum(members_NC, shares) / temperature, dim=1)
    return _weighted_sum([F.softmax(logits_NC / temperature, dim=1) for logits_NC in members_NC], shares)


def log_soft_targets(
    members_NC: Sequence[Tensor],
    temperature: float,
    *,
    combine: Literal["mean_probability", "mean_logit"] = "mean_probability",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """The logarithm of `soft_targets`, exact where a probability underflows."""
    shares = normalised_shares(weights, len(members_NC))
    if combine == "mean_logit":
        return _log_p(_weighted_sum(members_NC, shares), temperature)
    if len(members_NC) == 1:
        return _log_p(members_NC[0], temperature)
    members_MNC = torch.stack([_log_p(logits_NC, temperature) for logits_NC in members_NC])
    return (members_MNC + members_MNC.new_tensor(shares).log().view(-1, 1, 1)).logsumexp(dim=0)


def normalised_shares(weights: Sequence[float] | None, num_teachers: int) -> list[float]:
    """One share a teacher, summing to 1; equal where no weights are given."""
    if weights is None:
        return [1 / num_teachers] * num_teachers
    assert len(weights) == num_teachers, "one weight a teacher"
    return [weight / sum(weights) for weight in weights]


def _weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = tensors[0] * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        total = total + tensor * share
    return total
