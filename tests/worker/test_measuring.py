"""Measuring in a process of its own, which may die."""

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from worker.measuring import Measuring
from worker.messages import Stops


def kill_the_measuring_process() -> None:
    """As soon as this process has one; other tests may have left it other children."""
    while True:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, of another test
                if "worker.measure" in child.cmdline():
                    child.kill()
                    return
        time.sleep(0.01)


def test_a_killed_measuring_process_is_no_fault_of_the_job(tmp_path: Path) -> None:
    """An OSError: `worker.child` lets it through, and the job is tried again. A RuntimeError would fail it for good."""
    endless = tmp_path / "artifact.pt"
    os.mkfifo(endless)
    measuring = Measuring(
        paths={}, class_names=["a"], splits=[], unlabeled=False, num_threads=1, device="cpu", stops=Stops()
    )
    killer = threading.Thread(target=kill_the_measuring_process, daemon=True)
    killer.start()
    with pytest.raises(ChildProcessError, match="SIGKILL"):
        measuring.measure(endless, outputs=[0])
    killer.join()


def test_what_the_disk_does_to_it_is_met_as_if_the_trainer_had_done_it(tmp_path: Path) -> None:
    """Not as a bug: a disk that is full, or a file that is gone, ends an attempt and not the job."""
    measuring = Measuring(
        paths={}, class_names=["a"], splits=[], unlabeled=False, num_threads=1, device="cpu", stops=Stops()
    )
    with pytest.raises(FileNotFoundError, match="met by the measuring process"):
        measuring.measure(tmp_path / "gone.pt", outputs=[0])
