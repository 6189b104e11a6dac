"""The distillation loss against hand-worked numbers, and its two ends to the bit."""

import math

import pytest
import torch
import torch.nn.functional as F

from worker.training.batches import Batch, Mixup
from worker.training.losses import distillation_loss, hard_loss, soft_loss, soft_targets

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = torch.randn(7, 5, generator=GENERATOR)
TEACHER = torch.randn(7, 5, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def test_hand_worked_example():
    """Two classes, T = 2: every number by hand. softmax([2,0]/2) = e/(e+1); the student is undecided, so KL =
    ln 2 - H(target)."""
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p = math.e / (math.e + 1)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    soft = 4 * (math.log(2) - entropy)
    expected = 0.25 * math.log(2) + 0.75 * soft
    loss = distillation_loss(
        student, torch.tensor([0]), soft_targets([teacher], 2.0), alpha=0.75, temperature=2.0
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_against_the_formula_in_float64():
    """The mixture against a naive double loop over images and classes."""
    alpha, temperature = 0.3, 4.0
    loss = distillation_loss(
        STUDENT, LABELS, soft_targets([TEACHER], temperature), alpha=alpha, temperature=temperature
    )
    hard = soft = 0.0
    for student, teacher, label in zip(STUDENT.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True):
        hard -= student[label] - math.log(sum(math.exp(s) for s in student))
        p_sum, q_sum = (sum(math.exp(x / temperature) for x in logits) for logits in (teacher, student))
        for t, s in zip(teacher, student, strict=True):
            p, q = math.exp(t / temperature) / p_sum, math.exp(s / temperature) / q_sum
            soft += p * math.log(p / q)
    assert loss.item() == pytest.approx((1 - alpha) * hard / 7 + alpha * temperature**2 * soft / 7, rel=1e-5)


def _with_gradient(compute):
    logits = STUDENT.clone().requires_grad_()
    loss = compute(logits)
    loss.backward()
    return loss.detach(), logits.grad


def test_alpha_0_is_cross_entropy_to_the_bit():
    """Value and gradient; the teacher is not even needed."""
    ours = _with_gradient(lambda logits: distillation_loss(logits, LABELS, None, alpha=0.0, temperature=4.0))
    torchs = _with_gradient(lambda logits: F.cross_entropy(logits, LABELS))
    assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))


