"""Migrating while the version before works: nothing of it fails, nothing is lost, and a kill leaves old or new tables."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, inspect, text
from typer.testing import CliRunner

from app import cli, db
from app.database import revisions
from app.database.migrate import CannotMigrateError, upgrade
from app.settings import settings
from tests.app.database.test_migrate import differences
from tests.old_process import BEFORE, OldProcess


@pytest.fixture
def old_database(empty_database: str) -> Iterator[tuple[str, Engine]]:
    """A database of the version before, as its processes use it."""
    upgrade(empty_database, BEFORE)
    engine = db.connect(empty_database)
    yield empty_database, engine
    engine.dispose()


def test_processes_of_the_version_before_work_on(old_database: tuple[str, Engine]) -> None:
    """While it runs and after it: no statement fails, none waits for long, and every job is there."""
    url, engine = old_database
    with OldProcess(engine, "a") as first, OldProcess(engine, "b") as second:
        time.sleep(0.3)
        upgrade(url)
        after = len(first.done), len(second.done)
        time.sleep(0.3)
    for process, before in zip((first, second), after, strict=True):
        assert process.failure is None, process.failure
        assert len(process.done) > before
        assert max(process.waits) < 2.0
    assert differences(engine) == []
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT jobs.id, (SELECT count(*) FROM events WHERE job_id = jobs.id), paused, priority FROM jobs "
                "JOIN artifacts ON artifacts.job_id = jobs.id WHERE state = 'succeeded' ORDER BY jobs.id"
            )
        ).all()
    assert [tuple(row) for row in rows] == [(job, 3, 0, 0) for job in sorted(first.done + second.done)]


@contextmanager
def long_transaction(url: str) -> Iterator[None]:
    """Somebody's report, say, that has read `jobs` and not ended."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SELECT count(*) FROM jobs")
        yield


@pytest.fixture
def old_postgresql(postgres: Any) -> Iterator[tuple[str, Engine]]:
    name = postgres.new_database()
    url = postgres.url_of(name)
    upgrade(url, BEFORE)
    engine = db.connect(url)
    yield url, engine
    engine.dispose()
    postgres.drop(name)


def test_a_long_transaction_does_not_freeze_the_service(old_postgresql: tuple[str, Engine]) -> None:
    """The migration gives way again and again; it happens once that transaction ends."""
    url, engine = old_postgresql
    with OldProcess(engine, "a") as process:
        with long_transaction(url):
            migrating = threading.Thread(target=upgrade, args=(url,))
            migrating.start()
            time.sleep(2.0)
            assert revisions.state(engine) == "older"
            done = len(process.done)
        migrating.join(20)
        assert revisions.state(engine) == "newest"
    assert process.failure is None
    assert done > 10
    assert max(process.waits) < 1.5  # half a second for the locks, and a share of two cores


def test_a_migration_that_never_gets_its_turn_says_who_is_in_the_way(
    old_postgresql: tuple[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, engine = old_postgresql
    monkeypatch.setattr(settings(), "database_url", url)
    with long_transaction(url):
        answer = CliRunner().invoke(cli.app, ["migrate", "--patience", "0"])
    assert answer.exit_code == 2
    assert "the oldest transaction is that of process" in answer.stderr
    assert revisions.state(engine) == "older"


def test_a_writer_that_never_ends_is_told_on_sqlite_too(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'busy.db'}"
    upgrade(url, BEFORE)
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CannotMigrateError, match="another process has been writing"):
        upgrade(url, patience_seconds=0.0)
    other.close()
    upgrade(url)


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from app.database.migrate import upgrade

statements = 0

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    global statements
    if statement.lstrip().startswith(("ALTER", "CREATE", "UPDATE alembic")):
        statements += 1
        if statements == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

upgrade(sys.argv[1])
"""


def migrate_and_die(url: str, after: int) -> int:
    command = [sys.executable, "-c", KILLED, url, str(after)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("after", [1, 6, 11])
def test_killed_in_the_middle_nothing_of_it_is_there(old_database: tuple[str, Engine], after: int) -> None:
    """And the next one does the whole of it."""
    url, engine = old_database
    before = columns(engine)
    assert migrate_and_die(url, after) == -signal.SIGKILL
    assert columns(engine) == before
    assert revisions.state(engine) == "older"
    upgrade(url)
    assert differences(engine) == []


def columns(engine: Engine) -> dict[str, list[str]]:
    looking = inspect(engine)
    return {
        table: [column["name"] for column in looking.get_columns(table)]
        for table in looking.get_table_names()
    }


def test_nothing_to_do_locks_nothing(old_postgresql: tuple[str, Engine]) -> None:
    """Every start of `fewbytes up` migrates: beside a long transaction too."""
    url, _ = old_postgresql
    upgrade(url)
    with long_transaction(url):
        upgrade(url, patience_seconds=0.0)
