"""The whole service for a benchmark: `fewbytes up` on servers of its own, a tiny teacher and photos, and its processes."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.servers import Broker, embedded_postgres

STUDENT = {"architecture": "report/final", "image_size": 32}


class Running:
    """`fewbytes up`. `environment` overrides; a client of it, and what /proc says of its processes."""

    def __init__(self, folder: Path, environment: dict[str, str], *, workers: int = 1) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        base = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "BROKER_URL")}
        command = [sys.executable, "-m", "app.cli", "up", "--data-dir", str(folder / "data"), "--port", "0"]
        self.began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", str(workers)], env=base | environment, stdout=log, stderr=log
            )
        self.url = until(lambda: self._card().get("url"), 60)
        self.http = httpx.Client(base_url=self.url, timeout=120)
        until(lambda: self._answers("/readyz"), 60)
        self.seconds_until_ready = time.monotonic() - self.began
        wanted = workers + 1  # the inspector
        until(lambda: len(self.get("/v1/workers")["items"]) >= wanted, 60)
        self.seconds_until_workers = time.monotonic() - self.began

    def _card(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            card: dict[str, Any] = json.loads((self.folder / "data" / "service.json").read_text())
            return card
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        return {}

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get(path).status_code == 200
        return False

    def pids(self) -> dict[str, int]:
        return {str(name): int(pid) for name, pid in self._card()["pids"].items()}

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def post(self, path: str, body: Any = None) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()

    def ended(self, job_id: str, seconds: float = 300) -> dict[str, Any]:
        job: dict[str, Any] = until(lambda: _if_ended(self.get(f"/v1/jobs/{job_id}")), seconds, pause=0.05)
        return job

    def stop(self) -> None:
        self.http.close()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(90)
        finally:
            self.process.kill()


def _if_ended(job: dict[str, Any]) -> dict[str, Any] | None:
    return job if job["state"] in ("succeeded", "failed", "cancelled") else None


def until(look: Callable[[], Any], seconds: float, *, pause: float = 0.02) -> Any:
    """What `look` finds, as soon as it finds something."""
    give_up = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(pause)
    return found


@contextlib.contextmanager
def servers(database: str, broker_url: str | None) -> Iterator[tuple[dict[str, str], Broker | None]]:
    """Settings for `up`. `database`: sqlite, postgresql (one of our own), or a URL. Without a URL, a Valkey of our own."""
    with contextlib.ExitStack() as stack:
        environment: dict[str, str] = {}
        if database == "postgresql":
            # As an operator runs it: with fsync.
            server = stack.enter_context(embedded_postgres(tcp=True, start=False))
            server.start(fsync="on", full_page_writes="on", max_connections=100)
            environment["DATABASE_URL"] = server.url
        elif database != "sqlite":
            environment["DATABASE_URL"] = database
        broker = None
        if broker_url is None:
            broker = Broker(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewbytes-"))))
            stack.callback(broker.kill)
        environment["BROKER_URL"] = broker.url if broker else str(broker_url)
        yield environment, broker


def ingredients(service: Running) -> dict[str, Any]:
    """A registered teacher and data set, as the beginning of a job."""
    from tests.worker import tiny  # torch, which the endurance of the API does without

    folder = service.folder
    made: dict[str, Any] = {"device": "cpu"}
    for file, kind, body in (
        (
            tiny.write_teacher(folder / "teacher.pt"),
            "teachers",
            {
                "architecture": tiny.TEACHER,
                "preprocessing": tiny.PREPROCESSING,
                "class_names": list(tiny.CLASSES),
            },
        ),
        (tiny.write_photos(folder / "photos.zip"), "datasets", {}),
    ):
        service.http.put(f"/v1/files/{file.name}", content=file.read_bytes()).raise_for_status()
        ident = service.post(f"/v1/{kind}", {"file": file.name, **body})["id"]
        until(lambda kind=kind, ident=ident: service.get(f"/v1/{kind}/{ident}")["state"] != "inspecting", 120)
        found = service.get(f"/v1/{kind}/{ident}")
        assert found["state"] == "ready", found["error"]
        made[kind] = ident
    return {"teachers": [made["teachers"]], "dataset": made["datasets"], "device": "cpu"}


def quantile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def children(pid: int) -> list[int]:
    """The processes that this one started, the oldest first."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def warm_parents(worker: int) -> list[int]:
    """At most one; it forks this worker's trainers."""
    return [pid for pid in children(worker) if b"worker.warm" in _command(pid)]


def wait_until_warm(workers: list[int], seconds: float = 120) -> None:
    """Until each worker's warm parent has imported everything: it has not computed for half a second."""

    def idle() -> bool:
        parents = [warm_parents(worker) for worker in workers]
        before = [_cpu_ticks(pid) for found in parents for pid in found]
        time.sleep(0.5)
        return all(parents) and [_cpu_ticks(pid) for found in parents for pid in found] == before != []

    until(idle, seconds)


def trainers(worker: int) -> list[int]:
    """Its job's trainer, and what that has measured just now: forked by the warm parent, or else spawned."""
    warm = warm_parents(worker)
    return [pid for pid in children(worker) if pid not in warm] + [
        pid for one in warm for pid in children(one)
    ]


def _command(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _cpu_ticks(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    return -1


def memory_mib(pid: int, *, share: bool = True) -> float:
    """PSS, which counts a page of two processes half in each; or the resident set. 0 for a process that is gone."""
    name = "Pss:" if share else "Rss:"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return 0.0


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    python, load = platform.python_version(), os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), {platform.system()}, Python {python}, load {load:.1f} at the start"
