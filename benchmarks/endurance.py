"""What lasts: many clients for minutes, and hundreds of jobs through one worker.

    python -m benchmarks.endurance clients                    # 20 clients x 10 minutes, SQLite and PostgreSQL
    python -m benchmarks.endurance clients --minutes 1 --database sqlite
    python -m benchmarks.endurance jobs --jobs 500 --fake     # a trainer without torch: the worker's own share
    python -m benchmarks.endurance jobs --jobs 500            # the real one, of a tiny network

Clients send, each over a connection of its own and without a pause: 70 % GET (a job, its events, lists), 20 % POST of a
job, 10 % uploads of 50 MB. No worker takes the jobs, so the queue begins at 1,000 and grows. Each client uploads bytes
of its own again and again: hashed and synced to the disk each time, but kept once. docs/reliability.md has the output.
"""

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.running import (
    STUDENT,
    Running,
    ingredients,
    machine,
    memory_mib,
    quantile,
    servers,
    warm_parents,
)

_UPLOAD_MB = 50
_STEPS = [{"method": "distill", "student": STUDENT, "epochs": 1, "batch_size": 16}]
_READS = (
    "/v1/jobs/{job}",
    "/v1/jobs/{job}",
    "/v1/jobs/{job}/events",
    "/v1/jobs?state=queued&page_size=50",
    "/v1/jobs/{job}/artifacts",
    "/v1/queues",
)


class Client(threading.Thread):
    """One client's requests until `end`: seconds by kind, statuses."""

    def __init__(self, number: int, port: int, job: dict[str, Any], idents: list[str], end: float) -> None:
        super().__init__()
        self._number, self._port, self._end = number, port, end
        self._job = json.dumps(job).encode()
        self._idents = idents
        self._bytes = random.Random(number).randbytes(1 << 20) * _UPLOAD_MB
        self._random = random.Random(1000 + number)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[int, int] = defaultdict(int)

    def run(self) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while time.monotonic() < self._end:
            kind, method, path, body = self._next()
            began = time.monotonic()
            try:
                line.request(
                    method, path, body, {"Content-Type": "application/json"} if kind == "submit" else {}
                )
                answer = line.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:  # as bad as a 5xx
                print(f"client {self._number}: {method} {path}: {error!r}", file=sys.stderr)
                self.statuses[599] += 1
                line.close()
                continue
            self.seconds[kind].append(time.monotonic() - began)
            self.statuses[answer.status] += 1
            if kind == "submit" and answer.status == 202:
                self._idents.append(json.loads(content)["id"])
        line.close()

    def _next(self) -> tuple[str, str, str, bytes | None]:
        dice = self._random.random()
        if dice < 0.7:
            path = self._random.choice(_READS).format(job=self._random.choice(self._idents))
            return "read", "GET", path, None
        if dice < 0.9:
            return "submit", "POST", "/v1/jobs", self._job
        return "upload", "PUT", f"/v1/files/load-{self._number}.bin", self._bytes


def clients(database: str, minutes: float, number: int, queued: int) -> None:
    """The first half of T14's sentence on one database; prints its row."""
    with servers(database, None) as (environment, _), tempfile.TemporaryDirectory() as folder:
        environment = environment | {
            "FEWBYTES_TENANT_MAX_QUEUED_JOBS": "0",
            "FEWBYTES_REQUESTS_PER_MINUTE": "0",
        }
        service = Running(Path(folder), environment, workers=1)
        try:
            job = ingredients(service) | {"steps": _STEPS}
            # Stopped: a stranger's trainer on the same two cores is not what is measured here.
            worker = service.pids()["worker"]
            os.kill(worker, signal.SIGSTOP)
            idents = [service.post("/v1/jobs", job)["id"] for _ in range(queued)]
            api = service.pids()["api"]
            before, most = memory_mib(api, share=False), 0.0
            end = time.monotonic() + 60 * minutes
            port = httpx.URL(service.url).port or 80
            running = [Client(n, port, job, idents, end) for n in range(number)]
            for client in running:
                client.start()
            while any(client.is_alive() for client in running):
                most = max(most, memory_mib(api, share=False))
                time.sleep(1)
            after = memory_mib(api, share=False)
            depth = next(q["depth"] for q in service.get("/v1/queues")["items"] if q["name"] == "compress")
            os.kill(worker, signal.SIGCONT)
        finally:
            service.stop()
    seconds: dict[str, list[float]] = defaultdict(list)
    statuses: dict[int, int] = defaultdict(int)
    for client in running:
        for kind, values in client.seconds.items():
            seconds[kind] += values
        for status, count in client.statuses.items():
            statuses[status] += count
    bad = sum(count for status, count in statuses.items() if status >= 500)
    print(
        f"\n{database.split('@')[-1]}: {number} clients x {minutes:g} min\n\n| what | goal | measured |\n|---|---|---|"
    )
    print(
        f"| requests, answers | 0 of 5xx | {sum(statuses.values())}, {dict(sorted(statuses.items()))}: {bad} of 5xx |"
    )
    for kind, goal in (("read", "p99 ≤ 250 ms"), ("submit", "p99 ≤ 500 ms"), ("upload", "")):
        values = [1000 * value for value in seconds[kind]]
        if values:
            p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
            print(
                f"| {kind} | {goal} | p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {max(values):.0f} ms, n {len(values)} |"
            )
    print(f"| API memory before, most, after | ≤ 500 MB | {before:.0f}, {most:.0f}, {after:.0f} MiB |")
    print(f"| jobs queued, first and last | 1,000 | {queued}, {depth} |", flush=True)


