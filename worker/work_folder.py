"""Each attempt works in a folder of its own, `jobs/<id>/attempt-<n>`, and begins with what the one before left.

A trainer may live on after its lease lapsed (frozen, then thawed; cut off from the database) and go on writing while
the next attempt trains. Nothing checks its writes: they just land in a folder that nobody reads any more. See
docs/decisions/0011-a-folder-for-each-attempt.md.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.jobs import Claim
from app.settings import settings

# Written under another name and renamed, never in place: two attempts may share such a file by a hard link, for what
# one of them puts under the name later is another file. Everything else (mapped caches, attachments) is copied.
_NEVER_WRITTEN_IN_PLACE = ("stages/*", "snapshots/*", "checkpoint*.pt")
_UNFINISHED = ".part"


def of_job(job_id: str) -> Path:
    """The folder of all attempts of a job."""
    return settings().resolved_data_dir / "jobs" / job_id


def prepare(claim: Claim) -> Path:
    """This attempt's folder, with all that the last attempt before it had left; earlier folders are deleted.

    An inspection begins with an empty one. Raises OSError, ENOSPC for one.
    """
    folder = of_job(claim.job_id) / f"attempt-{claim.attempt}"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(folder.name + _UNFINISHED)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    earlier = _earlier(folder.parent, claim.attempt)
    if earlier and claim.kind == "compress":
        _take_over(earlier[-1], unfinished)
    # A folder is there whole or not at all: an attempt that was lost in here is passed over by the next.
    unfinished.rename(folder)
    _sync(folder.parent)
    for old in [*earlier, *_abandoned(folder.parent)]:
        shutil.rmtree(
            old, ignore_errors=True
        )  # a zombie may be writing there; what is left costs disk, not truth
    return folder


def remove(job_id: str) -> None:
    """Delete the folders of all attempts. What cannot be deleted costs disk, not truth."""
    shutil.rmtree(of_job(job_id), ignore_errors=True)


def _earlier(job_folder: Path, attempt: int) -> list[Path]:
    numbered = [
        (int(match[1]), path)
        for path in job_folder.iterdir()
        if (match := re.fullmatch(r"attempt-(\d+)", path.name)) and int(match[1]) < attempt
    ]
    return [path for _, path in sorted(numbered)]


def _abandoned(job_folder: Path) -> Iterator[Path]:
    return job_folder.glob(f"attempt-*{_UNFINISHED}")


def _take_over(source: Path, target: Path) -> None:
    """Every finished file of `source`. One that a zombie replaces or deletes meanwhile is taken as it was or left out:
    whoever reads it finds by its digest, or by its absence, that the work must be done again."""
    for folder, _, names in os.walk(source):
        taken = target / Path(folder).relative_to(source)
        taken.mkdir(exist_ok=True)
        for name in names:
            if name.endswith(_UNFINISHED):
                continue  # a zombie may have it open
            try:
                _take(Path(folder) / name, taken / name)
            except FileNotFoundError:
                continue


def _take(source: Path, target: Path) -> None:
    if any(source.match(pattern) for pattern in _NEVER_WRITTEN_IN_PLACE):
        try:
            os.link(source, target)
            return
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            pass
    shutil.copyfile(source, target)
    _sync(target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
