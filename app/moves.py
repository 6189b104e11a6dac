"""Changes of jobs' rows with the events that tell of them: what `app.jobs` and `app.sweeps` are made of.

Nothing here decides whether a change may be made. Rows are changed by statements, then read back; a session's own copies
are never trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import db_now, new_id
from app.tables import CANCELLING, QUEUED, RUNNING, TERMINAL, Artifact, Event, Job

NO_SYNC: dict[str, Any] = {"synchronize_session": False}
FRESH: dict[str, Any] = {"populate_existing": True}
ARTIFACT_EVENT = ("id", "step", "kind", "name", "sha256", "size_bytes")
_IDS_AT_ONCE = 500

QUEUED_AGAIN: dict[str, Any] = {
    "failures": 0,
    "dispatched_at": None,
    "next_attempt_at": None,
    "started_at": None,  # a deadline counts from it: the job has its time anew
    "finished_at": None,
    "result": None,
    "error": None,
}
"""What a job that ended loses when somebody has it tried again."""


@dataclass(frozen=True)
class NewArtifact:
    """A file already in the storage, to be committed with the job."""

    step: int
    kind: str
    name: str
    sha256: str
    size_bytes: int
    metrics: dict[str, Any]
    receipt: dict[str, Any] | None = None


def move(
    session: Session,
    job: Job,
    state: str,
    reason: str,
    *,
    artifacts: Sequence[NewArtifact] = (),
    **changes: Any,
) -> None:
    """The compare-and-set of a transition, from the state read under the row's lock."""
    stored = [
        {"id": new_id("art"), "tenant_id": job.tenant_id, "job_id": job.id, **vars(artifact)}
        for artifact in artifacts
    ]
    events = [("artifact", {key: row[key] for key in ARTIFACT_EVENT}) for row in stored]
    events.append(("state", {"state": state, "attempt": job.attempt, "reason": reason}))
    statement = (
        update(Job)
        .where(Job.id == job.id, Job.state == job.state, Job.attempt == job.attempt)
        .values(
            state=state,
            version=Job.version + 1,
            last_seq=Job.last_seq + len(events),
            **changes | _follows(state),
        )
    )
    assert num_changed(session, statement) == 1, f"{job.id} changed under its own lock"
    if stored:
        session.execute(insert(Artifact).values(created_at=db_now()), stored)
    append(session, job.id, job.last_seq + 1, events)


def _follows(state: str) -> dict[str, Any]:
    """What a state means for the other columns."""
    changes: dict[str, Any] = {}
    if state != CANCELLING:  # nobody holds it any more
        changes |= {"phase": None, "lease_owner": None, "lease_until": None}
    if state in TERMINAL:
        changes |= {"finished_at": db_now(), "waits_for": None}
    if state not in (QUEUED, RUNNING):
        changes["paused"] = False  # there is nothing left to hold
    return changes


def move_all(
    session: Session, state: str, reason: str, *where: ColumnElement[bool], **changes: Any
) -> list[str]:
    """`move` of all rows that fit, whatever state they are in; their ids. Locks them, in one order."""

    def told(row: Any) -> tuple[str, dict[str, Any]]:
        return "state", {"state": state, "attempt": row.attempt, "reason": reason}

    return _change_all(session, told, *where, state=state, **_follows(state) | changes)


def note_all(session: Session, event: str, *where: ColumnElement[bool], **changes: Any) -> list[str]:
    """Change all rows that fit beside their state, and tell it as an event; their ids. Locks them, in one order."""

    def told(row: Any) -> tuple[str, dict[str, Any]]:
        return event, {"state": row.state, "attempt": row.attempt}

    return _change_all(session, told, *where, **changes)


def _change_all(session: Session, told: Any, *where: ColumnElement[bool], **changes: Any) -> list[str]:
    found = select(Job.id, Job.state, Job.attempt, Job.last_seq).where(*where).order_by(Job.id)
    rows = session.execute(found.with_for_update()).all()
    for first in range(0, len(rows), _IDS_AT_ONCE):
        some = rows[first : first + _IDS_AT_ONCE]
        session.execute(
            update(Job)
            .where(Job.id.in_([row.id for row in some]))
            .values(version=Job.version + 1, last_seq=Job.last_seq + 1, **changes),
            execution_options=NO_SYNC,
        )
        append_rows(session, [(row.id, row.last_seq + 1, *told(row)) for row in some])
    return [row.id for row in rows]


def append(
    session: Session, job_id: str, first_seq: int, events: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """Write events under numbers that the job's row has handed out: no gaps, in order of commit."""
    append_rows(
        session, [(job_id, seq, type_, data) for seq, (type_, data) in enumerate(events, start=first_seq)]
    )


def append_rows(session: Session, events: Sequence[tuple[str, int, str, dict[str, Any]]]) -> None:
    """(job id, number, type, data) of each."""
    rows = [dict(zip(("job_id", "seq", "type", "data"), event, strict=True)) for event in events]
    if rows:
        session.execute(insert(Event).values(at=db_now()), rows)


def upserting(session: Session, table: type[Any]) -> Any:
    """INSERT with ON CONFLICT, which both databases spell alike but SQLAlchemy keeps in their dialects."""
    dialect = session.get_bind().dialect.name
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def num_changed(session: Session, statement: Any) -> int:
    """Execute an UPDATE; how many rows it changed."""
    result: Any = session.execute(statement, execution_options=NO_SYNC)
    rowcount: int = result.rowcount
    return rowcount
