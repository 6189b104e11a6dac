"""An upload, or the operator's folder, becomes an index and a pack (docs/formats.md, "Data set")."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.errors import Problem
from app.spec.base import Split
from app.spec.resources import DatasetSpec
from worker.datasets import layout
from worker.datasets.archives import Folder, Limits, Member, Position, read_entries, unsafe
from worker.datasets.images import (
    BadImageError,
    Size,
    check_image,
    looks_like_image,
    named_like_image,
    quiet_pillow,
)

Progress = Callable[[float, float, str], None]
"""Called with how far the reading is: done, total, unit ("file" or "byte")."""

_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Image:
    """One good image of the source. `split` and `label` are known once all names are."""

    path: str
    offset: int | None
    nbytes: int
    sha256: str
    size: Size
    split: Split = "train"
    label: int | None = None


@dataclass
class _Contents:
    """What the source turned out to hold."""

    images: list[Image] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0
    folders: set[str] = field(default_factory=set)
    """Named folders and those of bad images: the places of classes that may have stayed empty."""


def build_dataset(
    spec: DatasetSpec,
    source: Path,
    out_dir: Path,
    *,
    progress: Progress = lambda done, total, unit: None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Check every image of `source` and write `out_dir/index.json` and, for an archive, `out_dir/pack`.

    `source` is a zip, a tar (.gz, .xz) or a folder; a folder is indexed in place and has no pack. Returns the
    report: class names, splits with their digests, what was skipped, warnings. Raises Problem 422, leaving
    neither file behind.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    pack = out_dir / "pack"
    try:
        with quiet_pillow():
            contents = _read(source, pack, spec, progress, limits or Limits())
        _refuse_nothing(contents)
        arranged = layout.arrange([image.path for image in contents.images], contents.folders, spec.layout)
        images, warnings = _place(contents.images, arranged, spec)
        warnings += _check_classes(images, arranged.class_names)
        report = _report(images, arranged, contents, warnings)
        _write_index(out_dir / "index.json", arranged.class_names, images)
        return report
    except BaseException:
        pack.unlink(missing_ok=True)
        raise


# --- reading ---


def _read(source: Path, pack: Path, spec: DatasetSpec, progress: Progress, limits: Limits) -> _Contents:
    """One pass: keep image bytes in the pack, decode each image fully, count the rest."""
    contents = _Contents()
    is_folder = source.is_dir()
    with open(os.devnull if is_folder else pack, "wb") as packed:
        for path, data, verdict in _checked_images(source, limits, contents, progress):
            try:
                size = verdict.result()
            except BadImageError as bad:
                _note_bad(contents, path, str(bad), spec.max_bad_images)
                continue
            offset = None if is_folder else packed.tell()
            packed.write(data)
            contents.images.append(Image(path, offset, len(data), hashlib.sha256(data).hexdigest(), size))
        _refuse_bad(contents, spec.max_bad_images)
        packed.flush()
        if not is_folder:
            os.fsync(packed.fileno())
    return contents


def _checked_images(
    source: Path, limits: Limits, contents: _Contents, progress: Progress
) -> Iterator[tuple[str, bytes, Future[Size]]]:
    """Image files in the source's order, decoded by threads that run a few images ahead."""
    waiting: list[tuple[str, bytes, Future[Size]]] = []
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        for path, data, position in _image_files(source, limits, contents):
            waiting.append((path, data, pool.submit(check_image, data)))
            if len(waiting) > 2 * num_threads:
                yield waiting.pop(0)
            progress(position.done, position.total, position.unit)
        yield from waiting


def _image_files(source: Path, limits: Limits, contents: _Contents) -> Iterator[tuple[str, bytes, Position]]:
    names: set[str] = set()
    for entry, position in read_entries(source, limits):
        if _is_hidden(entry.path):
            contents.ignored += isinstance(entry, Member)
        elif isinstance(entry, Folder):
            contents.folders.add(entry.path)
        else:
            if entry.path in names:
                raise unsafe(
                    f"It holds {entry.path!r} twice (names are compared after Unicode normalisation)."
                )
            names.add(entry.path)
            data = _image_bytes(entry, limits)
            if data is None:
                contents.ignored += 1
                contents.folders.discard(entry.path.rpartition("/")[0])
            else:
                yield entry.path, data, position


def _is_hidden(path: str) -> bool:
    """What file managers leave behind: .DS_Store, ._photo.jpg, __MACOSX/, Thumbs.db."""
    return any(
        part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in path.split("/")
    )


def _image_bytes(member: Member, limits: Limits) -> bytes | None:
    """The file's bytes if it is, or claims to be, an image. A file cut at the size limit fails to decode:
    that is its verdict."""
    with member.opened() as stream:
        head = _read_up_to(stream.read, 16)
        if not looks_like_image(head) and not named_like_image(member.path):
            return None
        return head + _read_up_to(stream.read, limits.max_image_bytes - len(head))


