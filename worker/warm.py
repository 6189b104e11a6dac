"""The warm parent, `python -m worker.warm MODULE…`: it has PyTorch and all methods imported, and forks children.

A worker starts it, reads from its stdout the path at which it listens, and ends it by closing its stdin. A request is one
JSON line with three file descriptors (stdin, stdout, stderr of the child), over a connection of its own:

    {"main": "worker.child", "env": {...}}   ->   {"pid": 4711} with a pidfd, and at its end {"exit": 0}

When that connection is closed, the child is killed, with everything that it started.

Why forking is safe here: this process has one thread (checked, or it ends), so no lock can be held by a thread that the
child lacks; it computes nothing with PyTorch, so OpenMP has no team of threads yet; it asks for no GPU, so CUDA has no
context; and no generator of random numbers is shared, because a child seeds its own.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from app.starting.parent import end_with_parent
from worker.forked import NUM_FDS, Request, become, read_request

EXIT_UNFIT = 78
"""It cannot be forked here, and never will; EX_CONFIG of <sysexits.h>."""
_CHUNK = 1 << 16


def main() -> None:
    worker, mains = os.getppid(), sys.argv[1:]
    end_with_parent(signal.SIGTERM)
    _import_everything(mains)
    if (num_threads := len(os.listdir("/proc/self/task"))) > 1:
        sys.stderr.write(f"The imports started {num_threads - 1} threads, which a fork would lose.\n")
        sys.exit(EXIT_UNFIT)
    gc.collect()
    gc.freeze()  # a child that collects garbage would otherwise write to, and so copy, every page of what is imported
    folder = Path(tempfile.mkdtemp(prefix="fewbytes-warm-"))
    request = None
    try:
        with _Server(folder / "socket", worker, mains) as server:
            os.write(1, f"{server.path}\n".encode())
            request = server.serve()
    finally:
        if request is None:
            shutil.rmtree(folder)
    if request is not None:
        become(request)


def _import_everything(mains: Sequence[str]) -> None:
    # NumPy's BLAS starts its threads while it is loaded. No method computes with NumPy.
    before = dict(os.environ)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    importlib.import_module("numpy")
    os.environ.clear()
    os.environ.update(before)  # PyTorch's own BLAS, on ARM, would obey it, too
    for module in (*mains, "worker.pipeline"):
        importlib.import_module(module)
    steps = importlib.import_module("worker.steps")
    for step in pkgutil.iter_modules(steps.__path__):
        importlib.import_module(f"worker.steps.{step.name}")
    _import_late_modules()


def _import_late_modules() -> None:
    """PyTorch imports another 900 modules, for over a second, when a network first runs on the device "meta", as each does
    that is loaded; Pillow its formats with the first image. A run on "meta" computes nothing.
    """
    import torch
    from PIL import Image
    from torch import nn

    with torch.device("meta"):
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())(torch.empty(2, 3, 4, 4))
    Image.preinit()


@dataclass
class _Requester:
    """The other end of a connection, and the child it asked for."""

    connection: socket.socket
    pid: int
    received: bytes = b""
    fds: list[int] = field(default_factory=list)
    child: int | None = None


class _Server:
    """Forks on request. On leaving everything it opened is closed, in a child as in the parent."""

    def __init__(self, path: Path, worker: int, mains: Sequence[str]) -> None:
        self.path = path
        self._mains = mains
        self._worker = worker
        self._requesters: dict[socket.socket, _Requester] = {}
        self._children: dict[int, _Requester] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._signalled, self._signals = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._signalled, self._signals):
            source.setblocking(False)
        for readable in (self._listener, self._signalled, sys.stdin):
            self._selector.register(readable, selectors.EVENT_READ)

    def __enter__(self) -> "_Server":
        # The handlers do nothing; what counts is that each signal's number is written to the socket.
        signal.set_wakeup_fd(self._signals.fileno())
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, _wake)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()  # unregistering would reach through to the parent's: they share what the kernel keeps
        for source in (self._listener, self._signalled, self._signals, *self._requesters):
            source.close()
        for requester in self._requesters.values():
            _close(requester.fds)

    def serve(self) -> Request | None:
        """Serve until the worker is gone: None, and no child is left. In a child: what it is to become."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._signalled:
                    if signal.SIGTERM in self._signalled.recv(_CHUNK):
                        self._end_children()
                        return None
                    self._reap()
                elif key.fileobj is sys.stdin:
                    self._end_children()
                    return None
                elif (requester := self._requesters.get(key.fileobj)) and (  # type: ignore[call-overload]
                    request := self._hear(requester)
                ):
                    return request

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, _, _ = struct.unpack("3i", credentials)
        if pid != self._worker and pid not in self._children:
            connection.close()  # a process that has given up rights must not get them back here
            return
        connection.setblocking(False)
        self._requesters[connection] = _Requester(connection, pid)
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, requester: _Requester) -> Request | None:
        """Read what is there, and fork when the request is complete. In a child: the request."""
        try:
            data, fds, _, _ = socket.recv_fds(requester.connection, _CHUNK, NUM_FDS)
        except ConnectionError:
            data, fds = b"", []
        requester.fds += fds
        requester.received += data
        if not data:
            self._hang_up(requester)
        elif requester.child is None and requester.received.endswith(b"\n"):
            return self._fork(requester)
        return None

    def _fork(self, requester: _Requester) -> Request | None:
        try:
            request = read_request(requester.received, requester.fds, requester.pid)
            if request.main not in self._mains:
                self._refuse(requester, f"it has no {request.main}")
                return None
            pid = os.fork()
        except OSError as error:  # no memory, too many processes, or the requester died meanwhile
            self._refuse(requester, str(error))
            return None
        if pid == 0:
            requester.fds = []  # they are the child's now
            return request
        _close(requester.fds)
        requester.fds, requester.child = [], pid
        self._children[pid] = requester
        self._introduce(requester, pid)
        return None

    def _refuse(self, requester: _Requester, why: str) -> None:
        with contextlib.suppress(OSError):
            requester.connection.send(why.encode())
        self._hang_up(requester)

    def _introduce(self, requester: _Requester, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            socket.send_fds(requester.connection, [json.dumps({"pid": pid}).encode()], [pidfd])
        except OSError:
            self._hang_up(requester)
        finally:
            os.close(pidfd)

    def _hang_up(self, requester: _Requester) -> None:
        """The requester is gone, or must go: so must its child."""
        self._selector.unregister(requester.connection)
        del self._requesters[requester.connection]
        requester.connection.close()
        _close(requester.fds)
        if requester.child is not None:
            _kill(requester.child)

    def _reap(self) -> None:
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            _kill(ended.si_pid)  # what it started; before its number is free for another
            _, status = os.waitpid(ended.si_pid, 0)
            requester = self._children.pop(ended.si_pid)
            requester.child = None
            if requester.connection in self._requesters:
                with contextlib.suppress(OSError):  # gone, so it does not matter to it
                    requester.connection.send(
                        json.dumps({"exit": os.waitstatus_to_exitcode(status)}).encode()
                    )
                self._hang_up(requester)

    def _end_children(self) -> None:
        for pid in self._children:
            _kill(pid)
        for pid in self._children:
            os.waitpid(pid, 0)


def _wake(number: int, frame: FrameType | None) -> None:
    pass


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _kill(pid: int) -> None:
    """A child and its group, which does not exist in a child's first moments."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
