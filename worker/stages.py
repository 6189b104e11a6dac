"""The finished stages of a job in its work folder: `<n>.pt` and, written after it, `<n>.json`.

A trainer that was killed finds them again and goes on behind the last one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from worker.whole_files import appears_whole


class Stages:
    """`folder` belongs to one attempt of one job, which begins with what the one before left. The job's spec never
    changes, so a stage that is there is a stage of this very job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, step: int, suffix: str = ".pt") -> Path:
        return self._folder / f"{step}{suffix}"

    def keep(self, step: int, record: dict[str, Any]) -> None:
        """The stage is measured: it is finished now."""
        digest = hashlib.sha256(self.path(step).read_bytes()).hexdigest()
        write_whole(self.path(step, ".json"), json.dumps({"sha256": digest, "record": record}).encode())

    def finished(self, step: int) -> dict[str, Any] | None:
        """The record of a finished stage whose file is what it was."""
        note, file = self.path(step, ".json"), self.path(step)
        if not note.exists() or not file.exists():
            return None
        content = json.loads(note.read_text())
        if hashlib.sha256(file.read_bytes()).hexdigest() != content["sha256"]:
            return None
        record: dict[str, Any] = content["record"]
        return record


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is there whole or not at all, whenever the process is killed.

    Never in place: the next attempt of the job may share the file that had this name.
    """
    with appears_whole(path) as file:
        file.write(data)
