"""The API under greedy and slow clients: its memory while many upload, and how long another client waits.

    python -m benchmarks.http_load                       20 clients x 500 MB; 300 slow clients
    python -m benchmarks.http_load --clients 20 --megabytes 100 --slow 300 --seconds 20

The API runs as `fewbytes api` does, a process of its own on SQLite; the clients are another process, so on two cores
they compete with it for one and a half. Slow clients are a third each: a head that never ends (reconnecting when it
is closed), a body of a byte a second, a download that nobody reads. The other client asks for the list of jobs,
again and again, over one connection.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from app import db
from app.migrate import upgrade
from app.settings import Settings
from app.storage import Storage
from tests.app.conftest import FakeWorker, Service

_BLOCK = bytes(1 << 20)
_ARTIFACT_BYTES = 32 << 20


@dataclass(frozen=True)
class Uploads:
    """`peak_bytes`: resident memory of the API, sampled every 50 ms; `idle_bytes` before the first upload."""

    num_bytes: int
    seconds: float
    statuses: dict[int, int]
    idle_bytes: int
    peak_bytes: int
    peak_threads: int

    @property
    def megabytes_per_second(self) -> float:
        return self.num_bytes / self.seconds / 1e6


@dataclass(frozen=True)
class Waits:
    """How long one client waited for each of its answers."""

    milliseconds: list[float]

    def quantile(self, q: float) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


# ---- the API, a process of its own


@contextlib.contextmanager
def running_api(folder: Path) -> Iterator[tuple[int, int]]:
    """(process id, port) of the API on a migrated SQLite database in this folder."""
    environment = os.environ | {"FEWBYTES_DATA_DIR": str(folder), "FEWBYTES_REQUESTS_PER_MINUTE": "0"}
    for name in ("DATABASE_URL", "BROKER_URL"):
        environment.pop(name, None)
    upgrade(f"sqlite:///{folder / 'fewbytes.db'}")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "app.cli", "api", "--fd", str(listener.fileno())]
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        _wait_until_well(port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_well(port: int) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError("the API does not answer")


def memory_and_threads(pid: int) -> tuple[int, int]:
    """Resident bytes and number of threads of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["Threads"])


# ---- uploads


def measure_uploads(pid: int, port: int, *, clients: int, megabytes: int) -> Uploads:
    """All at once, each its own file."""
    idle_bytes, _ = memory_and_threads(pid)
    results: multiprocessing.Queue[list[int]] = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(
        target=_upload_all, args=(port, clients, megabytes, results)
    )
    began = time.monotonic()
    process.start()
    samples = [memory_and_threads(pid)]
    while process.is_alive():
        time.sleep(0.05)
        samples.append(memory_and_threads(pid))
    seconds = time.monotonic() - began
    statuses = results.get(timeout=10)
    process.join()
    return Uploads(
        num_bytes=clients * megabytes * 10**6,
        seconds=seconds,
        statuses={status: statuses.count(status) for status in set(statuses)},
        idle_bytes=idle_bytes,
        peak_bytes=max(memory for memory, _ in samples),
        peak_threads=max(threads for _, threads in samples),
    )


def _upload_all(port: int, clients: int, megabytes: int, results: "multiprocessing.Queue[list[int]]") -> None:
    async def all_at_once() -> list[int]:
        return await asyncio.gather(*(_upload(port, f"load-{n}", megabytes * 10**6) for n in range(clients)))

    results.put(asyncio.run(all_at_once()))


