"""Bring a database to the newest schema while the service runs. Any number of processes may at once: one works.

All tables are locked at once or none, and never behind others for longer than half a second: a migration that stood
in line behind a long transaction would stop everybody who comes after it.
"""

import logging
import random
import sqlite3
import time
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from app import db
from app.database import revisions
from app.database.revisions import SCRIPTS

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
LOCK_SECONDS = 0.5
"""Less than PostgreSQL's deadlock_timeout (1 s): who meets a migration waits, and is never picked as a victim."""

_LOCK = 0x6665776279746573  # "fewbytes": PostgreSQL's advisory locks are numbers
_PAUSE_SECONDS = (0.1, 1.0)


class CannotMigrateError(Exception):
    """Why the database was left as it was, and what to do."""


class NewerTablesError(CannotMigrateError):
    """The database is of a version that this one does not know."""


def upgrade(url: str, revision: str = "head", *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Run the missing migrations on the database at `url`, all of them or none.

    Raises NewerTablesError; CannotMigrateError when the tables were in use for so long.
    """
    engine = _migration_engine(url)
    give_up = time.monotonic() + patience_seconds
    said = False
    try:
        while True:
            try:
                _upgrade(engine, revision)
                return
            except DBAPIError as error:
                if not _in_use(error):
                    raise
                users = _users(engine)
            if time.monotonic() > give_up:
                raise CannotMigrateError(
                    f"The tables were in use for {patience_seconds:g} s, so nothing was changed: {users}. "
                    "End that transaction, or try again later."
                )
            if not said:
                log.warning("the tables are in use (%s): the migration tries until it gets them", users)
                said = True
            # Not in step with a transaction that comes again and again.
            time.sleep(random.uniform(*_PAUSE_SECONDS))
    finally:
        engine.dispose()


def state(url: str) -> revisions.State:
    """How the database at `url` compares with this version. Creates the file of a SQLite database."""
    engine = db.connect(url)
    try:
        return revisions.state(engine)
    finally:
        engine.dispose()


def _upgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory(str(SCRIPTS))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        # On SQLite the transaction itself is the lock: it began with BEGIN IMMEDIATE.
        current = MigrationContext.configure(connection).get_current_revision()
        if current == (scripts.get_current_head() if revision == "head" else revision):
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise NewerTablesError(
                f"The database has the tables of a newer version ({current}; this one knows them up to "
                f"{scripts.get_current_head()}). Install the newer version."
            )
        if connection.dialect.name == "postgresql":
            _lock_all_tables(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _lock_all_tables(connection: Connection) -> None:
    """Half a second for all of them together. Whoever waits for us waits no longer than that, and for the work."""
    give_up = time.monotonic() + LOCK_SECONDS
    quote = connection.dialect.identifier_preparer.quote
    names = set(inspect(connection).get_table_names())
    # Jobs first: it is the one that others hold most.
    for name in sorted(names, key=lambda name: (name != "jobs", name)):
        left = max(1, round(1000 * (give_up - time.monotonic())))
        connection.execute(text(f"SET LOCAL lock_timeout = {left}"))
        connection.execute(text(f"LOCK TABLE {quote(name)} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))


def _in_use(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    return isinstance(error.orig, errors.LockNotAvailable | errors.DeadlockDetected)


def _users(engine: Engine) -> str:
    """The oldest transaction of others in this database, for whoever has to end it."""
    if engine.dialect.name == "sqlite":
        return "another process has been writing all the time"
    oldest = text(
        "SELECT pid, round(extract(epoch FROM clock_timestamp() - xact_start)) AS seconds, application_name AS name "
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1"
    )
    with engine.begin() as connection:
        found = connection.execute(oldest).first()
    if found is None:
        return "by transactions that have ended since"
    name = f" of {found.name}" if found.name else ""
    return f"the oldest transaction is that of process {found.pid}{name}, {found.seconds} s old"


def _migration_engine(url: str) -> Engine:
    engine = db.connect(url, patient=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    return engine


def _without_foreign_keys(connection: sqlite3.Connection, _record: Any) -> None:
    # Batch mode replaces tables, and dropping the old one must not touch the rows that refer to it.
    # The pragma does nothing inside a transaction, hence on connecting.
    connection.execute("PRAGMA foreign_keys=OFF")
