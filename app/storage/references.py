"""Which columns name objects of the storage. What no row names any more is collected.

Digests in a job's result or in a receipt are a record of what was, no reference: they stay when the bytes go.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal, select, union, union_all
from sqlalchemy.orm import Session

from app.db import reading
from app.tables import Artifact, Dataset, File, Teacher

COLUMNS: tuple[tuple[Any, Any], ...] = (
    (File.sha256, File.size_bytes),
    (Teacher.file_sha256, Teacher.file_size_bytes),
    (Teacher.artifact_sha256, Teacher.artifact_size_bytes),
    (Teacher.tensors_sha256, Teacher.tensors_size_bytes),
    (Dataset.file_sha256, Dataset.file_size_bytes),
    (Dataset.index_sha256, Dataset.index_size_bytes),
    (Dataset.pack_sha256, Dataset.pack_size_bytes),
    (Artifact.sha256, Artifact.size_bytes),
)
"""(digest, size in bytes) of every object that a row can name; null where there is none."""


_DIGESTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Reference:
    """A row that needs an object."""

    sha256: str
    row_id: str
    column: str

    def __str__(self) -> str:
        return f"{self.row_id} ({self.column})"


def digests() -> Iterator[str]:
    """Every object that a row names, whosever it is: once each, in order.

    Read in pieces, each at its own moment: whoever takes hours over them holds no snapshot for hours.
    """
    after = ""
    while True:
        named = union(*(select(digest.label("sha256")).where(digest > after) for digest, _ in COLUMNS))
        with reading() as session:
            piece = session.scalars(named.order_by("sha256").limit(_DIGESTS_AT_ONCE)).all()
        yield from piece
        if len(piece) < _DIGESTS_AT_ONCE:
            return
        after = piece[-1]


def to(session: Session, wanted: Sequence[str]) -> list[Reference]:
    """What refers to any of these objects (a thousand at most). One statement: all tables at one moment."""
    names = [f"{digest.class_.__tablename__}.{digest.key}" for digest, _ in COLUMNS]
    found = union_all(
        *(
            select(
                digest.label("sha256"), digest.class_.id.label("row_id"), literal(name).label("column")
            ).where(digest.in_(wanted))
            for (digest, _), name in zip(COLUMNS, names, strict=True)
        )
    )
    return [Reference(*row) for row in session.execute(found)]
