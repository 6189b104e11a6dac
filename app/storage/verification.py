"""Whether every object that a row names is there, with the bytes that its name promises."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from app.db import reading
from app.errors import Problem
from app.settings import Settings
from app.storage import references
from app.storage.objects import CHUNK_BYTES, Storage
from app.storage.references import Reference


@dataclass(frozen=True)
class Checked:
    """`fault` None: it is what it should be. `needed_by`: the rows that name it, told where there is a fault."""

    sha256: str
    size_bytes: int
    fault: Literal["missing", "damaged", "unreadable"] | None
    needed_by: Sequence[Reference] = ()


def verify(config: Settings) -> Iterator[Checked]:
    """Read them all again, in the order of digests. What lost its last name meanwhile is no fault."""
    storage = Storage(config.resolved_data_dir)
    for sha256 in references.digests():
        checked = _check(storage, sha256)
        if checked.fault is None:
            yield checked
        elif needed_by := _still_needed(sha256):
            yield Checked(sha256, checked.size_bytes, checked.fault, needed_by)


def _check(storage: Storage, sha256: str) -> Checked:
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with storage.open(sha256) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
    except (Problem, FileNotFoundError):
        return Checked(sha256, 0, "missing")
    except OSError:  # such as EIO: the disk gives these bytes no more
        return Checked(sha256, size_bytes, "unreadable")
    return Checked(sha256, size_bytes, None if digest.hexdigest() == sha256 else "damaged")


def _still_needed(sha256: str) -> list[Reference]:
    with reading() as session:
        return references.to(session, [sha256])
