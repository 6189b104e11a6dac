"""What teachers said of views of images, taken over from earlier trainings and left for later ones.

A row is taken only where this training would compute the same bits. What a teacher says of an image depends, in the last
bits, on the images beside it in the batch, so the key has all that makes the batches: seed, batch size, images in their
order, views, and with `random_per_batch` whose turn it is. It has nothing of the student, of alpha or of the epochs: those
decide what is made of the answers. The temperature is in it only where answers are kept as probabilities.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.spec.steps.distill import SoftLabelCache
from models import network_digest
from worker.run import Teacher
from worker.shared_files import SharedFiles, arithmetic, shared_name
from worker.training.batches import TrainingImages

_KIND = "labels"
# Part of the key: to be raised when `LabelCache` lays its rows out otherwise.
_FORMAT = 1


@dataclass(frozen=True)
class LabelSharing:
    """Where the labels of one step are found and left, and how its views are drawn."""

    files: SharedFiles
    augmentation: str

    def name(
        self,
        teacher: Teacher,
        images: TrainingImages,
        cache: SoftLabelCache,
        *,
        temperature: float,
        seed: int,
        turns: list[Any] | None,
    ) -> str:
        """The file of this teacher's labels. `turns`: what decides which batches it is asked about; None: about all."""
        return shared_name(
            _KIND,
            {
                "format": _FORMAT,
                "network": network_digest(teacher.network),
                "preprocessing": teacher.preprocessing,
                "outputs": teacher.order.tolist(),
                "splits": list(images.splits),
                "digests": images.digests,
                "rows": hashlib.sha256("\n".join(images.paths()).encode()).hexdigest(),
                "batch_size": images.batch_size,
                "seed": seed,
                "augmentation": self.augmentation,
                "views": cache.views,
                "normalise": cache.normalise,
                "temperature": temperature if cache.normalise == "temperature" else None,
                "dtype": cache.dtype,
                "turns": turns,
                "arithmetic": arithmetic(images.device),
            },
        )


class SharedLabels:
    """The labels of one teacher: copied to `path` before they are read there, left for others when they are more."""

    def __init__(self, files: SharedFiles, name: str, path: Path) -> None:
        self._files = files
        self._name = name
        self._path = path
        # Beside the labels, for a later attempt: how many of them were there at first.
        self._count = path.with_suffix(".taken")

    def take(self, count_rows: Callable[[Path], int]) -> None:
        """Copy what there is, unless an earlier attempt has begun the file."""
        if self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._count.unlink(missing_ok=True)
        found = self._path.with_suffix(".found")
        if self._files.copy(self._name, found):
            # Counted before it has its name: an attempt that is killed here begins anew.
            self._count.write_text(str(count_rows(found)))
            os.replace(found, self._path)

    @property
    def num_taken(self) -> int:
        """Rows that were copied."""
        return int(self._count.read_text()) if self._count.exists() else 0

    def leave(self) -> bool:
        """Put the file there for others; false where the disk is full."""
        return self._files.keep_file(self._name, self._path)
