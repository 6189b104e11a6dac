"""Greedy and slow clients, a few of them; `python -m benchmarks.http_load` has hundreds, and measures."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import http_load

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

MOST_MIB = 200
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port and the process of a service's API."""
    with http_load.service(tmp_path_factory.mktemp("load")) as found:
        yield found


def test_uploads_take_little_memory(running: tuple[int, int]) -> None:
    """100 MB from five clients at once: blocks of them are held, never a file."""
    port, pid = running
    before = http_load.memory_mib(pid)
    answers = SPAWN.Queue()
    clients = [SPAWN.Process(target=http_load.upload, args=(port, n, 20, answers)) for n in range(5)]
    for client in clients:
        client.start()
    assert [answers.get(timeout=60) for _ in clients] == [201] * 5
    for client in clients:
        client.join()
    most = http_load.memory_mib(pid, "VmHWM")
    assert most < MOST_MIB
    assert most - before < 60


def test_slow_clients_hold_nobody_up(running: tuple[int, int]) -> None:
    """Sixty of them, when there are sixteen threads for the database and eight for files.

    A shared machine's own noise is of the size of the effect, so only waiting for one of them, which takes seconds, is a
    fault here.
    """
    port, pid = running
    stop = SPAWN.Event()
    clients = SPAWN.Process(target=http_load.slow_clients, args=(port, 60, stop))
    clients.start()
    with contextlib.ExitStack() as stack:
        stack.callback(clients.join)
        stack.callback(stop.set)
        found = http_load.latencies_ms(port, seconds=3.0)
        assert http_load.memory_mib(pid) < MOST_MIB
        assert http_load.threads(pid) <= 40
    assert len(found) > 50
    assert found[int(0.99 * len(found))] < 1000
