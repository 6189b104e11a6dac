"""Which worker processes are there. For people to look at, and for what a waiting job is told: no
claim reads this table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import db_now
from app.settings import settings
from app.tables import Worker

LEASES_UNTIL_GONE = 3


def seen(
    session: Session,
    worker_id: str,
    *,
    queues: list[str],
    device: str,
    memory_bytes: int | None = None,
    trouble: str | None = None,
    job_id: str | None = None,
) -> None:
    """This worker lives, listens to these queues, and works on this job (None: waits for one).

    `memory_bytes`: what one of its jobs may need. `trouble`: why it takes no job just now, in a sentence.
    """
    row: dict[str, Any] = {
        "queues": queues,
        "device": device,
        "memory_bytes": memory_bytes,
        "trouble": trouble,
        "job_id": job_id,
        "seen_at": db_now(),
    }
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(Worker)
        .values(id=worker_id, started_at=db_now(), **row)
        .on_conflict_do_update(index_elements=["id"], set_=row)
    )


def left(session: Session, worker_id: str) -> None:
    """This worker ended well: nobody need wait for it to be missed."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def alive(session: Session) -> Sequence[Worker]:
    """The workers seen within three leases, by name."""
    silent_since = db_now() - LEASES_UNTIL_GONE * settings().lease_seconds
    return session.scalars(select(Worker).where(Worker.seen_at > silent_since).order_by(Worker.id)).all()