def _read_up_to(read: Callable[[int], bytes], num_bytes: int) -> bytes:
    chunks, missing = [], num_bytes
    while missing and (chunk := read(min(missing, 1 << 20))):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def _note_bad(contents: _Contents, path: str, reason: str, allowed: int) -> None:
    contents.bad.append((path, reason))
    contents.folders.add(path.rpartition("/")[0])
    if len(contents.bad) >= allowed + _NUM_EXAMPLES:  # enough to name some and stop
        _refuse_bad(contents, allowed)


def _refuse_bad(contents: _Contents, allowed: int) -> None:
    if len(contents.bad) > allowed:
        examples = "; ".join(f"{path} {reason}" for path, reason in contents.bad[:_NUM_EXAMPLES])
        raise Problem(
            422,
            "TOO_MANY_BAD_IMAGES",
            f"At least {len(contents.bad)} images cannot be used, and max_bad_images is {allowed}: "
            f"{examples}. "
            "Repair or remove them, or raise max_bad_images to skip them.",
        )


def _refuse_nothing(contents: _Contents) -> None:
    if not contents.images:
        raise Problem(
            422,
            "NO_IMAGES",
            f"There is no image in it ({contents.ignored} other files, {len(contents.bad)} bad images): "
            "PNG, JPEG, WebP and BMP are read.",
        )


# --- splits ---


def _place(images: list[Image], arranged: layout.Layout, spec: DatasetSpec) -> tuple[list[Image], list[str]]:
    """Give every image its split and label; make the splits that the source does not name. Sorted by (split,
    path)."""
    label_of = {name: label for label, name in enumerate(arranged.class_names)}
    placed, unsplit = [], []
    for image, place in zip(images, arranged.places, strict=True):
        label = None if place.label is None else label_of[place.label]
        (unsplit if place.split is None else placed).append(
            replace(image, split=place.split or "train", label=label)
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


def _check_classes(images: list[Image], class_names: list[str]) -> list[str]:
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
                f"{missing[:_NUM_EXAMPLES]}."
            )
    return warnings


def _class_counts(images: Iterable[Image]) -> dict[str, Counter[int]]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for image in images:
        if image.label is not None:
            counts[image.split][image.label] += 1
    return counts


# --- results ---


def split_digest(rows: Iterable[tuple[str, int | None, str]]) -> str:
    """sha256 over the lines `path label sha256` of one split, sorted by path; a missing label is `null`."""
    digest = hashlib.sha256()
    for path, label, sha256 in sorted(rows):
        digest.update(f"{path} {json.dumps(label)} {sha256}\n".encode())
    return digest.hexdigest()


def _write_index(path: Path, class_names: list[str], images: list[Image]) -> None:
    rows = [
        {
            "path": image.path,
            "split": image.split,
            "label": image.label,
            "offset": image.offset,
            "nbytes": image.nbytes,
            "sha256": image.sha256,
        }
        for image in images
    ]
    path.write_text(
        json.dumps({"class_names": class_names, "images": rows}, ensure_ascii=False), encoding="utf-8"
    )


def _report(
    images: list[Image], arranged: layout.Layout, contents: _Contents, warnings: list[str]
) -> dict[str, Any]:
    duplicates, contradictions = _copies(images)
    if duplicates:
        warnings.append(
            f"{duplicates} images lie in more than one split (same bytes): accuracies there are too good."
        )
    if contradictions:
        warnings.append(
            f"{contradictions} images lie in more than one class (same bytes): "
            "no network can get them all right."
        )
    if contents.bad:
        warnings.append(f"{len(contents.bad)} images could not be read and were skipped.")
    return {
        "class_names": arranged.class_names,
        "layout": arranged.name,
        "splits": {
            split: _split_report(images, split, arranged.class_names)
            for split in layout.SPLITS
            if _has(images, split)
        },
        "mean_image_size": {
            "height": round(sum(image.size.height for image in images) / len(images), 1),
            "width": round(sum(image.size.width for image in images) / len(images), 1),
        },
        "bad_images": {
            "count": len(contents.bad),
            "examples": [{"path": path, "reason": reason} for path, reason in contents.bad[:_NUM_EXAMPLES]],
        },
        "ignored_files": contents.ignored,
        "duplicates_across_splits": duplicates,
        "warnings": warnings,
    }


def _has(images: list[Image], split: Split) -> bool:
    return any(image.split == split for image in images)


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


def _copies(images: list[Image]) -> tuple[int, int]:
    """How many different images occur in several splits, and in several classes."""
    splits, labels = defaultdict(set), defaultdict(set)
    for image in images:
        splits[image.sha256].add(image.split)
        if image.label is not None:
            labels[image.sha256].add(image.label)
    return sum(len(found) > 1 for found in splits.values()), sum(len(found) > 1 for found in labels.values())
