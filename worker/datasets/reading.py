"""One pass over an archive or a folder: image bytes go into the pack, every image is decoded, the rest is counted."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.errors import Problem
from app.spec.base import Split
from worker.datasets.archives import read_entries
from worker.datasets.entries import Folder, Limits, Member, unsafe
from worker.datasets.image_files import BadImageError
from worker.datasets.images import MAX_BYTES, Size, check_image, claims_to_be_image
from worker.datasets.names import quoted
from worker.datasets.recognised import HEAD, is_archive
from worker.whole_files import appears_whole

Progress = Callable[[float, float, str], None]
"""Called with how far the reading is: done, total, unit ("file" or "byte")."""

NUM_EXAMPLES = 5
# Each thread decodes one image: 25 megapixels take up to half a gigabyte while they are decoded.
_MAX_THREADS = 8
_MAX_WAITING_BYTES = 256 << 20


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
class Contents:
    """What the source turned out to hold."""

    images: list[Image] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of each bad image."""
    ignored: int = 0
    archives: list[str] = field(default_factory=list)
    """Those of the ignored files that are archives themselves."""
    folders: set[str] = field(default_factory=set)
    """Named folders and those of bad images: the places of classes that may have stayed empty."""


def read(
    source: Path,
    pack: Path,
    *,
    max_bad_images: int,
    progress: Progress,
    limits: Limits,
    num_threads: int | None,
) -> Contents:
    """Write `pack` (not for a folder, whose images stay where they are). Raises Problem 422."""
    contents = Contents()
    is_folder = source.is_dir()
    threads = min(num_threads or os.cpu_count() or 1, _MAX_THREADS)
    # A folder's images stay where they are: its "pack" goes nowhere.
    with _written(None if is_folder else pack) as packed, ThreadPoolExecutor(threads) as pool:
        try:
            for path, data, verdict in _decoded(_image_files(source, limits, contents, progress), pool):
                try:
                    size = verdict.result()
                except BadImageError as bad:
                    _note_bad(contents, path, str(bad), max_bad_images)
                    continue
                offset = None if is_folder else packed.tell()
                packed.write(data)
                contents.images.append(Image(path, offset, len(data), hashlib.sha256(data).hexdigest(), size))
        finally:
            pool.shutdown(cancel_futures=True)  # a refusal does not wait for images that nobody asks about
        _refuse_bad(contents, max_bad_images)
    return contents


def _written(pack: Path | None) -> AbstractContextManager[IO[bytes]]:
    return open(os.devnull, "wb") if pack is None else appears_whole(pack)


def _decoded(
    files: Iterator[tuple[str, bytes]], pool: ThreadPoolExecutor
) -> Iterator[tuple[str, bytes, Future[Size]]]:
    """The files in their order, each with its verdict; the threads run a few images ahead."""
    waiting: deque[tuple[str, bytes, Future[Size]]] = deque()
    num_bytes = 0
    for path, data in files:
        waiting.append((path, data, pool.submit(check_image, data)))
        num_bytes += len(data)
        while len(waiting) > 2 * _MAX_THREADS or num_bytes > _MAX_WAITING_BYTES:
            num_bytes -= len(waiting[0][1])
            yield waiting.popleft()
    yield from waiting


def _image_files(
    source: Path, limits: Limits, contents: Contents, progress: Progress
) -> Iterator[tuple[str, bytes]]:
    names = _Names(source)
    for entry, position in read_entries(source, limits):
        if not entry.path:
            continue  # `tar -c .` begins with its own folder
        if _is_hidden(entry.path):
            contents.ignored += isinstance(entry, Member)
        elif isinstance(entry, Folder):
            contents.folders.add(entry.path)
        else:
            names.take(entry.path)
            head, data = _bytes_of(entry)
            if data is not None:
                names.take_image(entry.path)
                yield entry.path, data
            else:
                contents.ignored += 1
                contents.folders.discard(entry.path.rpartition("/")[0])
                if is_archive(head, entry.path):
                    contents.archives.append(entry.path)
        progress(position.done, position.total, position.unit)


class _Names:
    """No two files of an archive may have one name, and no two images names that differ in case alone: who
    unpacks it on a Mac or on Windows has fewer images than we have. A folder of the operator's is on a disk that
    keeps them apart."""

    def __init__(self, source: Path) -> None:
        self._is_folder = source.is_dir()
        self._names: set[str] = set()
        self._folded: dict[str, str] = {}

    def take(self, path: str) -> None:
        if path in self._names and not self._is_folder:
            raise unsafe(f"It holds {quoted(path)} twice (names are compared after Unicode normalisation).")
        self._names.add(path)

    def take_image(self, path: str) -> None:
        other = self._folded.setdefault(path.casefold(), path)
        if other != path and not self._is_folder:
            raise unsafe(
                f"The names {quoted(other)} and {quoted(path)} differ only in upper and lower case: rename one."
            )


def _is_hidden(path: str) -> bool:
    """What file managers leave behind: .DS_Store, ._photo.jpg, __MACOSX/, Thumbs.db."""
    return any(
        part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in path.split("/")
    )


def _bytes_of(member: Member) -> tuple[bytes, bytes | None]:
    """The file's first bytes, and all of them if it is, or claims to be, an image."""
    with member.opened() as stream:
        head = _read_up_to(stream.read, HEAD)
        if not claims_to_be_image(head, member.path):
            return head, None
        # One byte more than is taken, so that the verdict can tell.
        return head, head + _read_up_to(stream.read, MAX_BYTES + 1 - len(head))


def _read_up_to(read: Callable[[int], bytes], num_bytes: int) -> bytes:
    chunks, missing = [], num_bytes
    while missing > 0 and (chunk := read(min(missing, 1 << 20))):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def _note_bad(contents: Contents, path: str, reason: str, allowed: int) -> None:
    contents.bad.append((path, reason))
    contents.folders.add(path.rpartition("/")[0])
    if len(contents.bad) >= allowed + NUM_EXAMPLES:  # enough to name some and stop
        _refuse_bad(contents, allowed)


def _refuse_bad(contents: Contents, allowed: int) -> None:
    if len(contents.bad) > allowed:
        examples = "; ".join(f"{quoted(path)} {reason}" for path, reason in contents.bad[:NUM_EXAMPLES])
        raise Problem(
            422,
            "TOO_MANY_BAD_IMAGES",
            f"At least {len(contents.bad)} images cannot be used, and max_bad_images is {allowed}: "
            f"{examples}. "
            "Repair or remove them, or raise max_bad_images to skip them.",
        )
