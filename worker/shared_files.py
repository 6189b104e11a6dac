"""What one job computes and others of the same tenant read: files named by a key over all that decides their content.

A file appears whole or not at all, and begins with the sha256 of what follows: one that was cut or damaged counts as
missing, and whoever computes its content writes it anew. Two that write the same file at once each write a whole one, and
the later counts. Nothing depends on a file's being there;
`app.storage.leftovers.shared_files` removes those that no job has used for some days.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import PIL
import torch

from app.canonical import fingerprint
from app.storage import disk
from app.version import version
from worker.measure import device_name
from worker.whole_files import appears_whole, sync_folder

_DIGEST_BYTES = hashlib.sha256().digest_size
_CHUNK_BYTES = 1 << 20


class _DamagedError(Exception):
    """The file is not what was written."""


class SharedFiles:
    """The files of one tenant, in `folder`. Any number of processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The content; None where there is none, or only a damaged one."""
        try:
            with self._opened(name) as file:
                return b"".join(_checked(file))
        except (FileNotFoundError, _DamagedError):
            return None

    def copy(self, name: str, target: Path) -> bool:
        """Write the content to `target`, whole; false, and no `target`, where `read` gives None."""
        try:
            with self._opened(name) as file, appears_whole(target) as copy:
                for chunk in _checked(file):
                    copy.write(chunk)
        except (FileNotFoundError, _DamagedError):
            return False
        return True

    def keep(self, name: str, content: bytes | memoryview) -> bool:
        """Put the content there for others. False where it would take more than half of the room that is left: no job needs
        it."""
        return self._keep(name, [content], len(content))

    def keep_file(self, name: str, source: Path) -> bool:
        """The same with a file's content."""
        with source.open("rb") as file:
            return self._keep(
                name, iter(lambda: file.read(_CHUNK_BYTES), b""), os.fstat(file.fileno()).st_size
            )

    def _opened(self, name: str) -> IO[bytes]:
        path = self._folder / name
        file = path.open("rb")
        with suppress(FileNotFoundError):  # collected just now: what is open can still be read
            os.utime(path)
        return file

    def _keep(self, name: str, chunks: Iterable[bytes | memoryview], num_bytes: int) -> bool:
        if disk.free_bytes(self._folder) < 2 * num_bytes:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Not by the process's id: machines that share the folder have equal ones.
            handle, unfinished = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    _write(file, chunks)
                os.replace(unfinished, self._folder / name)
            except BaseException:
                os.unlink(unfinished)
                raise
            sync_folder(self._folder)
        except OSError as error:
            if not disk.is_full(error):
                raise
            return False
        return True


def _write(file: IO[bytes], chunks: Iterable[bytes | memoryview]) -> None:
    digest = hashlib.sha256()
    file.write(bytes(_DIGEST_BYTES))
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    file.seek(0)
    file.write(digest.digest())
    file.flush()
    os.fsync(file.fileno())


def _checked(file: IO[bytes]) -> Iterator[bytes]:
    """What follows the digest; raises _DamagedError at its end if that is another's."""
    expected, digest = file.read(_DIGEST_BYTES), hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        yield chunk
    if digest.digest() != expected:
        raise _DamagedError


def shared_name(kind: str, decided_by: dict[str, Any]) -> str:
    """A file's name: equal for equal content. `kind` is its ending; `decided_by` is JSON."""
    return f"{fingerprint({'kind': kind, **decided_by})}.{kind}"


def arithmetic(device: torch.device) -> dict[str, Any]:
    """What decides how this process decodes images and rounds sums, beside the numbers themselves."""
    return {
        "fewbytes": version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "device": device_name(device),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
    }
