"""Who changed what: a row in the transaction of every change that a caller makes.

The verbs call `record`, so no route can forget it. What the service does by itself (a worker's claims, the sweeper)
is in a job's events, not here.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import db_now, new_id
from app.tables import AuditEntry


def record(session: Session, action: str, target: str, **detail: Any) -> None:
    """The caller of this session did `action` to `target` (an id, or a file's name). Nothing without a caller."""
    caller = session.info.get("caller")
    if caller is None:
        return
    session.add(
        AuditEntry(
            id=new_id("aud"),
            created_at=session.scalar(select(db_now())),
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            request_id=caller.request_id,
            action=action,
            target=target,
            detail=detail,
        )
    )
