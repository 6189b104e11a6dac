"""The process that does the work, `python -m worker.child`: it reads one order, obeys it, reports, and ends.

It holds no database and no storage. Its last word is one of

    {"type": "result", ...}   done, with the files it left in its work folder
    {"type": "stopped", ...}  it was asked to stop and did
    {"type": "error", ...}    the caller must be told something: a Problem

Ending without one of them means that it was lost, and the supervisor tries again. So an OSError (a lost mount; not the
limit on a file) is let through: trying again may help. A full disk is reported as an error that is `retryable`, with the
code DISK_FULL. Any other exception would come again, and is reported.
"""

import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from app.errors import Problem
from app.starting.parent import end_with_parent
from app.storage import disk
from worker.limits import limit
from worker.messages import Line, Stops, listen, read_order, take_over_stdout

# What an order may ask for, and where it is done. Modules are loaded on demand: torch takes seconds.
DO: dict[str, tuple[str, str]] = {
    "compress": ("worker.pipeline", "compress"),
    "teacher": ("worker.inspections.uploads", "teacher"),
    "dataset": ("worker.inspections.datasets", "dataset"),
    "architecture": ("worker.inspections.architectures", "architecture"),
}


def main() -> NoReturn:
    line = take_over_stdout()
    end_with_parent(signal.SIGKILL)
    order = read_order(sys.stdin.buffer)
    stops = listen(sys.stdin.buffer)
    # As if the supervisor had asked: to a supervisor such as systemd both are one service.
    signal.signal(signal.SIGTERM, lambda *_: stops.ask("preempt"))
    limit(order.get("limits", {}))
    if order["do"] != "compress":
        threading.Thread(target=_end_when_asked, args=(line, stops), daemon=True).start()
    code = 0
    try:
        line.send(_obey(order, line, stops))
    except OSError:
        traceback.print_exc()
        code = 1
    # Not sys.exit: what was said is whole, and a library's exit handler must not turn it into a crash. Nor must
    # Python, which aborts at its end when a thread reads stdin: SIGABRT would say that memory was refused.
    sys.stderr.flush()
    os._exit(code)


def _obey(order: dict[str, Any], line: Line, stops: Stops) -> dict[str, Any]:
    try:
        module, function = DO[order["do"]]
        do: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), function)
        return do(order, line, stops)
    except Problem as problem:
        return {**problem.body(), "type": "error"}  # its own "type" is a URN
    except Exception as error:
        if isinstance(error, OSError):
            if error.errno == errno.EFBIG and order["do"] == "teacher":
                # The order's own limit on files: another attempt would meet it again.
                detail = "What is made of it is larger than a file of this service may be: its tensors share bytes."
                return {**Problem(422, "CHECKPOINT_UNSAFE", detail).body(), "type": "error"}
            if disk.is_full(error):
                return {**_disk_full(error).body(), "type": "error"}
            if error.errno != errno.ENOMEM:
                raise
        traceback.print_exc()
        return {**_problem_for(error, order["do"]).body(), "type": "error"}


def _disk_full(error: OSError) -> Problem:
    detail = f"The disk of the worker is full ({error.strerror}). What was saved before is whole."
    return Problem(507, "DISK_FULL", detail, retryable=True)


def _problem_for(error: Exception, do: str) -> Problem:
    if not _is_out_of_memory(error):
        detail = f"A fault in the service, not in the request: {_last_line(error)}. The log has the rest."
        return Problem(500, "INTERNAL_ERROR", detail)
    if do == "compress":
        detail = "It needs more memory than this worker has: lower batch_size, or take a smaller student."
        return Problem(507, "OUT_OF_MEMORY", f"{detail} ({_last_line(error)})")
    # A verdict on the upload: another attempt would meet the same limit.
    detail = "Looking at it needs more memory than an inspection may have (FEWBYTES_INSPECTION_MEMORY_BYTES)."
    return Problem(422, "OUT_OF_MEMORY", f"{detail} ({_last_line(error)})")


# What the CPU's allocator, mmap, the loader of shared libraries and threads say; none has a type of its own.
_MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",
    "bad_alloc",
)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # CUDA's
        or any(sign in text for sign in _MEMORY_SIGNS)
    )


def _last_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _end_when_asked(line: Line, stops: Stops) -> None:
    """An inspection has nothing worth keeping: it ends at once."""
    stops.asked.wait()
    line.send({"type": "stopped", "stop": stops.requested()})
    os._exit(0)


if __name__ == "__main__":
    main()
