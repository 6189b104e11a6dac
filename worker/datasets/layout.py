"""From file names to splits and classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import Problem
from app.spec.base import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test", "unlabeled")
_ALIASES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "unlabeled": "unlabeled",
    "unlabelled": "unlabeled",
}
# The course's food-11: "3_127.jpg" is image 127 of class 3.
_FLAT_NAME = re.compile(r"(?P<class>.+)_\d+(\.[^.]*)?")
_MAX_CLASSES = 10_000
_MAX_CLASS_NAME = 200


@dataclass(frozen=True)
class Place:
    """Where an image belongs. `split` None: the archive names no splits. `label` None: it has no class (split
    unlabeled)."""

    split: Split | None
    label: str | None


@dataclass(frozen=True)
class Layout:
    name: Literal["class_folders", "flat"]
    class_names: list[str]
    """In the order of the labels."""
    places: list[Place]
    """One an image, in the order given."""
    _wrapper: int

    def class_of(self, path: str) -> str | None:
        """The class that a path names, whether or not an image of it is good; None in `unlabeled`."""
        parts = path.split("/")[self._wrapper :]
        # By its name, for a split of bad images only is none.
        split = _ALIASES.get(parts[0].casefold()) if len(parts) > 1 else None
        if split == "unlabeled" or not parts:
            return None
        read_class = _folder_class if self.name == "class_folders" else _flat_class
        return read_class(parts[1:] if split else parts)


def arrange(
    paths: Sequence[str],
    folders: Iterable[str],
    layout: Literal["auto", "class_folders", "flat"],
    bad_paths: Iterable[str] = (),
) -> Layout:
    """Read splits and classes from the images' paths. `folders`: those without images, named in the archive;
    `bad_paths`: of images that cannot be used.

    Raises Problem 422 that names the files or folders which do not fit.
    """
    wrapper = _wrapper(paths, layout)
    names = [path.split("/")[wrapper:] for path in paths]
    split_folders = _split_folders(names)
    splits = [split_folders.get(parts[0]) if len(parts) > 1 else None for parts in names]
    inner = [parts[1:] if split else parts for parts, split in zip(names, splits, strict=True)]
    labelled = [index for index, split in enumerate(splits) if split != "unlabeled"]
    if not labelled:
        raise Problem(422, "NO_CLASSES", f"None of the {len(paths)} images has a class. {_EXPECTED}")
    if any(split in ("train", "val", "test") for split in splits):
        _refuse_strays([paths[i] for i in labelled if splits[i] is None], split_folders)

    chosen = _choose_layout([inner[i] for i in labelled]) if layout == "auto" else layout
    read_class = _folder_class if chosen == "class_folders" else _flat_class
    classes = [
        None if split == "unlabeled" else read_class(parts)
        for parts, split in zip(inner, splits, strict=True)
    ]
    _refuse_classless([paths[i] for i in labelled if classes[i] is None], chosen)
    class_names = _ordered({name for name in classes if name is not None}, chosen)
    if chosen == "class_folders":
        _refuse_empty_folders(folders, wrapper, split_folders, set(class_names))
    places = [Place(split, name) for split, name in zip(splits, classes, strict=True)]
    arranged = Layout(chosen, class_names, places, wrapper)
    _refuse_spoilt_classes(arranged, bad_paths)
    return arranged


_EXPECTED = (
    "Expected: <class>/<image>, or train|val|test/<class>/<image> with images without a class in unlabeled/, "
    "or flat <class>_<number>.jpg files."
)


def _wrapper(paths: Sequence[str], layout: str) -> int:
    """How many outer folders only wrap the data set: `photos/train/hat/1.jpg` has one, `hat/1.jpg` none."""
    names = [path.split("/") for path in paths]
    depth = 0
    while all(len(parts) > depth + 1 for parts in names):
        outer = {parts[depth] for parts in names}
        if len(outer) > 1 or outer.pop().casefold() in _ALIASES:
            break
        inner = [parts[depth + 1 :] for parts in names]
        # A folder whose images lie directly in it is a class, unless the file names tell several classes
        # apart.
        if any(len(parts) == 1 for parts in inner) and layout != "flat" and len(_flat_classes(inner)) < 2:
            break
        depth += 1
    return depth


def _flat_classes(names: list[list[str]]) -> set[str]:
    classes = {_flat_class(parts) for parts in names}
    return set() if None in classes else {name for name in classes if name}


def _split_folders(names: list[list[str]]) -> dict[str, Split]:
    """The top folders that name a split: {"training": "train"}."""
    found = {
        parts[0]: _ALIASES[parts[0].casefold()]
        for parts in names
        if len(parts) > 1 and parts[0].casefold() in _ALIASES
    }
    for split, count in Counter(found.values()).items():
        if count > 1:
            both = sorted(folder for folder, meant in found.items() if meant == split)
            raise Problem(
                422, "LAYOUT_UNCLEAR", f"The folders {both} all mean the split {split!r}: keep one."
            )
    return found


def _refuse_strays(strays: list[str], split_folders: dict[str, Split]) -> None:
    if strays:
        raise Problem(
            422,
            "LAYOUT_UNCLEAR",
            f"Beside the split folders {sorted(split_folders)} there are {len(strays)} images outside any "
            "split, e.g. "
            f"{strays[:3]}: move them into a split or remove them (a class may not be called like a split).",
        )


def _choose_layout(inner: list[list[str]]) -> Literal["class_folders", "flat"]:
    return "flat" if all(len(parts) == 1 and _flat_class(parts) for parts in inner) else "class_folders"


def _folder_class(parts: list[str]) -> str | None:
    return unicodedata.normalize("NFC", parts[0]) if len(parts) > 1 else None


def _flat_class(parts: list[str]) -> str | None:
    match = _FLAT_NAME.fullmatch(parts[-1])
    return unicodedata.normalize("NFC", match["class"]) if match else None


def _refuse_classless(paths: list[str], layout: str) -> None:
    if paths:
        raise Problem(
            422,
            "NO_CLASSES",
            f"{len(paths)} images have no class in the layout {layout!r}, e.g. {paths[:3]}. {_EXPECTED} "
            "Images without a class belong into a folder called unlabeled.",
        )


def _ordered(names: set[str], layout: str) -> list[str]:
    """As torchvision's ImageFolder sorts, so that a teacher trained with it agrees; flat numbers count as
    numbers."""
    if len(names) > _MAX_CLASSES:
        raise Problem(
            422, "TOO_MANY_CLASSES", f"There are {len(names)} classes; at most {_MAX_CLASSES} are taken."
        )
    longest = max(names, key=len)
    if len(longest) > _MAX_CLASS_NAME:
        raise Problem(
            422,
            "CLASS_NAME_TOO_LONG",
            f"The class {longest[:40]!r}… has {len(longest)} letters, more than {_MAX_CLASS_NAME}.",
        )
    if len(names) == 1:
        raise Problem(
            422, "ONE_CLASS", f"All images are of one class, {longest!r}: a classifier needs at least two."
        )
    numeric = layout == "flat" and all(name.isdecimal() and name.isascii() for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if numeric else sorted(names)


def _refuse_spoilt_classes(arranged: Layout, bad_paths: Iterable[str]) -> None:
    """A class of bad images only would be left out, and every label after it shifted."""
    known = set(arranged.class_names)
    for path in bad_paths:
        name = arranged.class_of(path)
        if name is not None and name not in known:
            raise Problem(
                422,
                "EMPTY_CLASS",
                f"All images of the class {name!r} are bad, e.g. {path!r}: repair one, or remove the class.",
            )


def _refuse_empty_folders(
    folders: Iterable[str], wrapper: int, split_folders: dict[str, Split], class_names: set[str]
) -> None:
    """A folder at the place of a class without a single image is a mistake that would shift every label after
    it."""
    for folder in sorted(folders):
        parts = folder.split("/")[wrapper:]
        labelled = bool(parts) and split_folders.get(parts[0]) in ("train", "val", "test")
        depth = 2 if labelled else 1
        if len(parts) == depth and (labelled or not set(split_folders.values()) & {"train", "val", "test"}):
            name = unicodedata.normalize("NFC", parts[-1])
            if name not in class_names and name.casefold() not in _ALIASES:
                raise Problem(
                    422,
                    "EMPTY_CLASS",
                    f"The class folder {folder!r} holds no image that can be read: fill it or remove it.",
                )
