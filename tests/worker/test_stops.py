"""A compress job in this process that is stopped, taken over, or outlived by an earlier attempt of itself."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
from app.jobs import Claim
from tests.worker import jobs, tiny
from tests.worker.jobs import DISTILL, Ear
from worker import child, work_folder
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress

pytestmark = pytest.mark.usefixtures("_one_process", "data_dir")

QUANTIZE = {"method": "quantize", "scheme": "minmax", "tensors": "all"}
PRUNE = {
    "method": "prune",
    "target": {"ratio": 0.8},
    "iterations": 2,
    "training": {"epochs": 1, "batch_size": 16},
}
SOFT_LABELS = {"views": 1, "keep": True}


def measure_here(measuring: Measuring, order: dict[str, Any], enough: Any) -> dict[str, Any] | None:
    return None if enough() else measure({**order, "latency": False})


@pytest.fixture
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a fresh one takes seconds to load torch."""
    monkeypatch.setattr(Measuring, "_run", measure_here)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("photos")
    return jobs.dataset(folder / "data", tiny.write_photos(folder / "photos.zip", train=8, val=6, test=4))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    content = tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt").read_bytes()
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    return jobs.inspected_teacher(tmp_path_factory.mktemp("t") / "inspection", content, **spec)


class Watching(Ear):
    """Does something when it hears a message that fits."""

    def __init__(self, fits: Callable[[dict[str, Any]], bool], then: Callable[[], Any]) -> None:
        super().__init__()
        self._fits = fits
        self._then = then

    def send(self, message: dict[str, Any]) -> None:
        super().send(message)
        if self._fits(message):
            self._then()


def die() -> None:
    raise KeyboardInterrupt


def is_phase(start: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message["type"] == "phase" and message["phase"].startswith(start)


def is_epoch(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message.get("name") == "train_loss" and message["epoch"] == number


def content(work_dir: Path, artifact: dict[str, Any]) -> bytes:
    return (work_dir / artifact["file"]).read_bytes()


# ---- a cancel keeps the best network there is


@pytest.mark.parametrize(
    ("phase", "kept"),
    [
        ("measuring the teacher", []),
        ("measuring step 1", [("best_so_far", 1)]),
        ("measuring step 2", [("stage", 1), ("best_so_far", 2)]),
        ("exporting", [("stage", 1), ("best_so_far", 2)]),
    ],
)
def test_a_cancel_between_trainings_keeps_what_is_done(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, phase: str, kept: list[Any]
) -> None:
    """A network that waits to be measured is there already; so is one that waits to be exported."""
    stops = Stops()
    order = jobs.order(tmp_path / "job", [teacher], photos, [DISTILL, QUANTIZE], exports=["course_8bit"])
    last = compress(order, Watching(is_phase(phase), lambda: stops.ask("cancel")), stops)
    assert (last["type"], last["stop"]) == ("stopped", "cancel")
    assert [(artifact["kind"], artifact["step"]) for artifact in last["artifacts"]] == kept
    for artifact in last["artifacts"]:
        assert models.load(tmp_path / "job" / artifact["file"]).num_classes == 2


def test_a_cancel_of_an_attempt_that_just_began_keeps_what_the_one_before_had(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """The best network is in the checkpoint, and the stop is there before it is read: so it is with a job whose time was
    over while it waited."""
    steps = [{**DISTILL, "epochs": 5}]
    order = jobs.order(tmp_path / "job", [teacher], photos, steps)
    with pytest.raises(KeyboardInterrupt):
        compress(order, Watching(is_epoch(3), die), Stops())
    stops = Stops()
    stops.ask("cancel")
    ear = Ear()
    last = compress(order, ear, stops)
    assert [artifact["kind"] for artifact in last["artifacts"]] == ["best_so_far"]
    assert not any(message.get("name") == "train_loss" for message in ear.heard), "nothing more was trained"
    assert last["artifacts"][0]["metrics"]["splits"]["val"]["num_images"] == 12


def test_a_cancel_before_anything_began_begins_nothing(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    stops = Stops()
    order = jobs.order(tmp_path / "job", [teacher], photos, [DISTILL])
    ear = Watching(is_phase("measuring the teacher"), lambda: stops.ask("cancel"))
    assert compress(order, ear, stops)["artifacts"] == []
    assert [message["phase"] for message in ear.of("phase")] == [
        "opening teachers and data",
        "measuring the teacher",
    ]


# ---- a process that is lost below the trainer


def test_a_measuring_process_that_is_killed_takes_the_trainer_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is lost and tried again; it is no fault in the service, which would end the job."""
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(killed))
    measuring = Measuring(
        paths={}, class_names=[], splits=[], unlabeled=False, num_threads=1, device="cpu", stops=Stops()
    )
    monkeypatch.setitem(child.DO, "compress", ("tests.worker.test_stops", "measured_by_a_process"))
    order = {"do": "compress", "measuring": measuring}
    with pytest.raises(ChildProcessError, match="SIGKILL"):
        child._obey(order, Ear(), Stops())


def measured_by_a_process(order: dict[str, Any], line: Any, stops: Any) -> dict[str, Any]:
    return dict(order["measuring"].measure(Path("stage.pt"), outputs=[0]))


# ---- an attempt that outlives its lease


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def attempt(number: int, teacher: dict[str, Any], photos: dict[str, Any]) -> dict[str, Any]:
    """The order of the job's n-th attempt."""
    folder = work_folder.prepare(Claim("job_1", number, "compress", {}, "host:1"))
    steps = [{**DISTILL, "epochs": 2, "soft_labels": SOFT_LABELS}, PRUNE, QUANTIZE]
    return jobs.order(folder, [teacher], photos, steps, exports=["course_8bit"])


def pruned_once(message: dict[str, Any]) -> bool:
    return message["type"] == "progress" and message["unit"] == "iteration" and message["done"] == 1


def test_a_trainer_that_outlives_its_lease_and_the_next_attempt_do_not_touch_each_others_files(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen in the second of three steps; the next attempt takes over, and then both go on to their ends, in turns.
    Every kind of file that steps write is written here. The result has the bytes of an undisturbed run."""
    monkeypatch.setattr(work_folder.shutil, "rmtree", lambda *_, **__: None)  # as if none could be deleted
    zombie = attempt(1, teacher, photos)
    with pytest.raises(KeyboardInterrupt):
        compress(zombie, Watching(pruned_once, die), Stops())
    old = Path(zombie["work_dir"])
    frozen = digests(old)
    order = attempt(2, teacher, photos)
    new = Path(order["work_dir"])
    taken = digests(new)
    assert {name.rsplit(".", 1)[-1] for name in taken} >= {"pt", "json", "logits", "labels"}

    last = compress(order, Watching(is_phase("exporting"), lambda: None), Stops())
    assert digests(old) == frozen, "the next attempt wrote in place"
    whole = digests(new)
    undisturbed = compress(zombie, Ear(), Stops())
    assert digests(new) == whole, "the zombie wrote in place"
    names = [artifact["name"] for artifact in last["artifacts"]]
    assert names == [
        "final.course-8bit.pkl",
        "step-1-soft-labels.pt",
        "step-1-distill.pt",
        "step-2-prune.pt",
        "final.pt",
    ]
    for one, other in zip(last["artifacts"], undisturbed["artifacts"], strict=True):
        assert content(new, one) == content(old, other), one["name"]
