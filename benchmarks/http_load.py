"""What greedy and slow clients cost the API: memory while many upload, and another client's latency beside slow ones.

    python -m benchmarks.http_load                    # 20 uploads of 500 MB (10 GB of disk), 300 slow clients
    python -m benchmarks.http_load --uploads 5 --megabytes 20 --slow 60

A real `fewbytes up` in a folder of its own; the clients are other processes. Memory is the API process's, from /proc
(Linux). Latency is that of GET /v1/jobs, one request after the other on one connection. docs/security.md has the output.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

_BLOCK = os.urandom(1 << 20)
_HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"


@contextlib.contextmanager
def service(folder: Path) -> Iterator[tuple[int, int]]:
    """A running service: its port, and the API's process."""
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "app.cli", "up", "--data-dir", str(folder / "data"), "--port", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    card = folder / "data" / "service.json"
    give_up = time.monotonic() + 60
    while True:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < give_up, "the service does not start"
        with contextlib.suppress(OSError, ValueError, httpx.HTTPError, KeyError):
            found: dict[str, Any] = json.loads(card.read_text())
            if httpx.get(f"{found['url']}/readyz").status_code == 200:
                break
        time.sleep(0.1)
    try:
        yield httpx.URL(found["url"]).port or 80, int(found["pids"]["api"])
    finally:
        process.terminate()
        process.wait(60)


def memory_mib(pid: int, which: str = "VmRSS") -> float:
    """VmRSS: now; VmHWM: the most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    raise AssertionError(which)


def upload(port: int, number: int, megabytes: int, answers: Any) -> None:
    """One file, as curl -T sends it; no two have the same bytes."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        more = f"Content-Length: {megabytes << 20}\r\n"
        line.sendall(_HEAD.format(method="PUT", path=f"/v1/files/load-{number}.bin", more=more).encode())
        line.sendall(number.to_bytes(8, "little") + _BLOCK[8:])
        for _ in range(megabytes - 1):
            line.sendall(_BLOCK)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        answers.put(answer.status)


def uploads(port: int, pid: int, count: int, megabytes: int) -> None:
    """All at once; prints the memory that they took."""
    before = memory_mib(pid)
    answers: Any = multiprocessing.Queue()
    clients = [
        multiprocessing.Process(target=upload, args=(port, n, megabytes, answers)) for n in range(count)
    ]
    began = time.monotonic()
    for client in clients:
        client.start()
    statuses = [answers.get(timeout=3600) for _ in clients]
    seconds = time.monotonic() - began
    for client in clients:
        client.join()
    print(f"| uploads | {count} x {megabytes} MiB, answered {sorted(set(statuses))} |")
    print(f"| throughput | {count * megabytes / seconds:.0f} MiB/s, {seconds:.0f} s |")
    print(
        f"| API memory before, most, after | {before:.0f}, {memory_mib(pid, 'VmHWM'):.0f}, {memory_mib(pid):.0f} MiB |",
        flush=True,
    )


def latencies_ms(port: int, seconds: float) -> list[float]:
    """Of GET /v1/jobs, sorted."""
    found = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(20):
            client.get("/v1/jobs")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            assert client.get("/v1/jobs").status_code == 200
            found.append(1000 * (time.perf_counter() - began))
    return sorted(found)


def slow_clients(port: int, count: int, stop: Any) -> None:
    """A third sends half a head, a third a body at a byte a second, a third reads nothing of its answers.

    Who is hung up on comes again.
    """
    lines: list[socket.socket | None] = [None] * count

    def begin(number: int) -> socket.socket:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        line.setblocking(False)
        kind = number % 3
        if kind == 0:
            line.send(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        elif kind == 1:
            more = "Content-Length: 100000\r\n"
            line.send(_HEAD.format(method="PUT", path=f"/v1/files/slow-{number}.bin", more=more).encode())
        else:
            line.send(_HEAD.format(method="GET", path="/openapi.json", more="").encode())
        return line

    while not stop.is_set():
        for number, line in enumerate(lines):
            try:
                if line is None:
                    lines[number] = begin(number)
                elif number % 3 < 2:
                    line.send(b"a")
            except BlockingIOError:
                continue
            except OSError:
                if line is not None:
                    line.close()
                lines[number] = None
        stop.wait(1.0)


def disturbed(port: int, pid: int, count: int, seconds: float) -> None:
    """Latency without and with slow clients."""
    rows = [("undisturbed", latencies_ms(port, seconds))]
    stop = multiprocessing.Event()
    clients = multiprocessing.Process(target=slow_clients, args=(port, count, stop))
    clients.start()
    time.sleep(3)
    rows.append((f"beside {count} slow clients", latencies_ms(port, seconds)))
    most = memory_mib(pid)
    stop.set()
    clients.join()
    for name, found in rows:
        p50, p99 = found[len(found) // 2], found[int(0.99 * len(found))]
        print(f"| GET /v1/jobs {name} | p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(found)} requests |")
    ratio = rows[1][1][int(0.99 * len(rows[1][1]))] / rows[0][1][int(0.99 * len(rows[0][1]))]
    print(f"| p99, disturbed to undisturbed | {ratio:.2f} |")
    print(f"| API memory with them | {most:.0f} MiB, {threads(pid)} threads |", flush=True)


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--slow", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement of latency")
    given = parser.parse_args()
    assert threading.active_count() == 1  # the clients are forked
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as (port, pid):
        print("| what | measured |\n|---|---|", flush=True)
        disturbed(port, pid, given.slow, given.seconds)
        uploads(port, pid, given.uploads, given.megabytes)


if __name__ == "__main__":
    main()
