"""Fixtures for everybody. `database` runs a test twice: on SQLite and PostgreSQL, migrated and configured."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import db
from app.database.migrate import upgrade
from app.settings import settings
from tests.servers import Broker, Postgres, embedded_postgres_url

# Trainers stand back for whoever wants the cores, and other tests always do.
os.environ.setdefault("FEWBYTES_TRAINER_NICE", "0")

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server a session: the one at TEST_DATABASE_URL (a role that may create databases), else our own."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        server = Postgres(given)
        yield server
        server.close()
        return
    with embedded_postgres_url() as url:
        yield Postgres(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "fewbytes.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated SQLite database that `app.db` is configured for."""
    path = tmp_path / "fewbytes.db"
    shutil.copy(sqlite_template, path)
    yield from _configured(f"sqlite:///{path}")


@pytest.fixture
def postgresql_database(postgres: Postgres) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database that `app.db` is configured for."""
    yield from _configured(postgres.url_of(postgres.emptied_database()))


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database that `app.db` is configured for; the test runs once for each kind."""
    url: str = request.getfixturevalue(f"{request.param}_database")
    return url


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, for each kind. `app.db` is not configured for it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.new_database()
    yield postgres.url_of(name)
    postgres.drop(name)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A Valkey of the test's own over TCP: it may be killed, frozen, emptied."""
    yield from _broker(unix_socket=False)


@pytest.fixture
def unix_broker() -> Iterator[Broker]:
    """The same over a Unix socket."""
    yield from _broker(unix_socket=True)


@pytest.fixture
def broker_url(broker: Broker) -> str:
    return broker.url


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings read anew from the environment, with a data folder of the test's own."""
    folder = tmp_path / "data"
    monkeypatch.setenv("FEWBYTES_DATA_DIR", str(folder))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


def _configured(url: str) -> Iterator[str]:
    db.configure(url)
    yield url
    db.configure(None)


def _broker(*, unix_socket: bool) -> Iterator[Broker]:
    # A socket's path may have 107 bytes; pytest's own folders are longer.
    with tempfile.TemporaryDirectory(prefix="fewbytes-") as folder:
        broker = Broker(Path(folder), unix_socket=unix_socket)
        yield broker
        broker.kill()
