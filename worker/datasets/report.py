"""What the owner of a data set is told about it."""

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from app.errors import Problem
from app.spec.base import Split
from worker.datasets import layout
from worker.datasets.reading import NUM_EXAMPLES, Contents, Image

# Smaller pictures say little, whatever they are scaled to.
_SMALL_SIDE = 8
_MAX_CLASSES_NAMED = 100


def split_digest(rows: Iterable[tuple[str, int | None, str]]) -> str:
    """sha256 over the lines `path label sha256` of one split, sorted by path; a missing label is `null`."""
    digest = hashlib.sha256()
    for path, label, sha256 in sorted(rows):
        digest.update(f"{path} {json.dumps(label)} {sha256}\n".encode())
    return digest.hexdigest()


def check_classes(images: list[Image], class_names: list[str]) -> list[str]:
    """Warnings about classes. Raises Problem 422 EMPTY_CLASS for one without an image to train on."""
    counts = _class_counts(images)
    warnings = []
    for label, name in enumerate(class_names):
        if not counts["train"][label]:
            where = " and ".join(split for split in ("val", "test") if counts[split][label])
            raise Problem(
                422,
                "EMPTY_CLASS",
                f"The class {name!r} has images in {where} but none in train: add some, or remove the class.",
            )
    for split in ("val", "test"):
        if not counts[split]:
            warnings.append(f"There is no {split} split.")
        elif missing := [name for label, name in enumerate(class_names) if not counts[split][label]]:
            warnings.append(
                f"In {split} {len(missing)} of {len(class_names)} classes have no image: "
                f"{missing[:NUM_EXAMPLES]}."
            )
    if alone := [name for label, name in enumerate(class_names) if counts["train"][label] == 1]:
        warnings.append(f"{len(alone)} classes have a single image to train on: {alone[:NUM_EXAMPLES]}.")
    for names in _alike(class_names)[:NUM_EXAMPLES]:
        warnings.append(f"The class names {names[:NUM_EXAMPLES]} are nearly the same: are they one class?")
    return warnings


def make_report(
    images: list[Image], arranged: layout.Layout, contents: Contents, warnings: list[str]
) -> dict[str, Any]:
    """Everything that is known about a good data set, with its warnings (`warnings` first)."""
    in_splits, in_classes = _copies(images)
    return {
        "class_names": arranged.class_names,
        "layout": arranged.name,
        "splits": {
            split: _split_report(images, split, arranged.class_names)
            for split in layout.SPLITS
            if any(image.split == split for image in images)
        },
        "mean_image_size": {
            "height": round(sum(image.size.height for image in images) / len(images), 1),
            "width": round(sum(image.size.width for image in images) / len(images), 1),
        },
        "bad_images": _bad_images(contents, arranged),
        "ignored_files": contents.ignored,
        "ignored_archives": len(contents.archives),
        "duplicates_across_splits": len(in_splits),
        "duplicate_examples": in_splits[:NUM_EXAMPLES],
        "duplicates_across_classes": len(in_classes),
        "warnings": warnings + _warnings(images, contents, in_splits, in_classes),
    }


def _warnings(
    images: list[Image], contents: Contents, in_splits: list[list[str]], in_classes: list[list[str]]
) -> list[str]:
    warnings = []
    if in_splits:
        warnings.append(
            f"{len(in_splits)} images lie in more than one split (same bytes), e.g. {in_splits[0]}: "
            "accuracies there are too good."
        )
    if in_classes:
        warnings.append(
            f"{len(in_classes)} images lie in more than one class (same bytes), e.g. {in_classes[0]}: "
            "no network can get them all right."
        )
    if contents.bad:
        warnings.append(f"{len(contents.bad)} images could not be read and were skipped.")
    if small := [image.path for image in images if min(image.size.height, image.size.width) < _SMALL_SIDE]:
        warnings.append(
            f"{len(small)} images have a side of less than {_SMALL_SIDE} pixels, e.g. {small[0]!r}."
        )
    if contents.archives:
        warnings.append(
            f"{len(contents.archives)} archives lie in it, e.g. {contents.archives[0]!r}: "
            "archives within archives are not read."
        )
    return warnings


def _bad_images(contents: Contents, arranged: layout.Layout) -> dict[str, Any]:
    per_class = Counter(arranged.class_of(path) for path, _ in contents.bad)
    return {
        "count": len(contents.bad),
        "per_class": {
            name: count for name, count in per_class.most_common(_MAX_CLASSES_NAMED) if name is not None
        },
        "examples": [{"path": path, "reason": reason} for path, reason in contents.bad[:NUM_EXAMPLES]],
    }


def _class_counts(images: Iterable[Image]) -> dict[str, Counter[int]]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for image in images:
        if image.label is not None:
            counts[image.split][image.label] += 1
    return counts


def _split_report(images: list[Image], split: Split, class_names: list[str]) -> dict[str, Any]:
    members = [image for image in images if image.split == split]
    counts = _class_counts(members)[split]
    return {
        "num_images": len(members),
        "digest": split_digest((image.path, image.label, image.sha256) for image in members),
        "per_class": {}
        if split == "unlabeled"
        else {name: counts[label] for label, name in enumerate(class_names)},
    }


def _copies(images: list[Image]) -> tuple[list[list[str]], list[list[str]]]:
    """The images that lie in several splits, and those in several classes: for each up to five of its paths."""
    same: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        same[image.sha256].append(image)
    several = [copies for copies in same.values() if len(copies) > 1]
    in_splits = [copies for copies in several if len({image.split for image in copies}) > 1]
    in_classes = [copies for copies in several if len({image.label for image in copies} - {None}) > 1]
    return [_paths(copies) for copies in in_splits], [_paths(copies) for copies in in_classes]


def _paths(copies: list[Image]) -> list[str]:
    return [image.path for image in copies[:NUM_EXAMPLES]]


def _alike(class_names: list[str]) -> list[list[str]]:
    """Names that people read as one: they differ in case, spacing, invisible characters or leading zeros."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        visible = "".join(character for character in plain if unicodedata.category(character) != "Cf")
        groups["".join(visible.replace("_", " ").replace("-", " ").split()).lstrip("0")].append(name)
    return [names for names in groups.values() if len(names) > 1]
