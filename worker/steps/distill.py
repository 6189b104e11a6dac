"""Knowledge distillation: a small network learns from the labels and from what large ones say and think.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531; the other
losses name their papers in `worker.training.losses` and `worker.distillation.features`.
Changed: several teachers make one target; images without labels join through the soft term; teachers run live
on the student's view, as Beyer et al. 2022 (https://arxiv.org/abs/2106.05237) found that it must be, instead
of once before the training.
"""

from torch import Tensor

from app.errors import Problem
from app.spec.steps.distill import Distill
from models import Network, layer_table
from worker.distillation.cached_teacher import normalised
from worker.distillation.features import Hinted, with_hints
from worker.distillation.label_sharing import LabelSharing
from worker.distillation.soft_labels import SoftLabels, write_soft_labels
from worker.distillation.targets import soft_term
from worker.distillation.teachers import TeacherTargets
from worker.run import Run, TableTeacher
from worker.training.batches import Batch, TrainingImages
from worker.training.loop import concatenated, train
from worker.training.losses import blended, hard_loss
from worker.training.students import build_student

_CACHE_FOLDER = "soft-labels"


def apply(model: Network | None, spec: Distill, run: Run) -> Network:
    """Build the student and train it. `model`, the network of the step before, is used where the student is 'previous'.

    Raises Problem 422 before any training: CLASSES_UNSUITABLE, STUDENT_IMPOSSIBLE, HINT_IMPOSSIBLE, TEACHER_IS_TABLE,
    SOFT_LABELS_MISSING.
    """
    _refuse_classes(spec, run)
    student = build_student(spec.student, model, run)
    assert student.preprocessing is not None
    images = concatenated(
        run, spec.transfer_splits, spec, views=None if spec.soft_labels is None else spec.soft_labels.views
    )
    hinted = with_hints(student, spec.hints, run) if spec.hints else None
    with _targets(spec, run, images) as targets:
        loss = _Loss(spec, targets, hinted)
        trained = train(
            student if hinted is None else hinted,
            spec,
            run,
            images=images,
            preprocessing=student.preprocessing,
            batch_loss=loss,
            forward=None if hinted is None else hinted.watched,
            teacher_macs=targets.macs_in(spec.epochs),
            macs=layer_table(student)["macs"] + (0 if hinted is None else hinted.regressor_macs),
        )
        if spec.soft_labels is not None:
            _leave_labels(targets, run)
            if spec.soft_labels.keep:
                _offer_labels(targets, images, spec, run)
    network = trained.student if isinstance(trained, Hinted) else trained
    network.encoded = {}
    return network


def _refuse_classes(spec: Distill, run: Run) -> None:
    """What the API refuses too; here for whoever comes another way."""
    for field, message in spec.class_errors(len(run.data.class_names)):
        raise Problem(422, "CLASSES_UNSUITABLE", f"{field}: {message}")


def _targets(spec: Distill, run: Run, images: TrainingImages) -> TeacherTargets:
    for teacher in run.teachers if spec.alpha > 0 else []:
        if isinstance(teacher, TableTeacher) and spec.augmentation != "none":
            run.log(
                f"Teacher {teacher.id} is a table: it labels the plain images, while the student sees them augmented.",
                "warning",
            )
    watched: dict[int, frozenset[str]] = {}
    for hint in spec.hints:
        watched[hint.teacher_index] = watched.get(hint.teacher_index, frozenset()) | {hint.teacher}
    return TeacherTargets(
        run.teachers,
        images,
        temperature=spec.temperature,
        combine=spec.combine,
        weights=spec.weights,
        standardize=spec.standardize_logits,
        seed=run.seed,
        # With hard labels only no teacher is run at all, unless its inner values are asked for.
        speaking=spec.alpha > 0,
        watched=watched,
        cache=spec.soft_labels,
        folder=run.work_dir / _CACHE_FOLDER,
        sharing=None if run.shared is None else LabelSharing(run.shared, spec.augmentation),
    )


class _Loss:
    """The loss of a batch as the spec's docstring has it."""

    def __init__(self, spec: Distill, targets: TeacherTargets, hinted: Hinted | None) -> None:
        self._spec = spec
        self._targets = targets
        self._hinted = hinted

    def __call__(self, logits_NC: Tensor, batch: Batch) -> Tensor:
        spec = self._spec
        heard = self._targets.listen(batch)
        loss = blended(
            spec.alpha,
            hard=lambda: hard_loss(logits_NC, batch),
            soft=lambda: soft_term(logits_NC, heard, batch, spec=spec, targets=self._targets),
        )
        if self._hinted is None:
            return loss
        return loss + self._hinted.loss(spec.hints, heard.features)


def _leave_labels(targets: TeacherTargets, run: Run) -> None:
    """Tell how many answers were computed, and leave them for other jobs."""
    run.details["soft_labels"] = targets.answer_counts()
    if not targets.leave_for_others():
        run.log("the disk is full: what the teachers said is not kept for other jobs")


def _offer_labels(targets: TeacherTargets, images: TrainingImages, spec: Distill, run: Run) -> None:
    """What the teachers say of the plain images, for download."""
    cache = spec.soft_labels
    assert cache is not None
    values_NC = normalised(targets.plain_logits(), cache.normalise, spec.temperature)
    write_soft_labels(
        run.attachment("soft-labels.pt", "soft_labels"),
        SoftLabels(
            kind="probabilities" if cache.normalise == "temperature" else "logits",
            class_names=list(run.data.class_names),
            paths=images.paths(),
            values_NC=values_NC.half() if cache.dtype == "float16" else values_NC,
            temperature=spec.temperature if cache.normalise == "temperature" else 1.0,
        ),
    )
