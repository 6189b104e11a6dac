"""What the teachers say about a batch: computed while the student trains, on the very view that the student
sees.

Outputs that were computed beforehand fit only the views they were computed on, and a student then memorises
them. A cache (`soft_labels`) is therefore keyed by the view as well, and a table of plain labels says so.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from app.errors import Problem
from app.spec.steps.distill import SoftLabelCache
from models import layer_table
from worker.distillation.cached_teacher import CachedTeacher, logits_of
from worker.distillation.features import keep
from worker.distillation.label_sharing import LabelSharing
from worker.distillation.soft_labels import rows_for
from worker.run import TableTeacher, Teacher
from worker.training.batches import Batch, TrainingImages, mixed_seed
from worker.training.losses import log_soft_targets, normalised_shares, soft_targets, standardized
from worker.training.memory_format import fastest_format

Combine = Literal["mean_probability", "mean_logit", "random_per_batch"]


@dataclass(frozen=True)
class Heard:
    """What was said about one batch."""

    members_NC: list[Tensor]
    """Logits in the data's class order: of all teachers, or of the one that was drawn for this batch."""
    weights: Sequence[float] | None
    features: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    """(teacher's position, node) -> its value, for the nodes that are watched."""


class Member(Protocol):
    @property
    def macs(self) -> int:
        """Multiply-adds an image."""
        ...

    def logits(self, batch: Batch) -> Tensor:
        """Float32 [N, C] on the device, columns in the data's class order."""
        ...


class TeacherTargets:
    """Soft targets of one or several teachers, each at its own input size. Used as a context: the teachers
    run in their fastest memory format within it, and are as they were after it.

    `seed`: which teacher is drawn for a batch follows from it and the step. `speaking`: false where only the values of
    nodes are of interest, so that no other teacher runs. `watched`: teacher's position -> nodes whose values are heard.
    `cache`, in files below `folder`: what is said is kept by image and view; with `sharing` also for other jobs.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher | TableTeacher],
        images: TrainingImages,
        *,
        temperature: float,
        combine: Combine,
        weights: Sequence[float] | None,
        standardize: bool = False,
        seed: int = 0,
        speaking: bool = True,
        watched: Mapping[int, frozenset[str]] | None = None,
        cache: SoftLabelCache | None = None,
        folder: Path | None = None,
        sharing: LabelSharing | None = None,
    ) -> None:
        self._temperature = temperature
        self._combine = combine
        self._weights = weights
        self._standardize = standardize
        self._seed = seed
        self._images = images
        self._pixels = _Pixels(images)
        self._cache = cache
        self._folder = folder
        self._sharing = sharing
        self._num_teachers = len(teachers)
        self._watched = dict(watched or {})
        self._networks: dict[int, _LiveTeacher] = {}
        self._members: dict[int, Member] = {
            position: self._member(position, teacher)
            for position, teacher in enumerate(teachers)
            if speaking or position in self._watched
        }
        self._speaking = sorted(self._members) if speaking else []
        self._formats = ExitStack()

    def _member(self, position: int, teacher: Teacher | TableTeacher) -> Member:
        if isinstance(teacher, TableTeacher):
            return _TableMember(teacher, self._images, self._temperature)
        live = _LiveTeacher(teacher, self._pixels, self._watched.get(position, frozenset()))
        self._networks[position] = live
        if self._cache is None:
            return live
        assert self._folder is not None
        return CachedTeacher(
            live,
            self._images,
            self._cache,
            self._temperature,
            self._folder,
            position,
            self._seed,
            sharing=self._sharing,
            turns=self._turns(position),
        )

    def _turns(self, position: int) -> list[Any] | None:
        """Which batches this teacher is asked about: all, or those that `drawn` gives it."""
        if self._combine != "random_per_batch" or self._num_teachers == 1:
            return None
        return [position, *normalised_shares(self._weights, self._num_teachers)]

    def __enter__(self) -> Self:
        trial = self._images.batch(0, "none")
        for live in self._networks.values():
            assert not live.teacher.network.training, "a teacher is frozen"
            pixels_NCHW = self._images.pixels(trial, live.teacher.preprocessing)
            self._formats.enter_context(fastest_format(live.teacher.network, pixels_NCHW))
        return self

    def __exit__(self, *error: object) -> None:
        self._formats.close()

    def macs_in(self, epochs: int) -> int:
        """Multiply-adds an image, on average over so many epochs: a teacher that is not drawn or that is remembered does
        not run."""
        shares = [1.0] * len(self._speaking)
        if self._combine == "random_per_batch" and self._speaking:
            shares = normalised_shares(self._weights, len(self._speaking))
        if self._cache is not None:
            shares = [share * min(self._cache.views / epochs, 1) for share in shares]
        total = 0.0
        for position, member in self._members.items():
            runs_always = position in self._watched
            total += member.macs * (1 if runs_always else shares[position])
        return round(total)

    @torch.no_grad()
    def listen(self, batch: Batch) -> Heard:
        """Run the teachers that count for this batch, and those whose nodes are watched."""
        counted, weights = self._speaking, self._weights
        if self._combine == "random_per_batch" and len(counted) > 1:
            counted, weights = [self.drawn(batch.step)], None
        said = self._ask(sorted({*counted, *self._watched}), batch)
        members_NC = [said[position] for position in counted]
        if self._standardize:
            members_NC = [standardized(logits_NC) for logits_NC in members_NC]
        features = {
            (position, node): value
            for position in self._watched
            for node, value in self._networks[position].features.items()
        }
        return Heard(members_NC, weights, features)

    def _ask(self, positions: Sequence[int], batch: Batch) -> dict[int, Tensor]:
        try:
            return {position: self._members[position].logits(batch) for position in positions}
        finally:
            self._pixels.forget()

    def drawn(self, step: int) -> int:
        """The position of the teacher of this step, drawn with the weights as probabilities."""
        shares = normalised_shares(self._weights, len(self._members))
        generator = random.Random(mixed_seed(self._seed, "teacher", step))
        return generator.choices(range(len(shares)), shares)[0]

    def __call__(self, batch: Batch) -> Tensor:
        """Probabilities [N, C] at the temperature, columns in the data's class order."""
        return self.probabilities(self.listen(batch))

    def probabilities(self, heard: Heard) -> Tensor:
        """The target [N, C] at the temperature."""
        return soft_targets(heard.members_NC, self._temperature, combine=self._mean, weights=heard.weights)

    def log_probabilities(self, heard: Heard) -> Tensor:
        """The same in logs, exact where a probability underflows."""
        return log_soft_targets(
            heard.members_NC, self._temperature, combine=self._mean, weights=heard.weights
        )

    @property
    def _mean(self) -> Literal["mean_probability", "mean_logit"]:
        # Of the one teacher that was drawn either is its softmax; of all, the mean probability is what is expected.
        return "mean_logit" if self._combine == "mean_logit" else "mean_probability"

    def answer_counts(self) -> list[dict[str, Any]]:
        """Of each teacher that is remembered: how many answers were computed, and how many read."""
        return [member.counts() for member in self._remembered()]

    def leave_for_others(self) -> bool:
        """Leave what was said for later trainings; false where the disk is full."""
        left = [member.leave_for_others() for member in self._remembered()]
        return all(left)

    def _remembered(self) -> list[CachedTeacher]:
        return [member for member in self._members.values() if isinstance(member, CachedTeacher)]

    @torch.no_grad()
    def plain_logits(self) -> Tensor:
        """Float32 [M, C] on the CPU: logits of the target for every image as it is. A single teacher's are its own; those of
        several are the temperature times the target's log-probabilities."""
        parts = []
        for batch in self._images.plain():
            members_NC = list(self._ask(self._speaking, batch).values())
            if len(members_NC) == 1:
                parts.append(members_NC[0].cpu())
                continue
            if self._standardize:
                members_NC = [standardized(logits_NC) for logits_NC in members_NC]
            log_targets_NC = self.log_probabilities(Heard(members_NC, self._weights))
            parts.append(self._temperature * log_targets_NC.cpu())
        return torch.cat(parts)


