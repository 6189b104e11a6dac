"""The connection: how long it waits, how much it takes, and that a refusal reaches whoever sent too much."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from app.api import pace, server
from app.settings import Settings
from tests.app.conftest import Service

HOST = b"Host: localhost\r\n"
PUT = b"PUT /v1/files/slow HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    """Impatient, so that a test need not be patient."""
    changes = {"head_seconds": 0.4, "body_seconds": 0.5, "silent_seconds": 0.8}
    return service_settings.model_copy(update=changes)


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=10)


@pytest.fixture
def line(sqlite_service: Service) -> Iterator[socket.socket]:
    """A connection to the service, whose first clock runs."""
    with connect(sqlite_service) as made:
        yield made


def download(service: Service, size: int) -> socket.socket:
    """A connection on which an artifact of so many bytes is on its way."""
    job_id = service.job()
    service.worker.finish(job_id, bytes(size))
    line = connect(service)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    head = f"GET /v1/jobs/{job_id}/download HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    line.sendall(head.encode())
    return line


def answer(line: socket.socket) -> tuple[int, dict[str, Any]]:
    response = HTTPResponse(line)
    response.begin()
    body = response.read()
    return response.status, json.loads(body) if body else {}


def test_a_head_that_does_not_come_is_408(line: socket.socket) -> None:
    """However steadily its bytes drip: the whole of it has one deadline."""
    began = time.monotonic()
    line.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(3):
        time.sleep(0.1)
        line.sendall(b"A: b\r\n")
    status, problem = answer(line)
    assert (status, problem["code"]) == (408, "REQUEST_TIMEOUT")
    assert 0.3 < time.monotonic() - began < 2
    assert line.recv(1) == b""


def test_a_connection_that_says_nothing_is_closed(line: socket.socket) -> None:
    """Without an answer: nothing was asked."""
    assert line.recv(1) == b""


def test_a_connection_may_be_used_again_within_its_time(line: socket.socket) -> None:
    """The clock of a head begins anew after every answer, and stands still while one is made."""
    for _ in range(3):
        line.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer(line) == (200, {"status": "ok"})
        time.sleep(0.25)
    line.sendall(b"GET /v1/jobs/job_a?wait=1 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer(line)[0] == 404


def test_pipelined_requests_are_answered_in_order(line: socket.socket) -> None:
    """And a broken one after them costs the good ones nothing."""
    good = b"GET /%s HTTP/1.1\r\n" + HOST + b"\r\n"
    line.sendall(good % b"healthz" + good % b"nothing" + b"\x00\r\n\r\n")
    stream = b""
    while chunk := line.recv(65536):
        stream += chunk
    assert re.findall(rb"HTTP/1.1 (\d+)", stream) == [b"200", b"404", b"400"]


@pytest.mark.parametrize("head", [PUT, POST], ids=["file", "json"])
def test_a_body_that_stops_is_408(sqlite_service: Service, line: socket.socket, head: bytes) -> None:
    """Nothing of it is stored, and the connection ends."""
    line.sendall(head + b"{")
    status, problem = answer(line)
    assert (status, problem["code"], problem["retryable"]) == (408, "REQUEST_TIMEOUT", True)
    assert line.recv(1) == b""
    assert partial_files(sqlite_service.settings.resolved_data_dir) == []


def test_a_body_that_drips_is_408(
    sqlite_service: Service, line: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then never falls silent, but is below the slowest pace that is waited for."""
    monkeypatch.setattr(pace, "GRACE_SECONDS", 0.3)
    line.sendall(PUT)
    line.settimeout(0.05)
    began = time.monotonic()
    while time.monotonic() - began < 5:
        try:
            line.sendall(b"x")
            line.recv(1, socket.MSG_PEEK)
            break
        except TimeoutError:
            continue
    line.settimeout(10)
    assert answer(line)[1]["code"] == "REQUEST_TIMEOUT"
    assert partial_files(sqlite_service.settings.resolved_data_dir) == []


def test_a_slow_body_above_the_pace_is_taken(line: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow is not hostile: 10 kB a second."""
    monkeypatch.setattr(pace, "GRACE_SECONDS", 0.1)
    line.sendall(PUT.replace(b"100000", b"10000"))
    for _ in range(10):
        line.sendall(b"x" * 1000)
        time.sleep(0.1)
    assert answer(line)[0] == 201


def test_a_download_that_nobody_reads_is_ended(sqlite_service: Service) -> None:
    """Within the time of silence; its file and its memory are free again."""
    size = 1 << 25
    with download(sqlite_service, size) as line:
        time.sleep(2.0)
        assert 0 < num_bytes(line, pause=0) < size


def test_a_download_that_is_read_slowly_goes_on(sqlite_service: Service) -> None:
    """It takes longer than the time of silence, and never falls silent."""
    size = 8 << 20
    with download(sqlite_service, size) as line:
        assert num_bytes(line, pause=0.02) > size


def num_bytes(line: socket.socket, pause: float) -> int:
    """How many can be read until the connection ends, however it ends."""
    read = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := line.recv(100_000):
            read += len(chunk)
            time.sleep(pause)
    return read


def test_whoever_sends_too_much_can_read_why(sqlite_service: Service, line: socket.socket) -> None:
    """A server that closes at once destroys its own answer: the sender sees a reset instead of 413."""
    size = 20 * sqlite_service.settings.max_file_bytes
    line.sendall(b"PUT /v1/files/a HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
    for _ in range(20):
        line.sendall(bytes(sqlite_service.settings.max_file_bytes))
    status, problem = answer(line)
    assert (status, problem["code"]) == (413, "FILE_TOO_LARGE")


def test_a_client_that_asks_first_sends_nothing_in_vain(line: socket.socket) -> None:
    """Expect: 100-continue, as curl sends it with large files: refused before a byte, or told to go on."""
    expect = b"PUT /v1/files/a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    line.sendall(expect % 5)
    assert line.recv(1000).startswith(b"HTTP/1.1 100 ")
    line.sendall(b"bytes")
    assert answer(line)[0] == 201
    line.sendall(expect % (1 << 40))
    assert answer(line)[1]["code"] == "FILE_TOO_LARGE"


@pytest.fixture
def _crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "max_connections", lambda: 3)


@pytest.mark.usefixtures("_crowded")
def test_beyond_the_most_connections_the_longest_idle_goes(sqlite_service: Service) -> None:
    """Not the newcomer, and nobody whose request is under way."""
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(connect(sqlite_service))]
        lines[0].sendall(PUT.replace(b"100000", b"1"))
        time.sleep(0.05)
        for _ in range(3):
            lines.append(stack.enter_context(connect(sqlite_service)))
            time.sleep(0.02)
        busy, idle, _, fresh = lines
        fresh.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer(fresh)[0] == 200
        assert idle.recv(1) == b""
        busy.sendall(b"x")
        assert answer(busy)[0] == 201


def partial_files(data_dir: Path) -> list[Path]:
    return [path for path in data_dir.rglob("*") if path.is_file() and "partial" in path.parts]
