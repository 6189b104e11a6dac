"""What the teachers say about a batch: computed while the student trains, on the very view that the student
sees.

Outputs that were computed beforehand fit only the views they were computed on, and a student then memorises
them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from worker.run import Teacher
from worker.training.batches import Batch, TrainingImages
from worker.training.losses import soft_targets
from worker.training.memory_format import use_fastest_format


class TeacherTargets:
    """Soft targets of one or several teachers, each at its own input size."""

    def __init__(
        self,
        teachers: Sequence[Teacher],
        images: TrainingImages,
        *,
        temperature: float,
        combine: Literal["mean_probability", "mean_logit"],
        weights: Sequence[float] | None,
    ) -> None:
        self._teachers = teachers
        self._images = images
        self._temperature = temperature
        self._combine = combine
        self._weights = weights
        trial = images.batch(0, "none")
        for teacher in teachers:
            use_fastest_format(teacher.network.eval(), images.pixels(trial, teacher.preprocessing))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Probabilities [N, C] at the temperature, columns in the data's class order."""
        pixels: dict[str, Tensor] = {}
        members_NC = []
        for teacher in self._teachers:
            key = repr(sorted(teacher.preprocessing.items()))
            if key not in pixels:  # members of an ensemble mostly share their preprocessing
                pixels[key] = self._images.pixels(batch, teacher.preprocessing)
            members_NC.append(teacher.logits(pixels[key]).float())
        return soft_targets(members_NC, self._temperature, combine=self._combine, weights=self._weights)
