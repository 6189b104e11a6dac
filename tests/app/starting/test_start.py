"""Starting and lasting: in any order, and whatever goes away later. Real servers, absent, killed, frozen and full."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from app import cli, db
from app.access import door
from app.database import outage, postgresql, revisions
from app.database.migrate import upgrade
from app.settings import Settings, settings
from tests.app.conftest import Service, serve
from tests.servers import Broker, PostgresServer, embedded_postgres
from tests.service import wait_for

SECRET = "hunter2"


@pytest.fixture(scope="module")
def one_server() -> Iterator[PostgresServer]:
    with embedded_postgres(tcp=True) as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def server(one_server: PostgresServer) -> Iterator[PostgresServer]:
    """A migrated PostgreSQL over TCP that runs afterwards as before."""
    yield one_server
    if one_server.is_alive:
        one_server.stop()
    one_server.start()


def with_password(url: str) -> str:
    return url.replace("postgres@", f"postgres:{SECRET}@")


class Process:
    """`fewbytes …` as a process of its own, with what it prints in a file."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.output = folder / f"{arguments[0]}.log"
        base = {
            key: value
            for key, value in os.environ.items()
            if not key.endswith(("DATABASE_URL", "BROKER_URL"))
        }
        with self.output.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *arguments],
                env=base | {"FEWBYTES_DATA_DIR": str(folder / "data")} | environment,
                stdout=log,
                stderr=log,
            )

    def said(self) -> str:
        return self.output.read_text()

    def end(self) -> int:
        self.popen.terminate()
        return self.popen.wait(30)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a process that is gone after the test."""
    running: list[Process] = []

    def start(*arguments: str, **environment: str) -> Process:
        running.append(Process(tmp_path, *arguments, **environment))
        return running[-1]

    yield start
    for process in running:
        process.popen.kill()
        process.popen.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(client: httpx.Client, path: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get(path).status_code == 200
    return False


def refused(client: httpx.Client) -> dict[str, Any]:
    """What everything but /healthz is answered while there is no database; the problem of /readyz."""
    assert client.get("/healthz").status_code == 200
    for path in ("/v1/jobs", "/v1/files/a.bin", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE"), path
        assert answer.headers["retry-after"] == "2"
    problem: dict[str, Any] = answer.json()
    return problem


def test_the_api_starts_before_its_database_and_outlives_it(
    server: PostgresServer, run: Callable[..., Process]
) -> None:
    """Absent, without tables, there, killed, back: each time it says so, and works as soon as it can."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE late")
    url = with_password(server.url_of("late"))
    server.kill()
    port = free_port()
    api = run("api", "--port", str(port), DATABASE_URL=url)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        wait_for(lambda: answers(client, "/healthz"), 30)
        assert "does not answer" in refused(client)["detail"]
        server.start()
        wait_for(lambda: "fewbytes migrate" in client.get("/readyz").json()["detail"], 10)
        assert "fewbytes migrate" in refused(client)["detail"]
        upgrade(url)
        assert client.get("/readyz").json()["database"] == "ok"
        assert client.get("/v1/jobs").status_code == 200
        server.kill()
        refused(client)
        server.start()
        wait_for(lambda: answers(client, "/v1/jobs"), 5)
    said = api.said()
    assert said.count("late at 127.0.0.1") == said.count("does not answer") + said.count("no tables yet")
    assert 1 <= said.count("Connection refused") <= 2
    assert SECRET not in said
    assert "Traceback" not in said
    assert api.end() in (0, -signal.SIGTERM)  # uvicorn ends in order, then by the signal it was sent


def test_a_frozen_server_holds_nobody_for_ever(server: PostgresServer, tmp_path: Path) -> None:
    """Twenty requests at once: each is answered within ten seconds, /healthz and /readyz beside them."""
    db.configure(server.url)
    try:
        for service in serve(Settings(data_dir=tmp_path, BROKER_URL="")):
            service.worker.stop()
            assert service.client.get("/v1/jobs").status_code == 200
            server.freeze()
            with ThreadPoolExecutor(20) as pool:
                waiting = [pool.submit(timed_get, service, "/v1/jobs") for _ in range(20)]
                time.sleep(0.3)
                assert timed_get(service, "/healthz") < (200, 2.0)
                status, seconds = timed_get(service, "/readyz")
                assert (status, seconds < 6) == (503, True)
                assert all(
                    (status, seconds < 10) == (503, True) for status, seconds in (w.result() for w in waiting)
                )
            server.thaw()
            wait_for(lambda service=service: answers(service.client, "/v1/jobs"), 5)
    finally:
        db.configure(None)


