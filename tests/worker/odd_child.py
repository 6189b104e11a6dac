"""A child that tells what it is, or ends in a way of its own: `python -m tests.worker.odd_child`, spawned or forked."""

import gc
import os
import random
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from worker.leash import Leash
from worker.limits import limit
from worker.messages import Line, listen, read_order, take_over_stdout


def tell(line: Line, order: dict[str, Any]) -> None:
    torch.set_num_threads(order["num_threads"])
    counts = re.findall(r"(\S+) : (\d+)", torch.__config__.parallel_info())
    square = torch.ones(600, 600)
    for _ in range(3):
        square @ square
    line.send(
        {
            "type": "told",
            "threads": {name: int(number) for name, number in counts},
            "tasks": len(os.listdir("/proc/self/task")),
            "files": _files(),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "limits": {
                name: resource.getrlimit(getattr(resource, name))
                for name in dir(resource)
                if name.startswith("RLIMIT_")
            },
            "signals": {
                number.name: str(signal.getsignal(number).__class__.__name__)
                + str(signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN))
                for number in signal.valid_signals()
                if isinstance(number, signal.Signals)
            },
            "masked": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "garbage": [gc.isenabled(), *gc.get_threshold()],
            "python_threads": sorted(thread.name for thread in threading.enumerate()),
            "leads_its_session": os.getsid(0) == os.getpid(),
            "encodings": [stream.encoding for stream in (sys.stdin, sys.stdout, sys.stderr)],
        }
    )


def _files() -> dict[str, str]:
    """What is open, less the folder that is read to tell it."""
    found = {
        fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(int(fd))
    }
    return {fd: target.split(":")[0] for fd, target in found.items()}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def draw(line: Line, order: dict[str, Any]) -> None:
    import numpy

    drawn = [random.random(), torch.rand(()).item(), numpy.random.rand()]
    line.send({"type": "drawn", "numbers": drawn, "seed": str(torch.initial_seed())})


def leave(line: Line, order: dict[str, Any]) -> None:
    sys.exit(order["code"])


def fail(line: Line, order: dict[str, Any]) -> None:
    raise OSError(28, "No space left on device")


def signal_itself(line: Line, order: dict[str, Any]) -> None:
    os.kill(os.getpid(), order["signal"])


def allocate(line: Line, order: dict[str, Any]) -> None:
    limit({"memory_bytes": order["memory_bytes"]})
    try:
        torch.ones(order["memory_bytes"], dtype=torch.uint8)
    except RuntimeError as error:
        line.send({"type": "refused", "why": str(error)})


def wait(line: Line, order: dict[str, Any]) -> None:
    listen(sys.stdin.buffer)  # for its end
    line.send({"type": "waiting", "pid": os.getpid()})
    time.sleep(600)


def ignore(line: Line, order: dict[str, Any]) -> None:
    """Does not hear that nobody is there any more."""
    line.send({"type": "waiting", "pid": os.getpid()})
    time.sleep(600)


def have_another(line: Line, order: dict[str, Any]) -> None:
    """Starts a second child, as a trainer has a stage measured, and waits."""
    listen(sys.stdin.buffer)
    command = [sys.executable, "-m", "tests.worker.odd_child"]
    leash = Leash(command, {"do": "ignore"}, env=os.environ, new_session=False)
    messages: list[dict[str, Any]] = []
    while not messages:
        messages = leash.read(0.2)
    line.send({"type": "waiting", "pid": os.getpid(), "other": messages[0]["pid"]})
    time.sleep(600)


DO: dict[str, Callable[[Line, dict[str, Any]], None]] = {
    function.__name__: function
    for function in (tell, draw, leave, fail, signal_itself, allocate, wait, ignore, have_another)
}


def main() -> None:
    line = take_over_stdout()
    order = read_order(sys.stdin.buffer)
    DO[order["do"]](line, order)


if __name__ == "__main__":
    main()
