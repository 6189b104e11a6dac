"""What a network is trained on: several splits as one, in an order and with views that follow from seed and
step number alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from app.spec.base import Split
from models.load_artifact import normalise
from worker.run import Data
from worker.training.augmentation import View, apply_view, draw_view

Geometry = dict[str, Any]
"""A preprocessing: resize, crop, interpolation, mean, std."""


@dataclass(frozen=True)
class Batch:
    """Which images, seen how. Each network takes its own pixels of it: `TrainingImages.pixels(batch,
    preprocessing)`."""

    indices_N: Tensor
    labels_N: Tensor
    """int64 on the device; -1 where an image has no label."""
    view: View | None


class TrainingImages:
    """The images of some splits, one after the other, in batches."""

    def __init__(
        self, data: Data, splits: Sequence[Split], *, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self.labels_N = torch.cat([data.labels(split) for split in splits])
        self.digests = [data.digest(split) for split in splits]
        self._data = data
        self._splits = splits
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._images: dict[str, list[Tensor]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """A single image left over is passed by, as batch normalisation cannot train on one."""
        whole, rest = divmod(len(self.labels_N), self._batch_size)
        return max(whole + (rest > 1), 1)

    def batch(self, step: int, augmentation: Literal["none", "light", "strong"]) -> Batch:
        """The batch of the 0-based step `step`: the same on every call and after every restart."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order_N = _epoch_order(self._seed, epoch, len(self.labels_N))
        indices_N = order_N[position * self._batch_size : (position + 1) * self._batch_size]
        view = draw_view(augmentation, len(indices_N), _generator(self._seed, "view", step))
        return Batch(
            indices_N,
            self.labels_N[indices_N].to(self._device),
            None if view is None else view.to(self._device),
        )

    def pixels(self, batch: Batch, preprocessing: Geometry) -> Tensor:
        """float32 [N, 3, H, W] on the device: the batch as a network with this preprocessing sees it."""
        images_NCHW = self._gather(batch.indices_N, preprocessing).to(self._device)
        return network_input(images_NCHW, batch.view, preprocessing)

    def _gather(self, indices_N: Tensor, preprocessing: Geometry) -> Tensor:
        key = repr(sorted(preprocessing.items()))
        if key not in self._images:
            self._images[key] = [self._data.images(split, preprocessing) for split in self._splits]
        parts = self._images[key]
        if len(parts) == 1:
            return parts[0][indices_N]
        # The splits stay in their own mapped files: joining them would copy every image into memory.
        gathered_NCHW = parts[0].new_empty((len(indices_N), *parts[0].shape[1:]))
        start = 0
        for part in parts:
            is_here_N = (indices_N >= start) & (indices_N < start + len(part))
            gathered_NCHW[is_here_N] = part[indices_N[is_here_N] - start]
            start += len(part)
        return gathered_NCHW


def network_input(images_NCHW: Tensor, view: View | None, preprocessing: Geometry) -> Tensor:
    """Normalised float32 from uint8 images. Without a view it is exactly what the downloaded file's reader
    computes."""
    if view is None:
        return normalise(images_NCHW, preprocessing)
    mean, std = (
        torch.tensor(preprocessing[key], device=images_NCHW.device).view(1, 3, 1, 1)
        for key in ("mean", "std")
    )
    return apply_view(images_NCHW, view).sub_(mean).div_(std)


def seed_step(seed: int, step: int) -> None:
    """Dropout and whatever else draws from torch's own generators then depends on the step number alone."""
    torch.manual_seed(_mixed(seed, "step", step))


def _mixed(seed: int, purpose: str, number: int) -> int:
    """Independent 63-bit seeds: neighbouring seeds and steps must not share a stream."""
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(seed, purpose, number))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_images: int) -> Tensor:
    return torch.randperm(num_images, generator=_generator(seed, "order", epoch))
