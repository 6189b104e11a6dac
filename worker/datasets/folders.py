"""A folder of the operator's, read in place."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from app.errors import Problem
from worker.datasets.entries import Entry, Folder, Limits, Member, Position, unsafe
from worker.datasets.names import checked_name, quoted


def folder_entries(root: Path, limits: Limits) -> Iterator[Entry]:
    """Links are followed to files, never into folders: a farm of linked images is common, a cycle of folders
    is not."""
    found = list(_walk(root, limits))
    for number, relative in enumerate(found, 1):
        position = Position(number, len(found), "file")
        path = "/".join(relative.parts)
        checked_name(path, limits)
        if (root / relative).is_dir():
            yield Folder(path), position
        else:
            yield Member(path, lambda relative=relative: _open(root, relative)), position  # type: ignore[misc]


def _open(root: Path, relative: Path) -> IO[bytes]:
    try:
        return (root / relative).open("rb")
    except OSError as error:  # a link to nowhere, or a file of another user's
        raise Problem(
            422,
            "FOLDER_UNREADABLE",
            f"{quoted(str(relative))} in the folder cannot be read: {error.strerror}.",
        ) from error


def _walk(root: Path, limits: Limits) -> Iterator[Path]:
    seen = 0
    for folder, names, files in os.walk(root):
        names.sort()
        for name in [*names, *sorted(files)]:
            seen += 1
            if seen > limits.max_members:
                raise unsafe(f"The folder holds more than {limits.max_members} files.")
            path = Path(folder, name)
            if path.is_dir() or path.is_file() or path.is_symlink():
                yield path.relative_to(root)