def jobs(database: str, number: int, *, fake: bool) -> None:
    """Hundreds of jobs one after the other through one worker; its memory by tens."""
    with servers(database, None) as (environment, _), tempfile.TemporaryDirectory() as folder:
        service = Running(Path(folder), environment, workers=1)
        other = None
        try:
            job = ingredients(service) | {"steps": _STEPS}
            worker = service.pids()["worker"]
            if fake:
                os.kill(worker, signal.SIGSTOP)
                other = _fake_worker(Path(folder), environment)
                worker = other.pid
                job |= {"name": "artifacts"}  # what the fake trainer does
            _follow(service, job, number, worker)
            if fake:
                os.kill(service.pids()["worker"], signal.SIGCONT)
        finally:
            if other is not None:
                other.terminate()
                other.wait(60)
            service.stop()


def _fake_worker(folder: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    data = {"FEWBYTES_DATA_DIR": str(folder / "data")}
    database = {"DATABASE_URL": f"sqlite:///{folder / 'data' / 'fewbytes.db'}"} | environment
    with (folder / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "benchmarks.fake_worker", "--queues", "compress"]
        return subprocess.Popen(command, env=os.environ | data | database, stdout=log, stderr=log)


def _follow(service: Running, job: dict[str, Any], number: int, worker: int) -> None:
    idents = [service.post("/v1/jobs", job)["id"] for _ in range(number)]
    api = service.pids()["api"]
    began = time.monotonic()
    print("\n| jobs done | worker | its warm parent | API | (MiB, PSS) |\n|---|---|---|---|---|", flush=True)
    memory: list[float] = []
    for done in range(0, number, max(10, number // 10)):
        step = idents[done : done + max(10, number // 10)]
        ended = [service.ended(ident, 900) for ident in step]
        bad = [found for found in ended if found["state"] != "succeeded"]
        assert not bad, bad[0]["error"]
        memory.append(memory_mib(worker))
        warm = sum(map(memory_mib, warm_parents(worker)))
        print(f"| {done + len(step)} | {memory[-1]:.1f} | {warm:.1f} | {memory_mib(api):.1f} | |", flush=True)
    rate = number / (time.monotonic() - began)
    # From the first tenth on: what is loaded once, with the first jobs, is no leak.
    growth = 100 * (memory[-1] / memory[0] - 1)
    print(
        f"\n{number} jobs, 0 failed, {rate:.2f} a second; worker memory {growth:+.1f} % (goal: at most + 5 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["clients", "jobs"])
    parser.add_argument(
        "--database", action="append", help="sqlite, postgresql, or a URL; both of the first by default"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--fake", action="store_true", help="a trainer without torch")
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)  # a client that waits for another one's turn would time that
    print(machine(), flush=True)
    for database in given.database or ["sqlite", "postgresql"]:
        if given.what == "clients":
            clients(database, given.minutes, given.clients, given.queued)
        else:
            jobs(database, given.jobs, fake=given.fake)


if __name__ == "__main__":
    main()
