"""What a client may count on, measured from outside: how soon a job runs, ends, and comes back after a kill.

    python -m benchmarks.service_levels                              # SQLite and PostgreSQL, each with Valkey
    python -m benchmarks.service_levels --database postgresql        # or sqlite, or a URL of an empty database
    python -m benchmarks.service_levels --rounds 5 --kills 3         # a short one

A real `fewbytes up` with two workers and real trainers of a tiny network. Times are a client's, by its own clock: from
before the request until GET of the job shows it, asked every 10 ms. "Runs" means that the trainer has told its first
phase, not that its process exists. docs/reliability.md has the output.
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.running import (
    STUDENT,
    Running,
    ingredients,
    machine,
    quantile,
    servers,
    trainers,
    until,
    wait_until_warm,
)
from tests.servers import Broker

_LEASE_SECONDS = 6.0
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.01
ENVIRONMENT = {
    "FEWBYTES_LEASE_SECONDS": f"{_LEASE_SECONDS:g}",
    "FEWBYTES_CANCEL_GRACE_SECONDS": f"{_GRACE_SECONDS:g}",
    "FEWBYTES_CHECKPOINT_SECONDS": "1",
    "FEWBYTES_NUM_THREADS": "1",
}
Rows = list[tuple[str, str, list[float]]]


class Levels:
    """All measurements on one running service."""

    def __init__(self, service: Running, broker: Broker | None) -> None:
        self.service, self.broker = service, broker
        step = {"method": "distill", "student": STUDENT, "epochs": 10_000, "batch_size": 16}
        self.job = ingredients(service) | {"steps": [step]}

    def submit_and_cancel(self, rounds: int) -> Rows:
        """Whole journeys of jobs that are cancelled as soon as they run."""
        claimed, started, running, cancelled = [], [], [], []
        self._settle()
        for _ in range(rounds):
            began = time.monotonic()
            ident = self.service.post("/v1/jobs", self.job)["id"]
            until(lambda ident=ident: self._state(ident) == "running", 60, pause=_LOOK_SECONDS)
            claim = time.monotonic()
            until(lambda ident=ident: self._runs(ident, 1), 60, pause=_LOOK_SECONDS)
            run = time.monotonic()
            claimed.append(claim - began)
            started.append(run - claim)
            running.append(run - began)
            time.sleep(0.5)  # so that there is something to save
            cancelled.append(self._cancel(ident))
        return [
            ("submit → claimed", "", claimed),
            ("claimed → trainer runs", "", started),
            ("submit → trainer runs", "p50 ≤ 0.15 s", running),
            (
                "cancel → cancelled, the best student saved",
                f"≤ 1 s + grace ({_GRACE_SECONDS:g} s)",
                cancelled,
            ),
        ]

    def kill_trainers(self, kills: int) -> Rows:
        """SIGKILL to the trainer; then its next attempt runs."""
        again = []
        for _ in range(kills):
            self._settle()
            ident = self.service.post("/v1/jobs", self.job)["id"]
            until(lambda ident=ident: self._runs(ident, 1), 60)
            time.sleep(1.5)  # it has a checkpoint
            trainer = next(pid for worker in self._workers() for pid in trainers(worker))
            began = time.monotonic()
            os.kill(trainer, signal.SIGKILL)
            until(lambda ident=ident: self._runs(ident, 2), 60, pause=_LOOK_SECONDS)
            again.append(time.monotonic() - began)
            self._cancel(ident)
        return [("kill -9 of the trainer → runs again", "≤ 1 s", again)]

    def kill_workers(self, kills: int) -> Rows:
        """SIGKILL to the worker that has the job; the other one, or its successor, takes it over."""
        again = []
        for _ in range(kills):
            self._settle()
            ident = self.service.post("/v1/jobs", self.job)["id"]
            until(lambda ident=ident: self._runs(ident, 1), 60)
            time.sleep(1.5)
            host_and_pid = self.service.get(f"/v1/jobs/{ident}")["attempts"][0]["worker"]
            began = time.monotonic()
            os.kill(int(host_and_pid.rsplit(":", 1)[1]), signal.SIGKILL)
            until(lambda ident=ident: self._runs(ident, 2), 120, pause=_LOOK_SECONDS)
            again.append(time.monotonic() - began)
            self._cancel(ident)
        return [("kill -9 of the worker → runs again", f"≤ lease ({_LEASE_SECONDS:g} s) + 1 s", again)]

    def posts(self, rounds: int) -> Rows:
        """POST of a job while the broker is well, frozen, dead: with both workers idle, then with a trainer on each core."""
        rows, idents = [], []
        too_large = self.job | {"memory_bytes": 1 << 49}  # for any worker here: it only waits
        for load, job in (("workers idle", too_large), ("both cores training", self.job)):
            if job is self.job:
                idents += [self.service.post("/v1/jobs", job)["id"] for _ in range(2)]
                for ident in idents[-2:]:
                    until(lambda ident=ident: self._runs(ident, 1), 60)
            for fault in ("well", *(("frozen", "dead") if self.broker else ())):
                seconds, posted = self._posts(job, fault, rounds)
                rows.append((f"POST of a job, the broker {fault}, {load}", "p95 ≤ 0.05 s", seconds))
                idents += posted
        for ident in reversed(idents):  # those that wait first, or they would be started
            self._cancel(ident)
        return rows

    def _posts(self, job: dict[str, Any], fault: str, rounds: int) -> tuple[list[float], list[str]]:
        """The seconds of each, and the jobs."""
        if self.broker and fault != "well":
            (self.broker.freeze if fault == "frozen" else self.broker.kill)()
            time.sleep(1)
        seconds, idents = [], []
        for _ in range(rounds):
            began = time.monotonic()
            idents.append(self.service.post("/v1/jobs", job)["id"])
            seconds.append(time.monotonic() - began)
        if self.broker and fault != "well":
            (self.broker.thaw if fault == "frozen" else self.broker.start)()
            time.sleep(1)
        return seconds, idents

    def _state(self, ident: str) -> str:
        return str(self.service.get(f"/v1/jobs/{ident}")["state"])

    def _runs(self, ident: str, attempt: int) -> bool:
        job = self.service.get(f"/v1/jobs/{ident}")
        return job["state"] == "running" and job["phase"] is not None and len(job["attempts"]) >= attempt

    def _cancel(self, ident: str) -> float:
        began = time.monotonic()
        self.service.post(f"/v1/jobs/{ident}/cancel")
        until(lambda: self._state(ident) == "cancelled", 60, pause=_LOOK_SECONDS)
        return time.monotonic() - began

    def _workers(self) -> list[int]:
        return [pid for name, pid in self.service.pids().items() if name.startswith("worker") and _lives(pid)]

    def _settle(self) -> None:
        """No trainer is left of before, and the next one would start warm."""
        until(lambda: len(self._workers()) == 2, 120)
        wait_until_warm(self._workers())
        until(lambda: not any(trainers(worker) for worker in self._workers()), 60)


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def starts(environment: dict[str, str], rounds: int) -> Rows:
    """`fewbytes up` on an empty folder until GET /readyz is 200, and until its workers have reported."""
    ready, workers = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            service = Running(Path(folder), environment)
            ready.append(service.seconds_until_ready)
            workers.append(service.seconds_until_workers)
            service.stop()
    return [("`fewbytes up` → ready", "", ready), ("`fewbytes up` → its workers have reported", "", workers)]


def measure(database: str, broker_url: str | None, rounds: int, kills: int) -> None:
    print(
        f"\nDatabase: {database.split('@')[-1]}; {machine()}\n\n| what | goal | p50 | p95 | most | n |",
        flush=True,
    )
    print("|---|---|---|---|---|---|", flush=True)
    with servers(database, broker_url) as (environment, broker):
        environment = environment | ENVIRONMENT
        show(starts(environment, max(1, kills // 2)))
        with tempfile.TemporaryDirectory() as folder:
            service = Running(Path(folder), environment, workers=2)
            try:
                levels = Levels(service, broker)
                show(levels.submit_and_cancel(rounds))
                show(levels.kill_trainers(kills))
                show(levels.kill_workers(kills))
                show(levels.posts(5 * rounds))
            except (TimeoutError, httpx.HTTPError):
                print(service.log.read_text()[-3000:])
                raise
            finally:
                service.stop()


def show(rows: Rows) -> None:
    for name, goal, seconds in rows:
        p50, p95 = quantile(seconds, 0.5), quantile(seconds, 0.95)
        print(
            f"| {name} | {goal} | {p50:.3f} s | {p95:.3f} s | {max(seconds):.3f} s | {len(seconds)} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--database", action="append", help="sqlite, postgresql, or a URL; both of the first by default"
    )
    parser.add_argument("--broker", help="URL; by default a Valkey of its own, which can be killed")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    given: Any = parser.parse_args()
    for database in given.database or ["sqlite", "postgresql"]:
        measure(database, given.broker, given.rounds, given.kills)


if __name__ == "__main__":
    main()
