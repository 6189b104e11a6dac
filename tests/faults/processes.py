"""Processes that are killed, frozen and started again."""

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.starting.parent import end_with_parent


@dataclass
class Part:
    """One process of the service, as whoever runs it would keep it: `start` it, and again when it died."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    popen: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        assert self.popen is not None, f"{self.name} was never started"
        return self.popen.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Nothing is left running when a campaign is itself killed.
                preexec_fn=lambda: end_with_parent(signal.SIGKILL),
            )

    def tend(self) -> None:
        """Start it if it does not run."""
        if self.popen is None or self.popen.poll() is not None:
            self.start()

    def kill(self) -> None:
        kill(self.pid)
        assert self.popen is not None
        self.popen.wait()

    def stop(self, seconds: float = 30.0) -> None:
        """SIGTERM and, where that does not help, SIGKILL."""
        if self.popen is None or self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process."""
    return _send(pid, signal.SIGKILL)


def name(pid: int) -> str:
    """As `ps` shows it."""
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return "gone"


def forks_trainers(pid: int) -> bool:
    """Whether it is a warm parent. What that forked has the same command line, but another name."""
    try:
        process = psutil.Process(pid)
        return "worker.warm" in process.cmdline() and process.name().startswith("python")
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Its children and theirs; those that are gone in this moment are left out."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def freeze(pid: int) -> bool:
    return _send(pid, signal.SIGSTOP)


def thaw(pid: int) -> bool:
    return _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        psutil.Process(pid).send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True
