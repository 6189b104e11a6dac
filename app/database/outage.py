"""What an error of the database means to whoever runs the service: what is missing, and whether waiting helps.

Everything else that a database raises is a fault of ours, and none of this page's business.
"""

import logging
import sqlite3
import threading
import time
from dataclasses import dataclass

import psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db
from app.database import revisions

log = logging.getLogger(__name__)

SAID_AGAIN_SECONDS = 60.0
_MOST_SAID = 100


@dataclass(frozen=True)
class Outage:
    """`sentence` is for the operator: it names the server and the way out, never the password.

    `heals`: a process that starts waits for it to end. Where only somebody's hand helps, it ends instead.
    `other_tables`: the database answers, but has the tables of another version.
    """

    sentence: str
    heals: bool = True
    other_tables: bool = False


class DatabaseAway(Exception):
    """The database cannot be used; `outage` says why."""

    def __init__(self, outage: Outage) -> None:
        super().__init__(outage.sentence)
        self.outage = outage


def explain(error: BaseException) -> Outage | None:
    """None: it is no outage, but a bug. Asks the database for its version where tables or columns are missing."""
    if isinstance(error, DatabaseAway):
        return error.outage
    if isinstance(error, db.UnknownDatabaseError):
        return Outage(
            "DATABASE_URL is none that is understood here. It is postgresql://USER:PASSWORD@HOST/NAME or "
            "sqlite:////FOLDER/FILE.",
            heals=False,
        )
    if isinstance(error, PoolTimeout):
        return Outage("All of this process's connections to the database are in use.")
    if isinstance(error, OSError):
        return Outage(f"Cannot use {place()}: {error.strerror or error}.", heals=False)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause)
    if isinstance(cause, psycopg.Error):
        return _of_postgresql(cause)
    return None


def now() -> Outage | None:
    """Connect and look at the version: what stands in the way of using the database at this moment."""
    try:
        state = revisions.state(db.read_only_engine())
    except (SQLAlchemyError, OSError) as error:
        if outage := explain(error):
            return outage
        raise
    # The next version's tables serve this one too (docs/operations.md, Upgrades).
    return None if state == "newer" else _of_version(state)


def place() -> str:
    """Where the database is, less the password."""
    url = make_url(db.url())
    if url.get_backend_name() == "sqlite":
        return f"the database file {url.database}"
    return f"the database {url.database or ''} at {_host(url)}".replace("  ", " ")


def say(outage: Outage) -> None:
    """Log it, once a minute at most: every request, beat and look fails while it lasts."""
    with _saying:
        at = time.monotonic()
        if at - _said.get(outage.sentence, -SAID_AGAIN_SECONDS) < SAID_AGAIN_SECONDS:
            return
        if len(_said) > _MOST_SAID:  # a sentence may name a process or a time, so there is no end of them
            _said.clear()
        _said[outage.sentence] = at
    log.error("%s", outage.sentence)


_said: dict[str, float] = {}
_saying = threading.Lock()


def _of_version(state: str) -> Outage | None:
    if state == "newest":
        return None
    if state == "newer":
        sentence = (
            f"{_capital(place())} has the tables of a newer version, which this one cannot use: install that."
        )
    else:
        found = "has no tables yet" if state == "empty" else "has the tables of an older version"
        sentence = f"{_capital(place())} {found}: run `fewbytes migrate` (`fewbytes up` does it by itself)."
    return Outage(sentence, other_tables=True)


_SQLITE_WAIT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_SQLITE_NEVER = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
}


def _of_sqlite(cause: sqlite3.Error) -> Outage | None:
    # Its low byte is the kind, the others are details of it.
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    sentence = f"Cannot use {place()}: {cause}."
    if code in _SQLITE_WAIT:
        return Outage(sentence)
    if code in _SQLITE_NEVER:
        return Outage(sentence, heals=False)
    return _other_tables() if str(cause).startswith(("no such table", "no such column")) else None


# Classes of SQLSTATE that tell of the server and not of a statement: connection, resources, operator, system.
_SERVER = ("08", "53", "57", "58")
_MORE = {
    "25006",  # the server became a standby
    "25P03",  # idle in a transaction for too long
    "40P01",  # a deadlock: the other one went on
    "55P03",  # a lock was not to be had
}
# Errors of connecting have no SQLSTATE, only these words.
_ONLY_A_HAND_HELPS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied for",
)


def _of_postgresql(cause: psycopg.Error) -> Outage | None:
    if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return _other_tables()
    state = cause.sqlstate
    if state is None and not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return None
    if state is not None and not (state.startswith(_SERVER) or state in _MORE):
        return None
    words = _words(cause)
    heals = state is not None or not any(known in words for known in _ONLY_A_HAND_HELPS)
    return Outage(f"{_capital(place())} does not answer: {words}.", heals=heals)


def _words(cause: psycopg.Error) -> str:
    """The server's own words in one line. psycopg's tell address and port a second time."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(cause).__name__
    return text.rpartition("FATAL:")[2].strip().rstrip(".") if "FATAL:" in text else text.rstrip(".")


def _other_tables() -> Outage | None:
    """Whether the database's version explains that something is missing."""
    try:
        return _of_version(revisions.state(db.read_only_engine()))
    except DBAPIError as error:
        return explain(error)


def _host(url: URL) -> str:
    host = url.host or url.query.get("host") or "this machine"
    name = ",".join(host) if isinstance(host, tuple) else str(host)
    return f"{name}:{url.port}" if url.port else name


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def is_outage(error: BaseException) -> bool:
    """Whether to wait and try again."""
    return explain(error) is not None
