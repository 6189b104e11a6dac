"""A teacher that is asked once for each view of each image."""

import hashlib
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from app.spec.steps.distill import SoftLabelCache
from worker.distillation.label_cache import LabelCache
from worker.distillation.label_sharing import LabelSharing, SharedLabels
from worker.run import Teacher
from worker.training.batches import Batch, TrainingImages
from worker.training.losses import standardized


class LiveTeacher(Protocol):
    @property
    def teacher(self) -> Teacher: ...

    @property
    def macs(self) -> int: ...

    def logits(self, batch: Batch) -> Tensor: ...


class CachedTeacher:
    """Asks its teacher once for each view of each image.

    When one image of a batch is missing the whole batch is asked, but only what was missing is kept: so a run that is
    killed and replays a step hears the same, to the bit, as an undisturbed one. `turns`: as `LabelSharing.name` has it.
    """

    def __init__(
        self,
        live: LiveTeacher,
        images: TrainingImages,
        cache: SoftLabelCache,
        temperature: float,
        folder: Path,
        position: int,
        seed: int,
        *,
        sharing: LabelSharing | None = None,
        turns: list[Any] | None = None,
    ) -> None:
        self._live = live
        self._normalise = cache.normalise
        self._temperature = temperature
        self._device = images.device
        self._asked_in_parts = False
        identity = [
            live.teacher.id,
            images.digests,
            seed,
            cache.model_dump(),
            temperature,
            live.teacher.preprocessing,
        ]
        name = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        path = folder / f"{position}-{name}.labels"

        def opened(path: Path) -> LabelCache:
            return LabelCache(
                path,
                num_views=cache.views,
                num_images=len(images.labels_N),
                num_classes=len(live.teacher.order),
                dtype=cache.dtype,
            )

        self._shared: SharedLabels | None = None
        if sharing is not None:
            shared_name = sharing.name(
                live.teacher, images, cache, temperature=temperature, seed=seed, turns=turns
            )
            self._shared = SharedLabels(sharing.files, shared_name, path)
            self._shared.take(lambda found: opened(found).num_rows)
        self._cache = opened(path)

    @property
    def macs(self) -> int:
        return self._live.macs

    def logits(self, batch: Batch) -> Tensor:
        if batch.view_number is None:
            return self._live.logits(batch)
        values_NC, is_there_N = self._cache.read(batch.view_number, batch.indices_N)
        if not bool(is_there_N.all()):
            self._asked_in_parts |= batch.whole is not None
            said_NC = normalised(self._live.logits(batch), self._normalise, self._temperature).cpu()
            missing_N = ~is_there_N
            self._cache.write(batch.view_number, batch.indices_N[missing_N], said_NC[missing_N])
            values_NC, _ = self._cache.read(batch.view_number, batch.indices_N)
        logits_NC = values_NC.float()
        if self._normalise == "temperature":
            logits_NC = logits_of(logits_NC, self._temperature)
        return logits_NC.to(self._device)

    def counts(self) -> dict[str, Any]:
        """How many answers this step had from its teacher itself, and how many an earlier training had left."""
        taken = self._shared.num_taken if self._shared is not None else 0
        return {
            "teacher": self._live.teacher.id,
            "num_computed": self._cache.num_rows - taken,
            "num_read": taken,
        }

    def leave_for_others(self) -> bool:
        """Leave the answers for later trainings if there are new ones; false where the disk is full.

        Not where memory was short: what a teacher says of a part of a batch may differ in the last bits.
        """
        if self._shared is None or self._asked_in_parts or not self.counts()["num_computed"]:
            return True
        return self._shared.leave()


def normalised(
    logits_NC: Tensor, how: Literal["none", "temperature", "zscore"], temperature: float
) -> Tensor:
    """Logits as they are kept: unchanged, as probabilities, or with mean 0 and standard deviation 1."""
    if how == "temperature":
        return F.softmax(logits_NC / temperature, dim=1)
    return standardized(logits_NC) if how == "zscore" else logits_NC


def logits_of(probabilities_NC: Tensor, temperature: float) -> Tensor:
    """Logits, up to a constant a row, whose softmax at the temperature these float32 probabilities are; 0 becomes the
    smallest normal number."""
    return temperature * probabilities_NC.clamp_min(torch.finfo(torch.float32).tiny).log()
