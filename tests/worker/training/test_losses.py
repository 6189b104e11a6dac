"""The distillation loss against hand-worked numbers, and its two ends to the bit."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchdistill.losses.mid_level import DISTLoss, KDLoss, LogitStdKDLoss

from worker.training.batches import Batch, Mixup
from worker.training.losses import (
    decoupled_loss,
    dist_loss,
    distillation_loss,
    hard_loss,
    log_soft_targets,
    soft_loss,
    soft_targets,
    standardized,
)

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


def _as_torchdistill(loss, student, teacher, labels=None):
    """torchdistill reads what named modules gave or took."""
    return loss({"m": {"output": student}}, {"m": {"output": teacher}}, targets=labels)


PLACES = ("m", "output", "m", "output")


@pytest.mark.parametrize(("alpha", "temperature"), [(0.8, 4.0), (0.25, 1.0), (0.5, 20.0)])
def test_kd_is_torchdistills(alpha, temperature):
    """Their alpha is the share of the hard label, ours of the soft one."""
    theirs = KDLoss(*PLACES, temperature=temperature, alpha=1 - alpha)
    ours = distillation_loss(
        STUDENT, LABELS, soft_targets([TEACHER], temperature), alpha=alpha, temperature=temperature
    )
    torch.testing.assert_close(ours, _as_torchdistill(theirs, STUDENT, TEACHER, LABELS))


def test_standardised_kd_is_torchdistills():
    """The hard label meets the student's own logits, only the soft term standardised ones."""
    temperature = 2.0
    theirs = LogitStdKDLoss(*PLACES, temperature=temperature, alpha=0.25)
    soft = soft_loss(standardized(STUDENT), soft_targets([standardized(TEACHER)], temperature), temperature)
    torch.testing.assert_close(
        0.25 * F.cross_entropy(STUDENT, LABELS) + 0.75 * soft,
        _as_torchdistill(theirs, STUDENT, TEACHER, LABELS),
    )


def test_standardised_by_hand():
    """1, 2, 3: mean 2, variance (1 + 0 + 1) / 2 = 1. A constant row, which has no pattern, becomes 0."""
    rows = standardized(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    torch.testing.assert_close(rows, torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize(("temperature", "inter", "intra"), [(1.0, 1.0, 1.0), (4.0, 2.0, 0.5)])
def test_dist_is_torchdistills(temperature, inter, intra):
    theirs = DISTLoss(*PLACES, beta=inter, gamma=intra, tau=temperature)
    ours = dist_loss(
        STUDENT,
        soft_targets([TEACHER], temperature),
        temperature=temperature,
        inter_weight=inter,
        intra_weight=intra,
    )
    torch.testing.assert_close(ours, _as_torchdistill(theirs, STUDENT, TEACHER))


def test_dist_by_hand():
    """Two pictures: the student turns what the teacher says of the first around, and repeats the second."""
    teacher = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]])
    student = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.4, 0.4]])
    # Picture 1: deviations from 1/3 are (.467, -.233, -.233) and (-.233, .467, -.233): r = -1/2.
    inter = dist_loss(student.log(), teacher, temperature=1.0, inter_weight=1.0, intra_weight=0.0)
    assert inter.item() == pytest.approx(1 - (-0.5 + 1) / 2, rel=1e-5)
    # Classes: teacher falls, rises, rises; student rises, falls, rises: r = -1, -1, 1.
    intra = dist_loss(student.log(), teacher, temperature=1.0, inter_weight=0.0, intra_weight=1.0)
    assert intra.item() == pytest.approx(1 - (-1 - 1 + 1) / 3, rel=1e-5)


def _dkd(student, teacher, classes, *, temperature=1.0, target_weight=1.0, other_weight=1.0):
    return decoupled_loss(
        student,
        log_soft_targets([teacher], temperature),
        classes,
        temperature=temperature,
        target_weight=target_weight,
        other_weight=other_weight,
    )


def test_dkd_by_hand():
    """The teacher says (1/2, 1/3, 1/6), the student (1/4, 1/4, 1/2), target class 0. Target: KL of (1/2, 1/2) and
    (1/4, 3/4). Others: KL of (2/3, 1/3) and (1/3, 2/3), which is ln 2 / 3."""
    teacher, student = (
        torch.tensor([[1 / 2, 1 / 3, 1 / 6]]).log(),
        torch.tensor([[1 / 4, 1 / 4, 1 / 2]]).log(),
    )
    classes = torch.tensor([0])
    target = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert _dkd(student, teacher, classes, other_weight=0.0).item() == pytest.approx(target, rel=1e-5)
    assert _dkd(student, teacher, classes, target_weight=0.0).item() == pytest.approx(
        math.log(2) / 3, rel=1e-5
    )


def test_dkd_is_the_papers_formula():
    """Equations 4 to 7 there, term by term in Python's floats; T = 4, weights 1 and 8 as for CIFAR-100."""
    temperature, expected = 4.0, 0.0
    for student, teacher, label in zip(STUDENT.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True):
        q, p = ([math.exp(x / temperature) for x in logits] for logits in (student, teacher))
        q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
        tckd = p[label] * math.log(p[label] / q[label])
        tckd += (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
        nckd = 0.0
        for c in set(range(5)) - {label}:
            p_hat, q_hat = p[c] / (1 - p[label]), q[c] / (1 - q[label])
            nckd += p_hat * math.log(p_hat / q_hat)
        expected += temperature**2 * (tckd + 8 * nckd) / 7
    ours = _dkd(STUDENT, TEACHER, LABELS, temperature=temperature, other_weight=8.0)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_kd_is_dkd_with_the_teachers_own_weight():
    """KD = TCKD + (1 - p_teacher(target)) NCKD, the paper's point: a sure teacher silences the other classes."""
    for row in range(7):
        student, teacher, label = STUDENT[row : row + 1], TEACHER[row : row + 1], LABELS[row : row + 1]
        weight = 1 - F.softmax(teacher / 3, 1)[0, label].item()
        torch.testing.assert_close(
            _dkd(student, teacher, label, temperature=3.0, other_weight=weight),
            soft_loss(student, soft_targets([teacher], 3.0), 3.0),
        )


def test_dkd_of_a_teacher_that_is_certain_is_finite():
    """exp(-300) is 0 in float32; what it says of the other classes still counts."""
    teacher = torch.tensor([[300.0, 1.0, 0.0]])
    student = torch.zeros(1, 3, requires_grad=True)
    loss = _dkd(student, teacher, torch.tensor([0]))
    p = math.e / (math.e + 1)
    others = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert loss.item() == pytest.approx(math.log(3) + others, rel=1e-5)
    loss.backward()
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("combine", ["mean_probability", "mean_logit"])
@pytest.mark.parametrize("weights", [None, [1, 3], [0, 2]])
def test_log_targets_are_the_logarithm_of_the_targets(combine, weights):
    members = [TEACHER, TEACHER.flip(0)]
    torch.testing.assert_close(
        log_soft_targets(members, 2.0, combine=combine, weights=weights).exp(),
        soft_targets(members, 2.0, combine=combine, weights=weights),
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
