"""A child process on a leash: own session, JSON lines both ways, bounded reading, and a kill that takes its
children too.
"""

import json
import os
import selectors
from collections.abc import Iterator, Mapping
from typing import Any

from worker.starting import Start, fork_or_spawn

# The largest message is a layer table or a list of 10,000 class names, far below this.
MAX_MESSAGE_BYTES = 16 << 20
MAX_LOG_LINE_BYTES = 2_000
_CHUNK = 1 << 16


class BrokenLineError(Exception):
    """The child wrote something that is no message: it can no longer be understood."""


class Leash:
    """Starts `command`, gives it `order` as its first line, and reads what it says.

    Nothing here blocks longer than the timeout it was given: pipes are non-blocking, so that a child which
    never reads cannot hold its supervisor.
    """

    def __init__(
        self,
        command: list[str],
        order: dict[str, Any],
        *,
        env: Mapping[str, str],
        new_session: bool = True,
        start: Start = fork_or_spawn,
    ) -> None:
        self._child = start(command, env=env, new_session=new_session)
        self._stdin = self._child.stdin
        self._outgoing = b""
        self._messages = b""
        self._log = _LogLines()
        self._selector = selectors.DefaultSelector()
        for pipe, name in ((self._child.stdout, "message"), (self._child.stderr, "log")):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, name)
        os.set_blocking(self._stdin.fileno(), False)
        self.send(order)

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, message: dict[str, Any]) -> None:
        """Queue one line for the child's stdin; `read` writes it as the child makes room."""
        if not self._outgoing and not self._stdin.closed:
            self._selector.register(self._stdin, selectors.EVENT_WRITE, "order")
        self._outgoing += json.dumps(message, separators=(",", ":")).encode() + b"\n"

    def read(self, timeout: float) -> list[dict[str, Any]]:
        """Wait at most `timeout` seconds; the messages that came, log lines as {"type": "log", ...}.

        Raises BrokenLineError.
        """
        found: list[dict[str, Any]] = []
        for key, _ in self._selector.select(timeout):
            if key.data == "order":
                self._write()
            elif data := _read(key.fd):
                found += self._parse(data, key.data)
            elif data == b"":
                self._selector.unregister(key.fileobj)
        return found

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.poll()

    def rest(self) -> list[dict[str, Any]]:
        """After the exit: everything still in the pipes. Raises BrokenLineError."""
        found: list[dict[str, Any]] = []
        for key in list(self._selector.get_map().values()):
            while key.data != "order" and (data := _read(key.fd)):
                found += self._parse(data, key.data)
        return found + self._log.finish()

    def kill(self) -> None:
        """SIGKILL the child, with its whole group where that is its own, and reap it.

        Harmless when it is gone already.
        """
        self._child.kill()
        self._selector.close()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            pipe.close()

    def _write(self) -> None:
        try:
            self._outgoing = self._outgoing[os.write(self._stdin.fileno(), self._outgoing) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._outgoing = b""  # the child closed its end: its exit code will tell
        if not self._outgoing:
            self._selector.unregister(self._stdin)

    def _parse(self, data: bytes, kind: str) -> list[dict[str, Any]]:
        return self._log.feed(data) if kind == "log" else list(self._split(data))

    def _split(self, data: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._messages = (self._messages + data).split(b"\n")
        if len(self._messages) > MAX_MESSAGE_BYTES:
            raise BrokenLineError(f"sent a message of more than {MAX_MESSAGE_BYTES} bytes")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                raise BrokenLineError(f"sent a line that is no JSON: {line[:80]!r}") from None
            if not isinstance(message, dict) or "type" not in message:
                raise BrokenLineError(f"sent a line that is no message: {line[:80]!r}")
            yield message


def _read(fd: int) -> bytes | None:
    """What is there now; None: nothing yet; empty: the other end was closed."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None


class _LogLines:
    """Cuts stderr into lines of bounded length; the rest of a longer line is dropped."""

    def __init__(self) -> None:
        self._line = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        *ends, rest = data.split(b"\n")
        found = []
        for end in ends:
            found.append(self._message(self._line + end))
            self._line = b""
        # One byte more than is kept, so that the cut shows.
        self._line = (self._line + rest)[: MAX_LOG_LINE_BYTES + 1]
        return found

    def finish(self) -> list[dict[str, Any]]:
        line, self._line = self._line, b""
        return [self._message(line)] if line else []

    @staticmethod
    def _message(line: bytes) -> dict[str, Any]:
        text = line[:MAX_LOG_LINE_BYTES].decode(errors="replace").rstrip("\r")
        return {
            "type": "log",
            "level": "stderr",
            "message": text + (" …" if len(line) > MAX_LOG_LINE_BYTES else ""),
        }