class _Pixels:
    """A batch's pixels by preprocessing: members of an ensemble mostly share theirs."""

    def __init__(self, images: TrainingImages) -> None:
        self._images = images
        self._kept: dict[str, Tensor] = {}

    def of(self, batch: Batch, teacher: Teacher) -> Tensor:
        key = repr(sorted(teacher.preprocessing.items()))
        if key not in self._kept:
            self._kept[key] = self._images.pixels(batch, teacher.preprocessing)
        return self._kept[key]

    def forget(self) -> None:
        """The next batch has other pixels."""
        self._kept = {}


class _LiveTeacher:
    def __init__(self, teacher: Teacher, pixels: _Pixels, watched: frozenset[str]) -> None:
        self.teacher = teacher
        self.features: dict[str, Tensor] = {}
        self.macs: int = layer_table(teacher.network)["macs"]
        self._pixels = pixels
        self._watched = watched

    def logits(self, batch: Batch) -> Tensor:
        pixels_NCHW = self._pixels.of(batch, self.teacher)
        if not self._watched:
            return self.teacher.logits(pixels_NCHW).float()
        self.features = {}
        return self.teacher.logits(pixels_NCHW, keep(self.features, self._watched)).float()


class _TableMember:
    """A table's rows. Of blended images (mixup) it gives blended labels, as mixup does with labels."""

    macs = 0

    def __init__(self, teacher: TableTeacher, images: TrainingImages, temperature: float) -> None:
        self._values_RC = teacher.values_RC[:, teacher.order.cpu()].float()
        if teacher.kind == "probabilities":
            self._values_RC = logits_of(self._values_RC, teacher.temperature)
        self._rows_M = rows_for(teacher.rows, images.data, images.splits)
        self._temperature = temperature
        self._device = images.device
        if len(missing := (self._rows_M < 0).nonzero()[:, 0].tolist()):
            paths = images.paths()
            raise Problem(
                422,
                "SOFT_LABELS_MISSING",
                f"Teacher {teacher.id} has no soft labels for {len(missing)} of {len(paths)} images of "
                f"{' and '.join(images.splits)}, the first {', '.join(repr(paths[index]) for index in missing[:3])}. "
                "Give the file a row for each (by its path, or by a file name that is unique), or leave the split out "
                "of transfer_splits.",
            )

    def logits(self, batch: Batch) -> Tensor:
        if batch.mixup is None:
            return self._values_RC[self._rows_M[batch.indices_N]].to(self._device)
        whole = batch.whole or batch
        assert whole.mixup is not None
        p_NC = F.softmax(self._values_RC[self._rows_M[whole.indices_N]] / self._temperature, dim=1)
        blended_NC = p_NC[whole.mixup.partner_N].lerp(p_NC, whole.mixup.share)
        logits_NC = logits_of(blended_NC, self._temperature).to(self._device)
        return logits_NC if batch.rows is None else logits_NC[batch.rows]
