"""Every file of a trainer or an inspection, on a disk that fails at each of its calls: whole or not there, and the next
try works."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.settings import settings
from app.spec.resources import DatasetSpec
from tests.faulty_disk import every_fault, fill, small_disk
from tests.worker.datasets.pictures import make_zip, two_classes
from worker import child, room
from worker.datasets.build import build_dataset
from worker.datasets.image_data import ImageData
from worker.distillation.label_cache import LabelCache
from worker.gate import admit
from worker.messages import Line, Stops
from worker.stages import Stages, write_whole
from worker.training.checkpoint import load_checkpoint, save_checkpoint
from worker.training.snapshots import load_snapshot, save_snapshot

PREPROCESSING = {"resize": 10, "crop": 8, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing(folder: Path) -> None:
    return None


def state(number: int) -> dict[str, Any]:
    return {"fingerprint": "same", "number": number, "weights": torch.full((1000,), float(number))}


def test_a_checkpoint_is_the_new_one_or_the_one_before(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        save_checkpoint(folder, state(1))
        save_checkpoint(folder, state(2))

    def check(folder: Path, _: None) -> None:
        found = load_checkpoint(folder, fingerprint="same")
        assert found is not None
        assert found["number"] in (2, 3)
        assert torch.equal(found["weights"], state(found["number"])["weights"])
        assert set(files_of(folder)) <= {"checkpoint.pt", "checkpoint.previous.pt"}

    assert every_fault(tmp_path, prepare, lambda folder, _: save_checkpoint(folder, state(3)), check) >= 10


def test_a_snapshot_is_whole_or_not_there(tmp_path: Path) -> None:
    network = nn.Linear(50, 50)

    def check(folder: Path, _: None) -> None:
        if files_of(folder):
            assert set(files_of(folder)) == {"snapshots/1.pt"}
            found = load_snapshot(folder / "snapshots", 1)
            assert torch.equal(found["weight"], network.weight)

    act = lambda folder, _: save_snapshot(folder / "snapshots", 1, network)  # noqa: E731  # as short as that
    assert every_fault(tmp_path, nothing, act, check) >= 8


def test_stages_exports_and_attachments_are_whole_or_what_they_were(tmp_path: Path) -> None:
    """All are written by `write_whole`; a stage counts once its note is there."""

    def prepare(folder: Path) -> Stages:
        return Stages(folder / "stages")

    def act(folder: Path, stages: Stages) -> None:
        write_whole(stages.path(1), b"network" * 1000)
        stages.keep(1, {"accuracy": 0.5})

    def check(folder: Path, stages: Stages) -> None:
        assert set(files_of(folder / "stages")) <= {"1.pt", "1.json"}
        assert files_of(folder / "stages").get("1.pt") in (None, b"network" * 1000)
        assert stages.finished(1) in (None, {"accuracy": 0.5})

    assert every_fault(tmp_path, prepare, act, check) >= 16


def test_an_inspections_tensors_are_whole_or_not_there(tmp_path: Path) -> None:
    upload = tmp_path / "upload.pt"
    torch.save(nn.Linear(300, 50).state_dict(), upload)
    admit(upload, tmp_path / "expected")
    expected = (tmp_path / "expected").read_bytes()

    def check(folder: Path, _: None) -> None:
        assert files_of(folder) in ({}, {"tensors": expected})

    assert every_fault(tmp_path, nothing, lambda folder, _: admit(upload, folder / "tensors"), check) >= 8


def test_pack_and_index_of_a_data_set_are_whole_or_not_there(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", two_classes())
    spec = DatasetSpec(file="a.zip")
    build_dataset(spec, archive, tmp_path / "expected")
    expected = files_of(tmp_path / "expected")

    def check(folder: Path, _: None) -> None:
        assert files_of(folder).items() <= expected.items()

    assert every_fault(tmp_path, nothing, lambda folder, _: build_dataset(spec, archive, folder), check) >= 20


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build_dataset(DatasetSpec(file="a.zip"), make_zip(tmp_path / "a.zip", two_classes()), tmp_path / "out")
    return tmp_path / "out"


def test_decoded_images_are_whole_or_not_there(built: Path, tmp_path: Path) -> None:
    def data(cache: Path) -> ImageData:
        return ImageData(built / "index.json", built / "pack", cache, num_threads=1)

    expected = data(tmp_path / "expected").images("train", PREPROCESSING)

    def check(folder: Path, _: None) -> None:
        found = list(files_of(folder).values())
        assert found in ([], [expected.numpy().tobytes()])

    act = lambda folder, _: data(folder).images("train", PREPROCESSING)  # noqa: E731  # as short as that
    assert every_fault(tmp_path / "faults", nothing, act, check) >= 6


def test_a_cache_of_labels_is_lengthened_or_not_and_goes_on(tmp_path: Path) -> None:
    def act(folder: Path, _: None) -> None:
        cache = LabelCache(folder / "labels", num_views=2, num_images=3, num_classes=4, dtype="float32")
        cache.write(1, torch.tensor([2]), torch.ones(1, 4))
        values, is_there = cache.read(1, torch.tensor([0, 2]))
        assert is_there.tolist() == [False, True]
        assert values[1].tolist() == [1.0] * 4

    assert every_fault(tmp_path, nothing, act, lambda folder, _: None) >= 2


# ---- a real disk, small and full


_DECODE = """
import sys
from pathlib import Path
from worker.datasets.image_data import ImageData
built, cache, filler = map(Path, sys.argv[1:])
preprocessing = {"resize": 300, "crop": 300, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
data = ImageData(built / "index.json", built / "pack", cache, num_threads=1)
try:
    data.images("train", preprocessing)
except OSError as error:
    assert "No space left" in str(error), error
    assert list(cache.iterdir()) == []
    filler.unlink()
    data.images("train", preprocessing | {"resize": 20, "crop": 20})
    sys.exit(7)
"""


def test_images_that_find_no_room_are_an_error_and_not_the_end_of_the_process(
    built: Path, tmp_path: Path
) -> None:
    """Written through a mapping, they would end it by SIGBUS, which looks like memory running out."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        filler = fill(disk, leave_bytes=64 << 10)
        command = [sys.executable, "-c", _DECODE, str(built), str(disk / "cache"), str(filler)]
        assert subprocess.run(command, check=False).returncode == 7
        assert len(files_of(disk / "cache")) == 1


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before_and_takes_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        save_checkpoint(disk / "job", state(1))
        filler = fill(disk, leave_bytes=4096)
        before = files_of(disk / "job")
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(disk / "job", state(2) | {"more": torch.zeros(50_000)})
        assert files_of(disk / "job") == before
        filler.unlink()
        save_checkpoint(disk / "job", state(2))
        found = load_checkpoint(disk / "job", fingerprint="same")
        assert found is not None
        assert found["number"] == 2


# ---- what is said


def obey(monkeypatch: pytest.MonkeyPatch, error: Exception) -> dict[str, Any]:
    """The last word of a child whose work ends with this error."""

    def fails(*_: object) -> dict[str, Any]:
        raise error

    monkeypatch.setitem(child.DO, "compress", (__name__, "fails"))
    monkeypatch.setitem(globals(), "fails", fails)
    return child._obey({"do": "compress"}, Line(os.open(os.devnull, os.O_WRONLY)), Stops())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_trainer_says_that_the_disk_is_full(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    last = obey(monkeypatch, OSError(number, os.strerror(number)))
    assert (last["type"], last["code"], last["status"], last["retryable"]) == (
        "error",
        "DISK_FULL",
        507,
        True,
    )


def test_a_disk_that_fails_otherwise_loses_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another attempt follows, as after any crash."""
    with pytest.raises(OSError, match="Input/output"):
        obey(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))


def test_a_worker_without_room_says_why_it_takes_no_job(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    """The folder need not be there yet."""
    monkeypatch.setattr(settings(), "min_free_bytes", 0)
    assert room.trouble() is None
    monkeypatch.setattr(settings(), "min_free_bytes", 1 << 60)
    said = room.trouble()
    assert said is not None
    assert str(1 << 60) in said


def test_what_is_used_is_locked_and_new_again(built: Path, tmp_path: Path) -> None:
    """So that the collector leaves it alone; another process is asked, for a lock does not keep its own out."""
    data = ImageData(built / "index.json", built / "pack", tmp_path / "cache")
    data.images("train", PREPROCESSING)
    (path,) = (tmp_path / "cache").iterdir()
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    ask = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    assert subprocess.run(ask, check=False, capture_output=True).returncode == 1
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()  # by an operator's hand: it is decoded again
    data.images("train", PREPROCESSING)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