def timed_get(service: Service, path: str) -> tuple[int, float]:
    began = time.monotonic()
    return httpx.get(
        f"http://127.0.0.1:{service.port}{path}", timeout=60
    ).status_code, time.monotonic() - began


def test_a_statement_that_the_server_never_finishes_is_given_up(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server when it is busy, by us when it is frozen; the connection is not used again then."""
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 0.5)
    monkeypatch.setattr(postgresql, "SILENT_SECONDS", 1.5)
    db.configure(server.url)
    try:
        with pytest.raises(OperationalError, match="statement timeout"), db.transaction() as session:
            session.execute(text("SELECT pg_sleep(30)"))
        threading.Timer(0.2, server.freeze).start()
        with (
            pytest.raises(OperationalError, match=r"said nothing for 1\.5 s") as gone,
            db.transaction() as session,
        ):
            session.execute(text("SELECT pg_sleep(0.4)"))
        assert gone.value.connection_invalidated
        assert outage.explain(gone.value) is not None
    finally:
        server.thaw()
        db.configure(None)


def test_a_full_server_is_503(server: PostgresServer, tmp_path: Path) -> None:
    """And none of our own connections is lost to it."""
    server.stop()
    server.start(max_connections=8, superuser_reserved_connections=0)
    db.configure(server.url)
    try:
        for service in serve(Settings(data_dir=tmp_path, BROKER_URL="")):
            service.worker.stop()
            db.close()
            with contextlib.ExitStack() as others:
                with contextlib.suppress(psycopg.OperationalError):
                    while True:
                        others.enter_context(psycopg.connect(server.url))
                refused(service.client)
            wait_for(lambda service=service: answers(service.client, "/readyz"), 5)
    finally:
        db.configure(None)


def test_all_of_our_own_connections_in_use_is_503(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "POOL_SECONDS", 0.1)
    db.configure(server.url)
    try:
        with contextlib.ExitStack() as held:
            for _ in range(30):
                held.enter_context(db.engine().connect())
            found = outage.now()
        assert found is not None
        assert "in use" in found.sentence
        assert outage.now() is None
    finally:
        db.configure(None)


def test_a_bug_in_a_query_stays_a_bug(server: PostgresServer, sqlite_database: str) -> None:
    """Only with other tables than ours is a missing column an outage."""
    for url in (sqlite_database, server.url):
        db.configure(url)
        for statement in ("SELECT nothing FROM jobs", "SELECT 1 FROM nothing", "SELEC"):
            with pytest.raises(Exception, match=r"nothing|SELEC") as bug, db.reading() as session:
                session.execute(text(statement))
            assert outage.explain(bug.value) is None, statement
    db.configure(None)


def test_older_tables_are_said_to_be_older(empty_database: str) -> None:
    """To whoever asks with a query that needs the newer ones."""
    upgrade(empty_database, "0004")
    db.configure(empty_database)
    with pytest.raises(Exception, match="paused") as old, db.reading() as session:
        session.execute(text("SELECT paused FROM jobs"))
    found = outage.explain(old.value)
    assert found is not None
    assert (found.other_tables, found.heals) == (True, True)
    assert "fewbytes migrate" in found.sentence
    assert outage.now() == found
    upgrade(empty_database)
    assert outage.now() is None
    db.configure(None)


def test_newer_tables_serve_too_but_are_not_migrated(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before goes on while the next one is being started; it touches nothing of it."""
    upgrade(empty_database)
    db.configure(empty_database)
    with db.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert outage.now() is None
    assert revisions.state(db.engine()) == "newer"
    monkeypatch.setattr(settings(), "database_url", empty_database)
    refusal = CliRunner().invoke(cli.app, ["migrate"])
    assert (refusal.exit_code, "newer version (9999" in refusal.stderr) == (2, True)
    db.configure(None)


def test_the_worker_waits_for_its_database(server: PostgresServer, run: Callable[..., Process]) -> None:
    """And says so once; asked to end it ends, with nothing to hand back."""
    server.kill()
    worker = run("worker", DATABASE_URL=with_password(server.url), BROKER_URL="redis://127.0.0.1:1")
    wait_for(lambda: "does not answer" in worker.said(), 30)
    time.sleep(1.2)
    assert worker.said().count("does not answer") == 1
    assert SECRET not in worker.said()
    assert worker.end() == 0
    again = run("worker", DATABASE_URL=server.url, BROKER_URL="redis://127.0.0.1:1")
    wait_for(lambda: "does not answer" in again.said(), 30)
    server.start()
    wait_for(lambda: "the database is there" in again.said(), 10)
    with psycopg.connect(server.url) as connection:
        wait_for(lambda: connection.execute("SELECT 1 FROM workers").fetchone(), 10)
    assert again.popen.poll() is None


def test_up_waits_for_a_server_of_others(
    server: PostgresServer, broker: Broker, run: Callable[..., Process]
) -> None:
    """The API answers meanwhile; then the tables are brought forward and everything starts."""
    server.kill()
    port = free_port()
    up = run("up", "--port", str(port), DATABASE_URL=with_password(server.url), BROKER_URL=broker.url)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        wait_for(lambda: answers(client, "/healthz"), 30)
        assert client.get("/readyz").status_code == 503
        assert "ready:" not in up.said()
        server.start()
        wait_for(lambda: "ready:" in up.said(), 20)
        assert client.get("/readyz").json() == {"status": "ready", "database": "ok", "broker": "ok"}
    assert up.said().count("waiting: The database postgres at 127.0.0.1") == 1
    assert SECRET not in up.said()
    assert up.end() == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://picky:wrong@{host}/postgres", "password authentication failed"),
        ("postgresql://postgres@{host}/none", 'database "none" does not exist'),
        ("postgresql://nobody@{host}/postgres", 'role "nobody" does not exist'),
        ("postgresql://postgres@no-such-host.invalid/postgres", "no-such-host.invalid"),
        ("postgresql://postgres@127.0.0.1:1/postgres", "127.0.0.1:1 does not answer"),
        ("mysql://root@localhost/db", "DATABASE_URL is none that is understood"),
        ("nonsense", "DATABASE_URL is none that is understood"),
        ("sqlite:////proc/1/none/fewbytes.db", "Cannot use the database file /proc/1/none/fewbytes.db"),
        ("sqlite:///{file}", "is not a database"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """By a command that does one thing, at once and with the exit code 2; never with a stack trace or a password."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS picky")
        connection.execute("CREATE ROLE picky LOGIN PASSWORD 'right'")
    server.ask_for_a_password("picky")
    file = tmp_path / "letter.txt"
    file.write_text("Dear database, " * 100)
    url = url.format(host=server.url.split("@")[1].split("/")[0], file=file)
    monkeypatch.setattr(settings(), "database_url", url)
    answer = CliRunner().invoke(cli.app, ["migrate"])
    assert answer.exit_code == 2, answer.output
    assert said in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "wrong" not in answer.stderr


@pytest.mark.parametrize("service", ["api", "worker", "up"])
def test_what_waiting_cannot_mend_ends_a_service(
    server: PostgresServer, run: Callable[..., Process], service: str
) -> None:
    """With one line, and the exit code that tells a supervisor of a mistake."""
    more = ["--port", "0"] if service != "worker" else []
    url = server.url_of("none")
    process = run(service, *more, DATABASE_URL=url, BROKER_URL="redis://127.0.0.1:1")
    assert process.popen.wait(30) == 2
    assert 'database "none" does not exist' in process.said()
    assert "Traceback" not in process.said()


def test_a_data_folder_that_takes_no_file_is_said_plainly(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    process = run("up", "--port", "0", "--data-dir", str(tmp_path / "taken" / "data"))
    assert process.popen.wait(30) == 2
    assert "Cannot write into the data folder" in process.said()
    assert "Traceback" not in process.said()


def test_without_a_database_the_door_may_open() -> None:
    """It answers 503 to everybody until it knows whether there are keys; without them it then refuses."""
    db.configure("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    door.refuse_open_door("0.0.0.0", Settings())
    db.configure(None)
