"""What a network is trained on: several splits as one, in an order and with views that follow from seed and
step number alone.

Mixup: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
class Mixup:
    """Image i of a batch is shown as share * image i + (1 - share) * image partner_N[i]."""

    share: float
    partner_N: Tensor
    """int64 on the CPU: rows of the batch."""
    partner_labels_N: Tensor
    """int64 on the device; -1 where the partner has no label."""


@dataclass(frozen=True)
class Batch:
    """Which images, seen how. Each network takes its own pixels of it: `TrainingImages.pixels(batch,
    preprocessing)`."""

    indices_N: Tensor
    """int64 on the CPU: positions in the splits, one after the other."""
    labels_N: Tensor
    """int64 on the device; -1 where an image has no label."""
    view: View | None
    step: int = -1
    """0-based; -1 where it is no batch of a training."""
    view_number: int | None = None
    """Which of its numbered views each image is seen in, where there are such (`TrainingImages.views`)."""
    mixup: Mixup | None = None
    whole: "Batch | None" = None
    """Of a part: the batch it was taken from, and which rows."""
    rows: slice | None = None

    def part(self, rows: slice) -> "Batch":
        """Some rows as a batch of their own: the same pixels, and the same share of the whole batch's loss."""
        assert self.whole is None, "a part is not divided again"
        mixup = self.mixup
        if mixup is not None:
            mixup = replace(
                mixup,
                partner_N=mixup.partner_N[rows],
                partner_labels_N=mixup.partner_labels_N[rows],
            )
        view = None if self.view is None else self.view.rows(rows)
        return replace(
            self,
            indices_N=self.indices_N[rows],
            labels_N=self.labels_N[rows],
            view=view,
            mixup=mixup,
            whole=self,
            rows=rows,
        )