def test_alpha_1_is_the_soft_term_to_the_bit():
    targets = soft_targets([TEACHER], 4.0)
    ours = _with_gradient(
        lambda logits: distillation_loss(logits, LABELS, targets, alpha=1.0, temperature=4.0)
    )
    soft = _with_gradient(
        lambda logits: (
            16.0
            * F.kl_div(F.log_softmax(logits / 4.0, 1), F.softmax(TEACHER / 4.0, 1), reduction="batchmean")
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(ours, soft, strict=True))


def test_alpha_1_does_not_read_the_labels():
    targets = soft_targets([TEACHER], 4.0)
    with_labels = distillation_loss(STUDENT, LABELS, targets, alpha=1.0, temperature=4.0)
    without = distillation_loss(STUDENT, torch.full_like(LABELS, -1), targets, alpha=1.0, temperature=4.0)
    assert torch.equal(with_labels, without)


def test_unlabelled_images_count_in_the_soft_term_alone():
    """CE averages over the 4 labelled images, KL over all 7."""
    labels = torch.tensor([0, -1, 2, -1, 4, -1, 1])
    targets = soft_targets([TEACHER], 2.0)
    labelled = labels >= 0
    expected = 0.5 * F.cross_entropy(STUDENT[labelled], labels[labelled]) + 0.5 * soft_loss(
        STUDENT, targets, 2.0
    )
    torch.testing.assert_close(
        distillation_loss(STUDENT, labels, targets, alpha=0.5, temperature=2.0), expected
    )


def test_a_batch_without_any_label_is_finite():
    """The mean over no images is 0/0; here the hard term is 0 and so is its gradient."""
    value, gradient = _with_gradient(lambda logits: hard_loss(logits, torch.full_like(LABELS, -1)))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("combine", ["mean_probability", "mean_logit"])
@pytest.mark.parametrize("weights", [None, [0.3]])
def test_an_ensemble_of_one_is_its_member_to_the_bit(combine, weights):
    assert torch.equal(
        soft_targets([TEACHER], 3.0, combine=combine, weights=weights), F.softmax(TEACHER / 3.0, dim=1)
    )


@pytest.mark.parametrize("combine", ["mean_probability", "mean_logit"])
def test_combining_teachers(combine):
    """Weights 1 and 3 are shares 1/4 and 3/4; rows sum to 1."""
    other = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    targets = soft_targets([TEACHER, other], 2.0, combine=combine, weights=[1, 3])
    expected = {
        "mean_probability": 0.25 * F.softmax(TEACHER / 2, 1) + 0.75 * F.softmax(other / 2, 1),
        "mean_logit": F.softmax((0.25 * TEACHER + 0.75 * other) / 2, 1),
    }[combine]
    torch.testing.assert_close(targets, expected)
    torch.testing.assert_close(targets.sum(1), torch.ones(7))


def test_weights_that_are_equal_change_nothing():
    other = TEACHER.flip(0)
    assert torch.equal(
        soft_targets([TEACHER, other], 2.0, weights=[2, 2]), soft_targets([TEACHER, other], 2.0)
    )


def _mixed_batch(labels: torch.Tensor, share: float = 0.7) -> Batch:
    partner = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    return Batch(torch.arange(7), labels, None, mixup=Mixup(share, partner, labels[partner]))


def test_mixup_blends_the_losses_of_both_labels():
    """A naive loop: share of the image's own label, the rest of its partner's."""
    batch = _mixed_batch(LABELS)
    log_probabilities = STUDENT.double().log_softmax(1)
    expected = 0.0
    for row, partner in enumerate(batch.mixup.partner_N.tolist()):
        own, other = LABELS[row], LABELS[partner]
        expected -= (0.7 * log_probabilities[row, own] + 0.3 * log_probabilities[row, other]).item() / 7
    assert hard_loss(STUDENT, batch).item() == pytest.approx(expected, rel=1e-5)


def test_mixup_leaves_out_labels_that_are_not_there():
    """Images 1, 3 and 5 have none: their own term goes, and so does the partner's term wherever one of them is it."""
    labels = torch.tensor([0, -1, 2, -1, 4, -1, 1])
    batch = _mixed_batch(labels)
    log_probabilities = STUDENT.double().log_softmax(1)
    expected = 0.0
    for row, partner in enumerate(batch.mixup.partner_N.tolist()):
        for share, label in ((0.7, labels[row]), (0.3, labels[partner])):
            if label >= 0:
                expected -= share * log_probabilities[row, label].item() / 4
    assert hard_loss(STUDENT, batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_whole_share_is_the_plain_loss():
    torch.testing.assert_close(hard_loss(STUDENT, _mixed_batch(LABELS, 1.0)), hard_loss(STUDENT, LABELS))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_parts_of_a_batch_weighted_by_size_add_up_to_it(alpha):
    """Although one part has three labels of four images and the other one of three."""
    batch = _mixed_batch(torch.tensor([0, 1, 2, -1, 4, -1, -1]))
    targets = soft_targets([TEACHER], 2.0)
    whole = distillation_loss(STUDENT, batch, targets, alpha=alpha, temperature=2.0)
    parts = sum(
        distillation_loss(STUDENT[rows], batch.part(rows), targets[rows], alpha=alpha, temperature=2.0)
        * (len(STUDENT[rows]) / 7)
        for rows in (slice(0, 4), slice(4, 7))
    )
    torch.testing.assert_close(parts, whole)