async def _upload(port: int, name: str, size: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"PUT /v1/files/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    )
    left = size
    while left:
        block = _BLOCK[:left]
        writer.write(block)
        await writer.drain()
        left -= len(block)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


# ---- slow clients


class SlowClients:
    """A thread with an event loop of its own; `with` it, they are there."""

    def __init__(self, port: int, number: int, download_path: str) -> None:
        self._port = port
        self._tasks = [
            (self._slow_head, self._slow_body, self._unread_download)[n % 3] for n in range(number)
        ]
        self._path = download_path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "SlowClients":
        self._thread.start()
        self._running = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        time.sleep(2.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.cancel()
        time.sleep(0.2)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        await asyncio.gather(*(self._again(task) for task in self._tasks))

    async def _again(self, task: "object") -> None:
        while True:
            with contextlib.suppress(OSError):
                await task()  # type: ignore[operator]
            await asyncio.sleep(0.1)

    async def _slow_head(self) -> None:
        line = await self._line(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n")
        try:
            while True:
                await asyncio.sleep(1)
                await self._loop.sock_sendall(line, b"A: b\r\n")
        finally:
            line.close()

    async def _slow_body(self) -> None:
        line = await self._line(
            b"PUT /v1/files/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        )
        try:
            while True:
                await asyncio.sleep(1)
                await self._loop.sock_sendall(line, b"x")
        finally:
            line.close()

    async def _unread_download(self) -> None:
        line = await self._line(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        try:
            await asyncio.sleep(3600)
        finally:
            line.close()

    async def _line(self, first: bytes) -> socket.socket:
        line = socket.socket()
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        await self._loop.sock_connect(line, ("127.0.0.1", self._port))
        await self._loop.sock_sendall(line, first)
        return line


def prepare_download(port: int, data_dir: Path) -> str:
    """The path of an artifact to download: a job that a worker of ours accepts and finishes at once."""
    db.configure(f"sqlite:///{data_dir / 'fewbytes.db'}")
    worker = FakeWorker(Storage(data_dir))
    worker.know(names=["cat", "dog"])
    worker.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            service = Service(client, worker, Settings(data_dir=data_dir), port)
            student = {"architecture": "report/final"}
            job_id = service.job(steps=[{"method": "distill", "student": student}])
            worker.finish(job_id, os.urandom(_ARTIFACT_BYTES))
    finally:
        worker.stop()
        db.configure(None)
    return f"/v1/jobs/{job_id}/download"


def measure_waits(port: int, seconds: float, path: str = "/v1/jobs") -> Waits:
    """One client that asks again as soon as it has its answer."""
    milliseconds = []
    until = time.monotonic() + seconds
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        client.get(path)
        while time.monotonic() < until:
            began = time.perf_counter()
            assert client.get(path).status_code == 200
            milliseconds.append(1000 * (time.perf_counter() - began))
    return Waits(milliseconds)


def measure_disturbance(
    port: int, path: str, *, slow: int, seconds: float, rounds: int = 3
) -> tuple[Waits, Waits]:
    """(undisturbed, disturbed), in turns, so that whatever else the machine does falls on both."""
    calm: list[float] = []
    disturbed: list[float] = []
    for _ in range(rounds):
        calm += measure_waits(port, seconds).milliseconds
        with SlowClients(port, slow, path):
            disturbed += measure_waits(port, seconds).milliseconds
        time.sleep(1.0)
    return Waits(calm), Waits(disturbed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--slow", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the measurements of waits")
    parser.add_argument(
        "--folder", type=Path, help="where the data go; default: the system's temporary folder"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name, running_api(Path(name)) as (pid, port):
        path = prepare_download(port, Path(name))
        calm, disturbed = measure_disturbance(port, path, slow=given.slow, seconds=given.seconds)
        with SlowClients(port, given.slow, path):
            slow_bytes, slow_threads = memory_and_threads(pid)
        uploads = measure_uploads(pid, port, clients=given.clients, megabytes=given.megabytes)
    print(f"{given.clients} uploads of {given.megabytes} MB at once, answers {uploads.statuses}")
    print(f"  throughput   {uploads.megabytes_per_second:8.0f} MB/s in {uploads.seconds:.1f} s")
    print(
        f"  memory       {uploads.peak_bytes / 1e6:8.0f} MB at most, {uploads.idle_bytes / 1e6:.0f} MB before"
    )
    print(f"  threads      {uploads.peak_threads:8d} at most")
    print(f"{given.slow} slow clients: {slow_bytes / 1e6:.0f} MB, {slow_threads} threads")
    print("  another client waits     p50 ms     p99 ms     max ms    answers")
    for label, waits in (("undisturbed", calm), ("disturbed", disturbed)):
        values = (waits.quantile(0.5), waits.quantile(0.99), max(waits.milliseconds))
        print(f"  {label:20}" + "".join(f"{v:11.2f}" for v in values) + f"{len(waits.milliseconds):11d}")
    print(f"  p99, disturbed : undisturbed = {disturbed.quantile(0.99) / calm.quantile(0.99):.2f}")


if __name__ == "__main__":
    main()
