"""A child of the warm parent becomes what was asked for: as near to a fresh interpreter as makes a difference, and then the
same `main`.
"""

import importlib
import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.starting.parent import end_with_parent

NUM_FDS = 3
"""stdin, stdout, stderr."""
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


@dataclass
class Request:
    """What a child is to become. `limits`: soft and hard by kind; `parent`: who forks it."""

    main: str
    env: dict[str, str]
    fds: list[int]
    limits: dict[int, tuple[int, int]]
    folder: str
    parent: int


def read_request(line: bytes, fds: list[int], requester: int) -> Request:
    """Limits and folder are those of the process `requester`, as a spawned child would inherit them; it cannot name others.

    Raises OSError when that process is gone.
    """
    asked: dict[str, Any] = json.loads(line)
    limits = {kind: resource.prlimit(requester, kind) for kind in _LIMITS}
    folder = os.readlink(f"/proc/{requester}/cwd")
    return Request(asked["main"], asked["env"], fds, limits, folder, os.getpid())


def become(request: Request) -> None:
    """Called once, in a forked child, which has nothing open but its standard streams and `request.fds`."""
    os.setsid()
    end_with_parent(signal.SIGKILL)
    if os.getppid() != request.parent:
        os._exit(1)  # it died before the kernel was told what to do then
    for fd, standard in zip(request.fds, range(NUM_FDS), strict=True):
        os.dup2(fd, standard)
        os.close(fd)
    _open_streams()
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.folder)
    for kind, limits in request.limits.items():
        resource.setrlimit(kind, limits)
    Path("/proc/self/comm").write_text(request.main)  # what `ps -o comm` and `top` show
    sys.argv = [request.main]
    _seed_generators()
    importlib.import_module(request.main).main()


def _open_streams() -> None:
    """Python's ends of the descriptors: the old ones would remember what the parent's files could do."""
    encoding = sys.stdin.encoding
    sys.stdin = os.fdopen(0, "r", encoding=encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding=encoding, closefd=False)
    errors = "backslashreplace"
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=encoding, errors=errors, closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def _seed_generators() -> None:
    """As a fresh interpreter's are: from the operating system. Python's `random` does it by itself after a fork."""
    sys.modules["torch"].default_generator.seed()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
