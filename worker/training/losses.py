"""The loss of knowledge distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531.

Shapes: N images, C classes. "Soft" targets are the teachers' probabilities at a temperature.
"""

from collections.abc import Sequence
from typing import Literal

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
    if alpha == 0:
        return hard_loss(logits_NC, labels)
    assert targets_NC is not None, "alpha > 0 needs the teachers' targets"
    soft = soft_loss(logits_NC, targets_NC, temperature)
    if alpha == 1:
        return soft
    return (1 - alpha) * hard_loss(logits_NC, labels) + alpha * soft


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
    shares = (
        [1 / len(members_NC)] * len(members_NC)
        if weights is None
        else [weight / sum(weights) for weight in weights]
    )
    assert len(shares) == len(members_NC), "one weight a teacher"
    if combine == "mean_logit":
        return F.softmax(_weighted_sum(members_NC, shares) / temperature, dim=1)
    return _weighted_sum([F.softmax(logits_NC / temperature, dim=1) for logits_NC in members_NC], shares)


def _weighted_sum(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = tensors[0] * shares[0]
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        total = total + tensor * share
    return total
