"""The child's end of the line to its supervisor:

JSON lines out, an order and stop requests in, death when the line is cut.

Used by the trainer (`worker.child`) and by the measuring process (`worker.measure`), whose supervisor is the
trainer.
"""

import json
import os
import signal
import sys
import threading
from typing import Any, BinaryIO


class Line:
    """A thread-safe writer of messages, one JSON object a line."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message. Without a reader there is nobody to work for: the process ends at once."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except BrokenPipeError:
                os._exit(1)


class Stops:
    """Whether the supervisor asked to stop; filled by a thread that reads stdin."""

    def __init__(self) -> None:
        self._stop: str | None = None
        self.asked = threading.Event()

    def requested(self) -> str | None:
        """None, "cancel" or "preempt"; a cancel outranks a preemption."""
        return self._stop

    def ask(self, stop: str) -> None:
        if self._stop != "cancel":
            self._stop = stop
        self.asked.set()


def ignore_termination() -> None:
    """SIGTERM reaches every process of a service that a supervisor such as systemd ends. Its worker decides what becomes
    of the work, and tells us over the line."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def take_over_stdout() -> Line:
    """Keep stdout for messages.

    Whatever a library prints goes to stderr from now on and cannot break a message.
    """
    fd = os.dup(sys.stdout.fileno())
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Line(fd)


def read_order(stdin: BinaryIO) -> dict[str, Any]:
    """The first line. An empty one means that the parent died before it could say anything."""
    line = stdin.readline()
    if not line.endswith(b"\n"):
        os._exit(1)
    order: dict[str, Any] = json.loads(line)
    return order


def listen(stdin: BinaryIO) -> Stops:
    """Read the lines after the order in a thread.

    At the end of stdin the supervisor is gone: exit without another write.
    """
    stops = Stops()

    def read() -> None:
        for line in stdin:
            stops.ask(json.loads(line)["stop"])
        os._exit(1)

    threading.Thread(target=read, name="supervisor-line", daemon=True).start()
    return stops
