"""Which image is trained on and which one measures: as the source says, or made here, repeatably."""

import hashlib
from collections import defaultdict
from dataclasses import replace

from app.errors import Problem
from app.spec.base import Split
from app.spec.resources import DatasetSpec
from worker.datasets import layout
from worker.datasets.reading import Image


def place(images: list[Image], arranged: layout.Layout, spec: DatasetSpec) -> tuple[list[Image], list[str]]:
    """Give every image its split and label; make the splits that the source does not name. Sorted by (split,
    path), with warnings."""
    label_of = {name: label for label, name in enumerate(arranged.class_names)}
    placed: list[Image] = []
    unsplit: list[Image] = []
    for image, where in zip(images, arranged.places, strict=True):
        label = None if where.label is None else label_of[where.label]
        (unsplit if where.split is None else placed).append(
            replace(image, split=where.split or "train", label=label)
        )
    warnings: list[str] = []
    if unsplit:
        placed += _split(unsplit, spec, test_fraction=spec.test_fraction)
    elif not any(image.split == "train" for image in placed):
        raise Problem(
            422, "NO_TRAIN_SPLIT", "There is a split folder but none called train: nothing could be trained."
        )
    elif not any(image.split == "val" for image in placed) and spec.val_fraction > 0:
        train = [image for image in placed if image.split == "train"]
        placed = [image for image in placed if image.split != "train"] + _split(train, spec, test_fraction=0)
        count = sum(image.split == "val" for image in placed)
        warnings.append(
            f"There is no val split: {count} of {len(train)} train images became val "
            f"(val_fraction {spec.val_fraction})."
        )
    return sorted(placed, key=lambda image: (image.split, image.path)), warnings


def _split(images: list[Image], spec: DatasetSpec, *, test_fraction: float) -> list[Image]:
    """Stratified and repeatable: the order within a class is a hash of seed and content, so names and archive
    order do not matter, and copies of one image stay in one split."""
    by_class: dict[int | None, list[Image]] = defaultdict(list)
    for image in sorted(images, key=lambda image: (_shuffled(image, spec.split_seed), image.path)):
        by_class[image.label].append(image)
    result = []
    for members in by_class.values():
        end_of_test = _cut(members, 0, test_fraction)
        end_of_val = _cut(members, end_of_test, spec.val_fraction)
        for index, image in enumerate(members):
            split: Split = "test" if index < end_of_test else "val" if index < end_of_val else "train"
            result.append(replace(image, split=split))
    return result


def _shuffled(image: Image, seed: int) -> str:
    return hashlib.sha256(f"{seed} {image.sha256}".encode()).hexdigest()


def _cut(members: list[Image], start: int, fraction: float) -> int:
    """Where a part of about `fraction` that begins at `start` ends: at least one image from classes of three
    or more, never the class's last one, never between copies."""
    wanted = round(fraction * len(members))
    if fraction > 0 and len(members) >= 3:
        wanted = max(wanted, 1)
    end = min(start + wanted, len(members) - 1)
    while start < end and members[end].sha256 == members[end - 1].sha256:
        end -= 1
    return end
