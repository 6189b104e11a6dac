"""A whole running service for tests: `fewbytes up` as a user starts it, in a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RunningService:
    """`fewbytes up`, started and stopped. `environment`: DATABASE_URL and BROKER_URL, to use other servers."""

    def __init__(self, data_dir: Path, environment: dict[str, str]) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "BROKER_URL")},
            "OMP_WAIT_POLICY": "PASSIVE",
            "FEWBYTES_LEASE_SECONDS": "4",
            "FEWBYTES_CHECKPOINT_SECONDS": "0.5",
            **environment,
        }
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log = (data_dir / "service.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", str(port)],
            cwd=ROOT,
            env=self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.client = httpx.Client(base_url=self.url, timeout=90)
        self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service ended:\n{self.tail()}"
            try:
                if self.client.get("/readyz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s:\n{self.tail()}")

    def tail(self) -> str:
        return (self.data_dir / "service.log").read_text(errors="replace")[-4000:]

    def pids(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "service.json").read_text())["pids"]

    def broker_url(self) -> str:
        """The broker that the API talks to, embedded or not."""
        environment = Path(f"/proc/{self.pids()['api']}/environ").read_bytes().split(b"\0")
        return next(
            item.split(b"=", 1)[1].decode() for item in environment if item.startswith(b"BROKER_URL=")
        )

    def job(self, job_id: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return response.json()

    def wait_job(self, job_id: str, *, until: Any = None, seconds: float = 240) -> dict[str, Any]:
        """Poll until the job is over, or until `until(job)` holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                job = self.job(job_id)
            except httpx.HTTPError:  # the API may be the thing that was killed
                time.sleep(0.1)
                continue
            if until is not None and until(job):
                return job
            if job["state"] in ("succeeded", "failed", "cancelled"):
                assert until is None, (
                    f"the job ended before the condition held: {job['state']} {job['error']}"
                )
                return job
            time.sleep(0.1)
        raise AssertionError(f"job {job_id} took longer than {seconds} s:\n{self.tail()}")

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self.log.close()


def children_of(pid: int) -> list[int]:
    """All descendants of a process, by /proc."""
    found, frontier = [], [pid]
    while frontier:
        parent = frontier.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                direct = [int(child) for child in task.read_text().split()]
            except FileNotFoundError:
                continue
            found += direct
            frontier += direct
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""
