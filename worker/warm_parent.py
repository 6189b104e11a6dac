"""Keeps a warm parent (`worker.warm`) beside this process: starts it, starts it again when it dies, ends it."""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from worker.starting import WARM_SOCKET
from worker.warm import EXIT_UNFIT

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LAST_PAUSE_SECONDS = 60.0
# One that lived this long was well; its death is a new one, not one of a series.
_WELL_AFTER_SECONDS = 60.0
_STOP_SECONDS = 5.0


def is_possible() -> bool:
    """Whether this system has what it takes: Linux, and a kernel (or sandbox) that knows pidfds."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class WarmParent:
    """While it runs, this process's environment says where (`WARM_SOCKET`), so `fork_or_spawn` finds it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """`env`: of the warm parent; OpenMP reads its settings there, before a child can have others."""
        self._env = dict(env)
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.ready = threading.Event()
        # It lives as long as this process: a parent's death is, to the kernel, that of the thread which started the child.
        self._thread = threading.Thread(target=self._keep, name="warm-parent", daemon=True)

    def start(self) -> None:
        """Returns at once; children are spawned until it is ready, after some seconds."""
        if is_possible():
            self._thread.start()

    def stop(self) -> None:
        """End it, and every child that it has."""
        self._stopped.set()
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()  # frozen; its children die with it
            self._thread.join()

    @property
    def pid(self) -> int | None:
        """Of the one that runs now."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _keep(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            started_at = time.monotonic()
            code = self._run_once()
            if self._stopped.is_set():
                return
            if code == EXIT_UNFIT:
                log.warning("trainers are spawned from now on: the warm parent cannot be forked here")
                return
            if time.monotonic() - started_at > _WELL_AFTER_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            log.warning(
                "the warm parent ended with code %d; trainers are spawned until another is ready", code
            )
            self._stopped.wait(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    def _run_once(self) -> int:
        with self._lock:
            if self._stopped.is_set():
                return 0
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.warm"],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The worker's terminal interrupts the worker alone, which then ends this in its turn.
                start_new_session=True,
            )
            self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            path = process.stdout.readline().decode().rstrip("\n")
            if path:
                os.environ[WARM_SOCKET] = path
                self.ready.set()
            code = process.wait()
        self.ready.clear()
        os.environ[WARM_SOCKET] = ""
        if path:
            shutil.rmtree(Path(path).parent, ignore_errors=True)  # it is there only if it was killed
        return code
