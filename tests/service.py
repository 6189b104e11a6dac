"""A whole running service for tests: `fewbytes up` as a user starts it, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
GRACE_SECONDS = 5.0


class Service:
    """A running `fewbytes up` and a client of it. `servers`: DATABASE_URL and BROKER_URL, to use other servers."""

    def __init__(self, data_dir: Path, servers: dict[str, str]) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True)
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "BROKER_URL")},
            "FEWBYTES_LEASE_SECONDS": "4",
            "FEWBYTES_CHECKPOINT_SECONDS": "0.2",
            "FEWBYTES_CANCEL_GRACE_SECONDS": str(GRACE_SECONDS),
            "FEWBYTES_NUM_THREADS": "1",
            **servers,
        }
        command = [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", "0"]
        self.log = data_dir.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        wait_for(lambda: b"ready" in self.log.read_bytes() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()
        self.http = httpx.Client(base_url=self.card()["url"], timeout=120)

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.data_dir / "service.json").read_text())
        return card

    def pid(self, name: str) -> int:
        return int(self.card()["pids"][name])

    def trainer(self) -> int | None:
        """The process that trains: a child of the worker's warm parent, or of the worker itself while that is not ready."""
        spawned = _children(self.pid("worker"))
        warm = [pid for pid in spawned if b"worker.warm" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        # What it has measured is forked as well, but later.
        forked = [child for pid in warm for child in _children(pid)]
        trainers = [pid for pid in spawned if pid not in warm] + forked
        return trainers[0] if trainers else None

    def broker_url(self) -> str:
        """The broker that the API talks to, embedded or not."""
        environment = Path(f"/proc/{self.pid('api')}/environ").read_bytes().split(b"\0")
        return next(
            item.split(b"=", 1)[1].decode() for item in environment if item.startswith(b"BROKER_URL=")
        )

    def stop(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def get(self, path: str, **parameters: Any) -> Any:
        """As any client does, it asks again when the API was killed under its connection."""
        for _ in range(3):
            try:
                answer = self.http.get(path, params=parameters)
            except httpx.TransportError:
                continue
            assert answer.status_code == 200, answer.text
            return answer.json()
        raise AssertionError("the API does not come back")

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def finished(self, job_id: str, seconds: float = 240) -> dict[str, Any]:
        wait_for(
            lambda: self.get(f"/v1/jobs/{job_id}")["state"] in ("succeeded", "failed", "cancelled"), seconds
        )
        job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}")
        return job

    def epochs(self, job_id: str) -> int:
        """How many epochs of step 1 are behind it."""
        job = self.get(f"/v1/jobs/{job_id}")
        return int((job["progress"] or {}).get("done", 0))


def _children(pid: int) -> list[int]:
    """In the order of their birth."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.05)
