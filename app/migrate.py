"""Bring a database to the newest schema. Any number of processes may at once: one works, the rest wait."""

import sqlite3
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, text

import app
from app import db

# Beside the package `app`, in the source tree and where pip puts it. Not imported: migrations import app.
SCRIPTS = Path(app.__file__).parent.parent / "migrations"

_LOCK = 0x6665776279746573  # "fewbytes": PostgreSQL's advisory locks are numbers


def upgrade(url: str, revision: str = "head") -> None:
    """Run the missing migrations on the database at `url`, all of them or none."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    engine = _migration_engine(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            # On SQLite the transaction itself is the lock: it began with BEGIN IMMEDIATE.
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()


def state(url: str) -> Literal["empty", "older", "newest", "newer"]:
    """How the database at `url` compares with this version. Creates the file of a SQLite database."""
    scripts = ScriptDirectory(str(SCRIPTS))
    engine = db.connect(url)
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    if revision is None:
        return "empty"
    if revision == scripts.get_current_head():
        return "newest"
    return "older" if revision in {script.revision for script in scripts.walk_revisions()} else "newer"


def _migration_engine(url: str) -> Engine:
    engine = db.connect(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_foreign_keys)
    return engine


def _without_foreign_keys(connection: sqlite3.Connection, _record: Any) -> None:
    # Batch mode replaces tables, and dropping the old one must not touch the rows that refer to it.
    # The pragma does nothing inside a transaction, hence on connecting.
    connection.execute("PRAGMA foreign_keys=OFF")