class TrainingImages:
    """The images of some splits, one after the other, in batches.

    `train_fraction`: the share that is used, of each class over all splits and of the unlabelled images of each
    split, at least one of each; the same images for the same seed, and a smaller share is part of a larger one.
    `mixup`: the parameter of the Beta distribution that shares are drawn from; 0: no mixup.
    `views`: how many views each image has; epoch e shows number e mod `views`, which follows from seed, image and number
    alone. None: every batch draws new ones.
    """

    def __init__(
        self,
        data: Data,
        splits: Sequence[Split],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        train_fraction: float = 1.0,
        mixup: float = 0.0,
        views: int | None = None,
    ) -> None:
        self.labels_N = torch.cat([data.labels(split) for split in splits])
        """Of all images, used or not; `Batch.indices_N` are positions here."""
        self.digests = [data.digest(split) for split in splits]
        self.data = data
        self.splits = splits
        self.device = device
        self.batch_size = batch_size
        self._seed = seed
        self._mixup = mixup
        self._views = views
        self._images: dict[str, list[Tensor]] = {}
        self._used_M: Tensor | None = None
        if train_fraction < 1:
            strata = _strata([data.labels(split) for split in splits])
            self._used_M = _some_of_each(strata, train_fraction, seed)
            self.digests.append(hashlib.sha256(repr(self._used_M.tolist()).encode()).hexdigest())

    @property
    def num_images(self) -> int:
        """Of one epoch."""
        return len(self.labels_N) if self._used_M is None else len(self._used_M)

    @property
    def steps_per_epoch(self) -> int:
        """A single image left over is passed by, as batch normalisation cannot train on one."""
        whole, rest = divmod(self.num_images, self.batch_size)
        return max(whole + (rest > 1), 1)

    def num_images_in(self, num_steps: int) -> int:
        """Shown in so many steps from the beginning of an epoch on."""
        epochs, steps = divmod(num_steps, self.steps_per_epoch)
        an_epoch = min(self.num_images, self.steps_per_epoch * self.batch_size)
        return epochs * an_epoch + min(steps * self.batch_size, an_epoch)

    def batch(self, step: int, augmentation: Literal["none", "light", "strong"]) -> Batch:
        """The batch of the 0-based step `step`: the same on every call and after every restart."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order_N = _epoch_order(self._seed, epoch, self.num_images)
        indices_N = order_N[position * self.batch_size : (position + 1) * self.batch_size]
        if self._used_M is not None:
            indices_N = self._used_M[indices_N]
        if self._views is None:
            view_number = None
            view = draw_view(augmentation, len(indices_N), _generator(self._seed, "view", step))
        else:
            view_number = epoch % self._views
            view = _numbered_view(augmentation, self._seed, view_number, len(self.labels_N))
            view = None if view is None else view.rows(indices_N)
        labels_N = self.labels_N[indices_N].to(self.device)
        return Batch(
            indices_N,
            labels_N,
            None if view is None else view.to(self.device),
            step=step,
            view_number=view_number,
            mixup=self._draw_mixup(step, labels_N) if self._mixup else None,
        )

    def plain(self) -> Iterator[Batch]:
        """All images once, used or not, in order and as they are."""
        for indices_N in torch.arange(len(self.labels_N)).split(self.batch_size):
            yield Batch(indices_N, self.labels_N[indices_N].to(self.device), None)

    def paths(self) -> list[str]:
        """Of all images, used or not, in the order of `labels_N`."""
        return [path for split in self.splits for path in self.data.paths(split)]

    def _draw_mixup(self, step: int, labels_N: Tensor) -> Mixup:
        # Python's generator: torch's Beta takes none, and would draw from the global one.
        share = random.Random(mixed_seed(self._seed, "share", step)).betavariate(self._mixup, self._mixup)
        partner_N = torch.randperm(len(labels_N), generator=_generator(self._seed, "partner", step))
        return Mixup(share, partner_N, labels_N[partner_N.to(self.device)])

    def pixels(self, batch: Batch, preprocessing: Geometry) -> Tensor:
        """float32 [N, 3, H, W] on the device: the batch as a network with this preprocessing sees it."""
        if batch.whole is not None and batch.rows is not None:  # a part's partners lie outside of it
            return self.pixels(batch.whole, preprocessing)[batch.rows]
        images_NCHW = self._gather(batch.indices_N, preprocessing).to(self.device)
        pixels_NCHW = network_input(images_NCHW, batch.view, preprocessing)
        if batch.mixup is None:
            return pixels_NCHW
        partners_NCHW = pixels_NCHW[batch.mixup.partner_N.to(self.device)]
        return partners_NCHW.lerp_(pixels_NCHW, batch.mixup.share)

    def _gather(self, indices_N: Tensor, preprocessing: Geometry) -> Tensor:
        key = repr(sorted(preprocessing.items()))
        if key not in self._images:
            self._images[key] = [self.data.images(split, preprocessing) for split in self.splits]
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
    torch.manual_seed(mixed_seed(seed, "step", step))


def mixed_seed(seed: int, purpose: str, number: int) -> int:
    """Independent 63-bit seeds: neighbouring seeds and steps must not share a stream."""
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed_seed(seed, purpose, number))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_images: int) -> Tensor:
    return torch.randperm(num_images, generator=_generator(seed, "order", epoch))


@lru_cache(maxsize=1)
def _numbered_view(
    augmentation: Literal["none", "light", "strong"], seed: int, number: int, num_images: int
) -> View | None:
    """One view of every image: an epoch shows all of them."""
    return draw_view(augmentation, num_images, _generator(seed, "numbered view", number))


def _strata(labels: Sequence[Tensor]) -> list[Tensor]:
    """Positions in the splits, one after the other: of each class over all splits, then of each split's unlabelled."""
    labels_N = torch.cat(list(labels))
    strata = [(labels_N == label).nonzero()[:, 0] for label in labels_N.unique().tolist() if label >= 0]
    start = 0
    for of_split_N in labels:
        strata.append(start + (of_split_N < 0).nonzero()[:, 0])
        start += len(of_split_N)
    return [positions for positions in strata if len(positions)]


def _some_of_each(strata: Sequence[Tensor], fraction: float, seed: int) -> Tensor:
    """int64 [M], sorted: round(fraction * size) of each stratum, at least one."""
    chosen = []
    for number, positions in enumerate(strata):
        order = torch.randperm(len(positions), generator=_generator(seed, "fraction", number))
        chosen.append(positions[order[: max(round(fraction * len(positions)), 1)]])
    return torch.cat(chosen).sort().values
