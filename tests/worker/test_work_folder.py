"""Each attempt has a folder of its own; what another one still writes does not reach it."""

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from app.jobs import Claim
from worker import work_folder
from worker.distillation.label_cache import LabelCache
from worker.stages import Stages, write_whole
from worker.training.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("data_dir")


def attempt(number: int, kind: str = "compress") -> Path:
    return work_folder.prepare(Claim("job_1", number, kind, {}, "host:1"))


def content(folder: Path) -> dict[str, str]:
    """Digest of every file below it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fill(folder: Path, text: bytes) -> None:
    """One file of every kind that a trainer leaves."""
    stages = Stages(folder / "stages")
    write_whole(stages.path(1), text)
    stages.keep(1, {"step": 1})
    write_whole(stages.path(1, ".logits"), text)
    save_checkpoint(folder / "step-2", {"fingerprint": "f", "text": text})
    save_checkpoint(folder / "step-2", {"fingerprint": "f", "text": text})
    (folder / "step-1" / "attachments").mkdir(parents=True, exist_ok=True)
    (folder / "step-1" / "attachments" / "table.csv").write_bytes(text)
    (folder / "step-2" / "half.part").write_bytes(text)
    cache = LabelCache(
        folder / "step-2" / "soft-labels" / "0.labels",
        num_views=1,
        num_images=2,
        num_classes=2,
        dtype="float32",
    )
    cache.write(0, torch.tensor([0, 1]), torch.full((2, 2), float(len(text))))


def test_an_attempt_begins_with_all_that_the_last_one_finished() -> None:
    first = attempt(1)
    assert list(first.iterdir()) == []
    fill(first, b"first")
    before = content(first)
    second = attempt(2)
    assert second.name == "attempt-2"
    assert content(second) == {name: digest for name, digest in before.items() if not name.endswith(".part")}
    assert not first.exists(), "it would cost disk"
    assert attempt(2) == second, "asked again, it is as it was"


def test_what_a_zombie_writes_does_not_reach_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its files open, replaces them, and writes through its mapped cache."""
    monkeypatch.setattr(work_folder.shutil, "rmtree", lambda *_, **__: None)  # as if it could not be deleted
    first = attempt(1)
    fill(first, b"first")
    with (first / "step-2" / "half.part").open("ab") as opened:
        second = attempt(2)
        before = content(second)
        opened.write(b"more")
        fill(first, b"from a zombie")
    assert content(second) == before
    state = load_checkpoint(second / "step-2", fingerprint="f")
    assert state is not None
    assert state["text"] == b"first"


def test_a_zombie_that_writes_while_the_next_attempt_takes_over_leaves_it_whole_files() -> None:
    """Checkpoints come and go under the copy; each that is taken is one that was saved."""
    ended = threading.Event()
    first = attempt(1)
    for _ in range(2):  # from now on there is always one of the two
        save_checkpoint(first / "step-1", {"fingerprint": "f", "n": 0})

    def write() -> None:
        n = 0
        while not ended.is_set():
            n += 1
            try:
                save_checkpoint(first / "step-1", {"fingerprint": "f", "n": n})
            except FileNotFoundError:  # its folder was deleted
                return

    zombie = threading.Thread(target=write)
    zombie.start()
    try:
        newest = 0
        for number in range(2, 12):
            folder = work_folder.of_job("job_1") / f"trial-{number}"
            folder.mkdir()
            work_folder._take_over(first, folder)
            state = load_checkpoint(folder / "step-1", fingerprint="f")
            assert state is not None
            assert state["n"] >= newest - 1  # the one before, while the newest gets its name
            newest = state["n"]
        attempt(2)
    finally:
        ended.set()
        zombie.join(10)


def test_an_attempt_lost_while_it_took_over_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(attempt(1), b"first")

    def lost(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(work_folder.shutil, "copyfile", lost)
        with pytest.raises(OSError, match="No space"):
            attempt(2)
    third = attempt(3)
    assert (third / "stages" / "1.pt").read_bytes() == b"first"
    assert sorted(path.name for path in third.parent.iterdir()) == ["attempt-3"]


def test_without_hard_links_files_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    fill(attempt(1), b"first")
    assert (attempt(2) / "stages" / "1.pt").read_bytes() == b"first"


def test_an_inspection_begins_with_an_empty_folder() -> None:
    fill(attempt(1, "inspect"), b"first")
    assert list(attempt(2, "inspect").iterdir()) == []
