"""Who does for all what one process is enough for: an election by a row with a lease, on the database's clock.

A duty is for thrift, not for safety: two that believe to have the same one at the same time (frozen, then thawed) do the
work twice, and whatever is done under a duty must bear that.
"""

import os
import secrets
import socket

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import db_now
from app.tables import Duty


def new_owner() -> str:
    """A name that no other holder has, nor this process after a restart: host:pid:random."""
    return f"{socket.gethostname()[:120]}:{os.getpid()}:{secrets.token_hex(4)}"


def hold(session: Session, name: str, owner: str, seconds: float) -> bool:
    """Whether `owner` has the duty for the next `seconds`: it had it, or nobody did, or its holder's time was over."""
    until = db_now() + seconds
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    taken = (
        insert(Duty)
        .values(name=name, owner=owner, until=until)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": owner, "until": until},
            where=or_(Duty.owner == owner, Duty.until < db_now()),
        )
        .returning(Duty.owner)
    )
    return session.scalar(taken) is not None


def is_anothers(session: Session, name: str, owner: str) -> bool:
    """Whether `hold` would say no. Ask it in `reading()`: those who wait then never take SQLite's write lock."""
    theirs = select(Duty.name).where(Duty.name == name, Duty.owner != owner, Duty.until >= db_now())
    return session.scalar(theirs) is not None


def give_up(session: Session, owner: str) -> None:
    """All duties of this owner are free: nobody has to wait for their end."""
    session.execute(delete(Duty).where(Duty.owner == owner))
