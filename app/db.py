"""The database: one engine per process, two kinds of transaction, one clock.

    with transaction() as session: ...   # may write; commits on leaving, rolls back on an exception
    with reading() as session: ...       # one consistent snapshot; a write in it fails

The clock is the database's, so that leases mean the same on every machine.
"""

import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Float, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from app.database import postgresql
from app.settings import settings

BUSY_SECONDS = 10.0
"""How long SQLite waits for another writer. Transactions here last milliseconds, so more means a fault; a migration
of 100,000 jobs takes less."""

_engine: Engine | None = None
_override: str | None = None
# Threads ask for the first engine at the same time; a second one would never be closed.
_opening = threading.Lock()


def configure(url: str | None) -> None:
    """Use this database from now on, in place of the settings' (None: theirs again). Closes what is open."""
    global _override
    close()
    _override = url


def close() -> None:
    """Close the process's connections; the next transaction opens new ones."""
    global _engine
    with _opening:
        if _engine is not None:
            _engine.dispose()
        _engine = None


def engine() -> Engine:
    """The process's engine."""
    global _engine
    with _opening:
        if _engine is None:
            _engine = connect(url())
        return _engine


def url() -> str:
    """Where the process's database is."""
    return _override or settings().resolved_database_url


def connect(url: str, *, patient: bool = False) -> Engine:
    """A new engine with our rules for this kind of database. Creates the folder of a SQLite file.

    `patient`: a statement may take as long as it needs; otherwise no more than seconds (`app.database.postgresql`). Raises
    UnknownDatabaseError.
    """
    parsed = _understood(url)
    if parsed.get_backend_name() == "sqlite":
        return _connect_sqlite(parsed)
    return postgresql.connect(parsed, patient=patient, json_serializer=dumps)


@contextmanager
def transaction() -> Iterator[Session]:
    """One read-write transaction of the service itself, which sees every tenant's rows: for workers, outbox
    and sweeper. What a caller does goes through `app.access.tenancy`. Objects stay readable after it.

    On SQLite it holds the one write lock from its first statement, so nothing in it fails for a lock later.
    On PostgreSQL it is READ COMMITTED, and the verbs lock the row before they decide. So neither database
    ends it for a conflict, and a block never has to run twice.
    """
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """One read-only snapshot that neither waits for writers nor makes them wait; of every tenant's rows."""
    with Session(read_only_engine(), expire_on_commit=False) as session, session.begin():
        yield session


def read_only_engine() -> Engine:
    """The engine for `reading`: its transactions cannot write."""
    read_only: dict[str, Any] = {"fewbytes_read_only": True}
    if engine().dialect.name == "postgresql":
        # Read-only and REPEATABLE READ: all statements see one moment, and it never fails to serialize.
        read_only |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine().execution_options(**read_only)


class _Now(FunctionElement[float]):
    type = Float(53)
    inherit_cache = True
    name = "db_now"


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42. julianday counts whole milliseconds, in a double.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _now_postgresql(element: _Now, compiler: Any, **options: Any) -> str:
    # Not now(): that is the start of the transaction, before any wait for a lock.
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def db_now() -> ColumnElement[float]:
    """SQL for seconds since the epoch by the database's clock, to the millisecond."""
    return _Now()


def rfc3339(seconds: float) -> str:
    """A time of the database's clock as callers see it: UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters that sort by time: 48 bits of milliseconds, 80 random (a ULID)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(BASE32[number >> shift & 31] for shift in range(125, -1, -5))


def dumps(value: Any) -> str:
    """JSON that both databases take. What they cannot store is replaced: one NaN must not lose a result.

    NaN and infinities become null (JSON has none); NUL and lone surrogates, which PostgreSQL refuses, U+FFFD.
    """
    return json.dumps(_storable(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _storable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {
            _storable(key) if isinstance(key, str) else key: _storable(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def storable_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class UnknownDatabaseError(ArgumentError):
    """What was given is no URL, or that of some other database."""


def _understood(url: str) -> URL:
    try:
        parsed = _with_our_driver(make_url(url))
    except (ArgumentError, ValueError):  # without a cause: that would show the password
        raise UnknownDatabaseError("no URL of a database") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UnknownDatabaseError(f"{parsed.get_backend_name()} is no database that is understood here")
    return parsed


def _with_our_driver(url: URL) -> URL:
    # Platforms hand out postgres:// and postgresql://, which SQLAlchemy reads as another driver.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def _connect_sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    made = create_engine(
        url, json_serializer=dumps, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
    )
    event.listen(made, "connect", _prepare_sqlite)
    writers = _Writers()
    event.listen(made, "begin", writers.begin)
    event.listen(made, "checkin", writers.leave)
    return made


class _Writers:
    """This process's threads write one after the other, woken as soon as it is their turn.

    SQLite lets a writer that finds the file locked sleep for up to 100 ms at a time, and whoever comes at the right
    moment goes first. Between processes that is still so.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def begin(self, connection: Connection) -> None:
        read_only = connection.get_execution_options().get("fewbytes_read_only", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        if read_only:
            connection.exec_driver_sql("BEGIN")
            return
        mine = connection.info
        # Without a turn in time it is SQLite that decides, and says what is wrong.
        if not mine.get("writes"):
            mine["writes"] = self._turn.acquire(timeout=BUSY_SECONDS)
        # IMMEDIATE takes the write lock now. A deferred transaction that turns to writing fails when another
        # wrote in between (436 lock errors in 1,600 updates by 8 writers; with IMMEDIATE none).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def leave(self, _connection: sqlite3.Connection | None, record: Any) -> None:
        if record.info.pop("writes", False):
            self._turn.release()


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is that of _Writers
    _enter_wal(connection)
    # NORMAL: a killed process loses nothing; a power cut may lose the last commits but never the file.
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Only the first connection ever changes the mode; that change does not wait for locks, so wait here."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
