"""A whole service made to be broken: its processes, its servers, its clients, and a look into its database."""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import make_url

from app import db
from app.database.migrate import upgrade
from app.storage.objects import Storage
from tests.faults import processes
from tests.faults.processes import Part
from tests.faults.proxy import Proxy
from tests.servers import Broker, Postgres, PostgresServer, embedded_postgres, free_port

LEASE_SECONDS = 4.0
QUICK = {
    "FEWBYTES_LEASE_SECONDS": str(LEASE_SECONDS),
    "FEWBYTES_CHECKPOINT_SECONDS": "0.2",
    "FEWBYTES_CANCEL_GRACE_SECONDS": "5",
    "FEWBYTES_REDISPATCH_SECONDS": "3",
    "FEWBYTES_RETRY_PAUSE_SECONDS": "0.2",
    "FEWBYTES_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Short times, so that a test need not wait long for what would take half a minute."""
NUM_WORKERS = 2
PYTHON = sys.executable


class Rig:
    """The service, running. `setup` names its servers in the table."""

    setup: str
    url: str
    database_url: str
    """As this process reaches it."""
    broker: Broker | None = None
    """Ours to kill; None: the service's own or somebody else's."""
    postgres: PostgresServer | None = None

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.storage = Storage(data_dir)
        self.log = data_dir.with_suffix(".log")

    def pid(self, name: str) -> int | None:
        """Of api, inspector, worker-1, worker-2 and, where they are ours, broker; None: it is down just now."""
        raise NotImplementedError

    def mend(self) -> None:
        """Start again what nobody else would: called all the time."""

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def trainers(self, worker: str) -> list[int]:
        """What the worker started: trainers, what measures for them, what forks them."""
        pid = self.pid(worker)
        return [child.pid for child in processes.descendants(pid)] if pid is not None else []

    def wait_ready(self, seconds: float = 60.0) -> None:
        give_up = time.monotonic() + seconds
        with httpx.Client(base_url=self.url, timeout=5) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        return
                assert time.monotonic() < give_up, self.log.read_text()[-4000:]
                self.mend()
                time.sleep(0.05)


class UpRig(Rig):
    """`fewbytes up` as a user starts it: SQLite, its own Valkey, everything restarted by `up` itself."""

    setup = "SQLite + Valkey, `fewbytes up`"

    def __init__(self, data_dir: Path, **environment: str) -> None:
        super().__init__(data_dir)
        data_dir.mkdir(parents=True)
        self.database_url = f"sqlite:///{data_dir / 'fewbytes.db'}"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [PYTHON, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", str(port)]
        command += ["--workers", str(NUM_WORKERS)]
        self.up = Part("up", command, _environment(environment), self.log)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started on entry, ended on leaving."""
        try:
            with _looked_into(self):
                self.up.start()
                self.wait_ready()
                yield
        finally:
            self.up.stop()

    def pid(self, name: str) -> int | None:
        if name == "up":
            return self.up.pid
        # It is there only while `up` is.
        with contextlib.suppress(FileNotFoundError):
            card: dict[str, Any] = json.loads((self.data_dir / "service.json").read_text())
            found: int | None = card["pids"].get(name)
            return found
        return None

    def mend(self) -> None:
        self.up.tend()


class PartsRig(Rig):
    """API, workers and inspector as processes of their own, on servers that are reached by TCP."""

    def __init__(
        self,
        data_dir: Path,
        *,
        database_url: str,
        broker_url: str,
        worker_module: str = "worker.main",
        of_worker: dict[str, dict[str, str]] | None = None,
        **environment: str,
    ) -> None:
        """`of_worker`: more environment of one process, by its name."""
        super().__init__(data_dir)
        data_dir.mkdir(parents=True)
        self.database_url = database_url
        self.proxies: dict[str, Proxy] = {}
        self.setup = f"{'SQLite' if database_url.startswith('sqlite') else 'PostgreSQL'} + Valkey, TCP"
        self.broker_url = broker_url
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
        shared = _environment({**servers, "FEWBYTES_DATA_DIR": str(data_dir), **environment})
        worker = [PYTHON, "-m", worker_module, "--queues"]
        commands = {
            "api": [PYTHON, "-m", "app.cli", "api", "--port", str(port)],
            "inspector": [*worker, "inspect"],
            **{f"worker-{n}": [*worker, "compress"] for n in range(1, NUM_WORKERS + 1)},
        }
        self.parts = {
            name: Part(name, command, shared | (of_worker or {}).get(name, {}), self.log)
            for name, command in commands.items()
        }

    def start(self) -> None:
        upgrade(self.database_url)
        self.mend()
        self.wait_ready()

    def pid(self, name: str) -> int | None:
        if name == "broker":
            return self.broker.pid if self.broker is not None else None
        if name == "database":
            return self.postgres.pid if self.postgres is not None else None
        popen = self.parts[name].popen
        return popen.pid if popen is not None and popen.poll() is None else None

    def mend(self) -> None:
        if self.broker is not None and not self.broker.is_alive:
            self.broker.start()
        if self.postgres is not None and not self.postgres.is_alive:
            self.postgres.start()
        for part in self.parts.values():
            part.tend()

    def stop(self) -> None:
        for part in self.parts.values():
            if part.popen is not None and part.popen.poll() is None:
                processes.thaw(part.pid)
                part.popen.terminate()
        for part in self.parts.values():
            part.stop()


@contextmanager
def up_rig(**environment: str) -> Iterator[UpRig]:
    with tempfile.TemporaryDirectory(prefix="fewbytes-", ignore_cleanup_errors=True) as folder:
        rig = UpRig(Path(folder) / "data", **environment)
        with rig.running():
            yield rig


@contextmanager
def parts_rig(
    database_url: str | None = None,
    broker_url: str | None = None,
    *,
    on_sqlite: bool = False,
    with_proxies: bool = False,
    **options: Any,
) -> Iterator[PartsRig]:
    """On real servers: those that are given, else PostgreSQL and Valkey of our own, which then can be killed.

    `on_sqlite`: a SQLite file in place of either PostgreSQL. `with_proxies`: the service reaches each server that
    has a port through one of `rig.proxies`, "broker" and "database"; this process looks past them.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fewbytes-", ignore_cleanup_errors=True))
        )
        if on_sqlite:
            database_url = f"sqlite:///{folder / 'fewbytes.db'}"
        server = stack.enter_context(embedded_postgres(tcp=True)) if database_url is None else None
        database = _own_database(server.url if server is not None else str(database_url), stack)
        broker = Broker(folder) if broker_url is None else None
        if broker is not None:
            stack.callback(broker.kill)
        urls = {"database": database, "broker": broker.url if broker is not None else str(broker_url)}
        proxies = {}
        if with_proxies:
            for name in [name for name, url in urls.items() if make_url(url).port]:
                proxies[name], urls[name] = _proxied(urls[name], stack)
        rig = PartsRig(folder / "data", database_url=urls["database"], broker_url=urls["broker"], **options)
        rig.proxies, rig.database_url = proxies, database
        rig.postgres, rig.broker = server, broker
        stack.callback(rig.stop)
        stack.enter_context(_looked_into(rig))
        rig.start()
        yield rig


def _proxied(url: str, stack: contextlib.ExitStack) -> tuple[Proxy, str]:
    parsed = make_url(url)
    assert parsed.host is not None
    assert parsed.port is not None
    proxy = stack.enter_context(Proxy((parsed.host, parsed.port)))
    through = parsed.set(host="127.0.0.1", port=proxy.port)
    return proxy, through.render_as_string(hide_password=False)


def _own_database(url: str, stack: contextlib.ExitStack) -> str:
    """A database that nobody else uses: a new one on a PostgreSQL server, a SQLite file as it is named."""
    if make_url(url).get_backend_name() == "sqlite":
        return url
    server = Postgres(url)
    stack.callback(server.close)
    return server.url_of(server.emptied_database())


@contextmanager
def _looked_into(rig: Rig) -> Iterator[None]:
    db.configure(rig.database_url)
    try:
        yield
    finally:
        db.configure(None)


def _environment(more: dict[str, str]) -> dict[str, str]:
    ours = ("DATABASE_URL", "BROKER_URL")
    inherited = {
        key: value for key, value in os.environ.items() if key not in ours and not key.startswith("FEWBYTES_")
    }
    return {**inherited, **QUICK, **more}
