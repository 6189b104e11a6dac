"""Two ways to start a child process: spawned, which pays for its imports, or forked from the warm parent, which has them.

A forked child is no child of the process that asked for it, so it is watched through a pidfd: that tells its end even
when the warm parent is frozen or dead, and a signal sent through it never meets another process.
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any, Protocol

log = logging.getLogger(__name__)

WARM_SOCKET = "FEWBYTES_WARM_SOCKET"
"""The environment variable with the path at which a warm parent (`worker.warm`) listens; empty: there is none."""
FORKABLE = ("worker.child", "worker.measure")
"""The modules whose `main` a warm parent runs in a child."""
_ANSWER_SECONDS = 5.0
"""A fork takes some milliseconds. A warm parent that needs longer is frozen, and spawning is the better way."""
_MAX_ANSWER_BYTES = 4096


class NotStartedError(Exception):
    """The warm parent did not start this child."""


class Child(Protocol):
    """A child with pipes to its stdin, stdout and stderr."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes]: ...
    @property
    def stdout(self) -> IO[bytes]: ...
    @property
    def stderr(self) -> IO[bytes]: ...

    def poll(self) -> int | None:
        """None while it runs, then its exit code; negative: the signal that ended it."""
        ...

    def kill(self) -> None:
        """SIGKILL it, with what it started where the group is its own, and wait until it is gone.

        Harmless when it is gone already. The pipes stay open.
        """
        ...


class Start(Protocol):
    def __call__(self, command: list[str], *, env: Mapping[str, str], new_session: bool) -> Child: ...


def spawn(command: list[str], *, env: Mapping[str, str], new_session: bool) -> Child:
    """A fresh interpreter."""
    return _Spawned(command, env=env, new_session=new_session)


def fork_or_spawn(command: list[str], *, env: Mapping[str, str], new_session: bool) -> Child:
    """A fork of the warm parent that `env` names, where `command` is one it knows; else, or where that fails, a spawned
    child.

    A forked child has a session of its own even without `new_session`: nobody can join the session of another. It ends
    with the process that asked for it all the same.
    """
    path = env.get(WARM_SOCKET)
    if path and command[:-1] == [sys.executable, "-m"] and command[-1] in FORKABLE:
        try:
            return _Forked(path, command[-1], env)
        except NotStartedError as why:
            log.info("%s is spawned, because the warm parent did not fork it: %s", command[-1], why)
    return spawn(command, env=env, new_session=new_session)


class _Spawned:
    def __init__(self, command: list[str], *, env: Mapping[str, str], new_session: bool) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            bufsize=0,
            start_new_session=new_session,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.pid = self._process.pid
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._owns_group = new_session

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        if self._owns_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


class _Forked:
    """Raises NotStartedError."""

    def __init__(self, path: str, main: str, env: Mapping[str, str]) -> None:
        with contextlib.ExitStack() as on_failure:
            # Pipes of this child alone: a request given up on still lies in the socket with its ends of the pipes.
            theirs, (self.stdin, self.stdout, self.stderr) = _pipes(on_failure)
            self._line = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._line.settimeout(_ANSWER_SECONDS)
            try:
                self._line.connect(path)
                _send_request(self._line, {"main": main, "env": dict(env)}, theirs)
                answer, fds, _, _ = socket.recv_fds(self._line, _MAX_ANSWER_BYTES, 1)
            except OSError as error:  # nobody is there, it died over this, or it does not answer
                raise NotStartedError(str(error)) from None
            finally:
                for fd in theirs:
                    os.close(fd)
            if not fds:
                raise NotStartedError(answer.decode() or "it hung up")
            self._pidfd = fds[0]
            self.pid = int(json.loads(answer)["pid"])
            self._code: int | None = None
            on_failure.pop_all()

    def poll(self) -> int | None:
        if self._code is None and self._has_ended(timeout_ms=0):
            self._take_leave()
        return self._code

    def kill(self) -> None:
        if self._code is not None:
            return
        if not self._has_ended(timeout_ms=0):
            # By number, but before its own end: the group cannot be another's yet.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._has_ended(timeout_ms=None)
        self._take_leave()

    def _has_ended(self, *, timeout_ms: int | None) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(timeout_ms))

    def _take_leave(self) -> None:
        self._code = self._hear_exit_code()
        self._line.close()
        os.close(self._pidfd)

    def _hear_exit_code(self) -> int:
        try:
            answer = self._line.recv(_MAX_ANSWER_BYTES)
        except OSError:  # frozen, or killed with the answer unsent
            answer = b""
        # The kernel kills the children of a warm parent that dies.
        return int(json.loads(answer)["exit"]) if answer else -int(signal.SIGKILL)


def _pipes(on_failure: contextlib.ExitStack) -> tuple[list[int], list[IO[bytes]]]:
    """The child's ends of stdin, stdout and stderr, and ours."""
    (child_in, our_in), (our_out, child_out), (our_err, child_err) = os.pipe(), os.pipe(), os.pipe()
    ours: list[IO[bytes]] = [
        on_failure.enter_context(os.fdopen(fd, mode, buffering=0))
        for fd, mode in ((our_in, "wb"), (our_out, "rb"), (our_err, "rb"))
    ]
    return [child_in, child_out, child_err], ours


def _send_request(line: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
    data = json.dumps(request).encode() + b"\n"
    sent = socket.send_fds(line, [data], fds)
    line.sendall(data[sent:])
