"""What a process may use. Given up before anything of a stranger's is opened; a hard limit cannot be raised again."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

# The gate holds a pickle of 64 MB as objects, or a bare one of 512 MB, or a tensor and its copy in C order.
_GATE_BYTES = 1 << 30
_GATE_SECONDS = 20
_GATE_FILES = 64
"""More than are open already: the upload twice, what is written."""
_GATE_BYTES_A_SECOND = 50_000_000
"""Reading, checking and writing 343 MB takes under a second; a slow disk takes longer, but not CPU time."""


def limit(limits: dict[str, int]) -> None:
    """Of this process, for good: `memory_bytes` (what it may write to; on Linux), `file_bytes` (each file that it writes),
    `cpu_seconds`, `nice` (how far it stands back for others). No core dump: it would hold a tenant's data.

    RLIMIT_DATA and not RLIMIT_AS: PyTorch reserves 4 GB of addresses that it never touches.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, kind in (("memory_bytes", resource.RLIMIT_DATA), ("file_bytes", resource.RLIMIT_FSIZE)):
        if value := limits.get(name):
            resource.setrlimit(kind, (value, value))
    if seconds := limits.get("cpu_seconds"):
        # SIGXCPU at the soft limit says why; SIGKILL follows for a process that ignores it.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    if nice := limits.get("nice"):
        _stand_back(nice)


def _stand_back(nice: int) -> None:
    """Whoever answers callers comes first where there are fewer cores than work."""
    os.nice(nice)
    # Linux may share the CPU between sessions first (sched(7), autogroup), and a trainer has one of its own.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


@contextlib.contextmanager
def tightened(file_bytes: int) -> Iterator[None]:
    """While the gate reads a file of this size: less memory and time than the process has otherwise, few open files,
    and no other process (root may start one still).

    MemoryError at the first, SIGXCPU at the second.
    """
    memory = _data_bytes() + _GATE_BYTES + 2 * min(file_bytes, _GATE_BYTES)
    seconds = _GATE_SECONDS + file_bytes // _GATE_BYTES_A_SECOND
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
    tight = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CPU: used + seconds,
        resource.RLIMIT_NOFILE: _highest_open_file() + _GATE_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    before = {kind: resource.getrlimit(kind) for kind in tight}
    for kind, soft in tight.items():
        resource.setrlimit(kind, (_smaller(soft, before[kind][0]), before[kind][1]))
    try:
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


def _data_bytes() -> int:
    """What this process has already of what the limit counts (proc(5), statm): next to nothing in an inspection's."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _highest_open_file() -> int:
    """Its number: the limit is on numbers, and whoever calls may have many open already."""
    return max(int(number) for number in os.listdir("/dev/fd"))


def _smaller(one: int, other: int) -> int:
    return one if other == resource.RLIM_INFINITY else min(one, other)
