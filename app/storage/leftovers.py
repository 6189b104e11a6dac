"""Files that nothing needs any more, found and removed one kind at a time.

Each kind has its own proof that nobody needs the file, which holds at the moment of its removal and not only when it
was found: a lock on the folder (objects), on the file (uploads, decoded images), on the job's row (work folders).
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import Select, and_, exists, or_, select

from app import resources
from app.db import db_now, reading, transaction
from app.settings import Settings
from app.storage import references
from app.storage.objects import Storage
from app.storage.uploads import Parts
from app.tables import SUCCEEDED, TERMINAL, Job, Upload

HOUR_SECONDS = 3600.0
DAY_SECONDS = 86400.0
_AT_ONCE = 500
# What is about to be deleted: out of the way of the next attempt at once, while its bytes go slowly.
_DOOMED = ".deleted"


@dataclass(frozen=True)
class Removed:
    """`what`: in words. `size_bytes`: of the disk, as far as nobody else had the file open."""

    what: str
    size_bytes: int


def objects(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Objects that no row names, and that nobody put again within `collect_after_hours`.

    Who puts an object has so long to commit a row that names it. Who names an object that is there already holds a
    lock on a row that names it (`resources.register_teacher`), so that one of the two is seen at every moment.
    """
    storage, seconds = Storage(config.resolved_data_dir), config.collect_after_hours * HOUR_SECONDS
    candidates = _unnamed(storage, seconds)
    while batch := dict(islice(candidates, _AT_ONCE)):
        with reading() as session:  # again: it may have got a name since
            named = {reference.sha256 for reference in references.to(session, list(batch))}
        for sha256 in batch.keys() - named:
            if dry_run or storage.delete_if_old(sha256, seconds):
                yield Removed(f"object {sha256}", batch[sha256])


def _unnamed(storage: Storage, seconds: float) -> Iterator[tuple[str, int]]:
    """(sha256, size in bytes) of old objects that no row named just now: two sorted lists side by side."""
    named = references.digests()
    name = next(named, None)
    for sha256, size_bytes in storage.old_objects(seconds):
        while name is not None and name < sha256:
            name = next(named, None)
        if name != sha256:
            yield sha256, size_bytes


def partial_objects(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """What was being written when its writer was killed."""
    folder = Storage(config.resolved_data_dir).partial
    yield from _old_files(folder, config.collect_after_hours * HOUR_SECONDS, "unfinished object", dry_run)


def uploads(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Resumable uploads that expired, with their rows; bytes of uploads that are none (given up, never begun)."""
    parts = Parts(config.resolved_data_dir)
    sizes = {name: status.st_size for name, status in parts.leftovers()}
    with reading() as session:
        expired = resources.expired_uploads(session)
    if not dry_run:
        # One that a request is writing to just now is left for the next time.
        expired = [ident for ident in expired if parts.drop_if_free(ident)]
        for first in range(0, len(expired), _AT_ONCE):
            with transaction() as session:
                resources.drop_uploads(session, expired[first : first + _AT_ONCE])
    yield from (Removed(f"upload {ident}", sizes.get(ident, 0)) for ident in expired)
    before = time.time() - config.collect_after_hours * HOUR_SECONDS
    old = {name: status.st_size for name, status in parts.leftovers() if status.st_mtime < before}
    with reading() as session:
        known = set(session.scalars(select(Upload.id).where(Upload.finished_at.is_(None))))
    for ident in old.keys() - known:
        if dry_run or parts.drop_if_free(ident):
            yield Removed(f"bytes of the upload {ident}", old[ident])


def work_folders(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Folders of jobs that are gone, that have succeeded, or that ended longer than `keep_work_days` ago.

    An inspection never goes on from what it had.
    """
    jobs = config.resolved_data_dir / "jobs"
    for folder in sorted(jobs.iterdir()) if jobs.is_dir() else []:
        if folder.suffix == _DOOMED:  # whoever deleted it was killed
            yield from _remove_tree(folder, f"work folder {folder.stem}", dry_run)
        elif doomed := _doom(folder, config.keep_work_days, dry_run):
            yield from _remove_tree(doomed, f"work folder of {folder.name}", dry_run)


def _doom(folder: Path, keep_days: float, dry_run: bool) -> Path | None:
    """Give the folder another name under the lock of its job's row, if nobody needs it.

    `jobs.retry` waits for that lock, so no attempt finds its folder half deleted.
    """
    with reading() as session:
        if not session.scalar(_needless(folder.name, keep_days)):
            return None
    if dry_run:
        return folder
    with transaction() as session:
        session.execute(select(Job.id).where(Job.id == folder.name).with_for_update())
        if not session.scalar(_needless(folder.name, keep_days)):
            return None
        with contextlib.suppress(FileNotFoundError):  # another collector, or the worker itself, was faster
            return folder.rename(folder.with_name(folder.name + _DOOMED))
    return None


def _needless(job_id: str, keep_days: float) -> Select[tuple[bool]]:
    """Whether no attempt of this job can want its folder."""
    over = or_(
        Job.state == SUCCEEDED,
        Job.kind == "inspect",
        Job.finished_at < db_now() - keep_days * DAY_SECONDS,
    )
    needed = exists().where(Job.id == job_id, ~and_(Job.state.in_(TERMINAL), over))
    return select(~needed)


def decoded_images(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Decoded images that no job has used for `keep_work_days`, and what was being decoded when that was killed.

    Whoever uses a file has a lock on it (`worker.datasets.image_data`), and gives it a new time.
    """
    cache = config.resolved_data_dir / "cache"
    yield from _old_files(cache, config.keep_work_days * DAY_SECONDS, "decoded images", dry_run, "*.u8")
    yield from _old_files(
        cache, config.collect_after_hours * HOUR_SECONDS, "half-decoded images", dry_run, "*.part"
    )


def shared_files(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """What a job computed for all of its tenant's (`worker.shared_files`) and none has used for `keep_work_days`.

    Whoever uses such a file gives it a new time. One that is removed all the same is computed again.
    """
    for folder in sorted((config.resolved_data_dir / "cache" / "tenants").glob("*")):
        for pattern, what in (("*.measured", "teacher's answers"), ("*.labels", "soft labels")):
            yield from _old_files(folder, config.keep_work_days * DAY_SECONDS, what, dry_run, pattern)
        yield from _old_files(
            folder, config.collect_after_hours * HOUR_SECONDS, "half a shared file", dry_run, "*.part"
        )


def _old_files(
    folder: Path, seconds: float, what: str, dry_run: bool, pattern: str = "*"
) -> Iterator[Removed]:
    """Files that were not changed for so long and that nobody has locked."""
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            status = os.fstat(file.fileno())
            if status.st_mtime >= time.time() - seconds:
                continue
            if not dry_run:
                path.unlink()
            yield Removed(f"{what} {path.name}", status.st_size)


def _remove_tree(folder: Path, what: str, dry_run: bool) -> Iterator[Removed]:
    size_bytes = _tree_bytes(folder)
    if not dry_run:
        shutil.rmtree(folder, ignore_errors=True)  # a zombie may still be writing there: the next time, then
    yield Removed(what, size_bytes)


def _tree_bytes(folder: Path) -> int:
    """Bytes that go with the folder; a file with another name elsewhere stays and does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(parent, name))
                total += status.st_size if status.st_nlink == 1 else 0
    return total
