"""What a compress job works with: teachers, data, the order of classes, and how things are measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import models
from app.errors import Problem
from app.planning.classes import Alignment, TeacherClasses, align
from app.spec.base import Split
from app.spec.job import JobSpec
from models import Network
from worker.datasets.image_data import ImageData
from worker.distillation.soft_labels import SoftLabels, read_soft_labels
from worker.measure import open_data
from worker.measuring import Measuring
from worker.messages import Line, Stops
from worker.run import Stop, Stopped, TableTeacher, Teacher
from worker.shared_files import SharedFiles

LABELLED: tuple[Split, ...] = ("train", "val", "test")
UNLABELED: Split = "unlabeled"


@dataclass
class Setting:
    """The same for every seed of a job. `splits`: the labelled ones that the data has."""

    order: dict[str, Any]
    spec: JobSpec
    device: torch.device
    work_dir: Path
    data: ImageData
    alignment: Alignment
    teachers: list[Teacher | TableTeacher]
    measuring: Measuring
    splits: list[Split]
    line: Line
    stops: Stops
    shared: SharedFiles | None = None
    """What the tenant's jobs compute once for all."""
    warnings: list[str] = field(default_factory=list)

    @property
    def all_splits(self) -> list[Split]:
        return [split for split in (*LABELLED, UNLABELED) if self.data.has(split)]

    @property
    def digests(self) -> dict[str, str]:
        return {split: self.data.digest(split) for split in self.all_splits}

    @property
    def outputs(self) -> list[int]:
        """Of every network the job makes: output k means class k."""
        return list(range(len(self.alignment.class_names)))

    def teacher_logits(self, index: int) -> Path:
        """Where stage 0 left what this teacher answered: {split: float32 [N, C]}, NaN where it said nothing."""
        return self.work_dir / "stages" / f"0-{index}.logits"

    def phase(self, phase: str) -> None:
        self.line.send({"type": "phase", "phase": phase[:80]})

    def log(self, message: str) -> None:
        self.line.send({"type": "log", "level": "info", "message": message})

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self.line.send({"type": "log", "level": "warning", "message": message})

    def stop_requested(self) -> Stop | None:
        stop = self.stops.requested()
        return stop if stop in ("cancel", "preempt") else None  # type: ignore[return-value]

    def check_stop(self) -> None:
        if (stop := self.stop_requested()) is not None:
            raise Stopped(stop)


def open_setting(order: dict[str, Any], line: Line, stops: Stops) -> Setting:
    """Load what the order names. Raises Problem: CLASSES_DIFFER, DEVICE_UNAVAILABLE."""
    spec = JobSpec.model_validate(order["spec"])
    device = choose_device(order["device"])
    paths = order["data"] | {"cache_dir": order["cache_dir"]}
    loaded = [_load(teacher) for teacher in order["teachers"]]
    alignment = _align(open_data(paths).class_names, order, loaded)
    data = open_data(paths, class_names=alignment.class_names, num_threads=order["num_threads"])
    splits = [split for split in LABELLED if data.has(split)]
    teachers = [
        _teacher(teacher["id"], what, outputs, device)
        for teacher, what, outputs in zip(order["teachers"], loaded, alignment.orders, strict=True)
    ]
    measuring = Measuring(
        paths=paths,
        class_names=alignment.class_names,
        splits=splits,
        unlabeled=data.has(UNLABELED),
        num_threads=order["num_threads"],
        device=str(device),
        stops=stops,
    )
    work_dir = Path(order["work_dir"])
    return Setting(
        order,
        spec,
        device,
        work_dir,
        data,
        alignment,
        teachers,
        measuring,
        splits,
        line=line,
        stops=stops,
        shared=SharedFiles(Path(order["shared_dir"])) if order.get("shared_dir") else None,
    )


def choose_device(asked: str) -> torch.device:
    """ "auto" is the GPU where there is one.

    Raises Problem 422 when a GPU is asked for and this worker has none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise Problem(
            422,
            "DEVICE_UNAVAILABLE",
            "The job asks for device 'cuda' and this worker has none: use 'auto' or 'cpu'.",
        )
    return torch.device(asked)


def _load(teacher: dict[str, Any]) -> Network | SoftLabels:
    if teacher.get("kind", "network") == "soft_labels":
        return read_soft_labels(Path(teacher["path"]))
    return models.load(teacher["path"])


def _align(data_names: list[str], order: dict[str, Any], loaded: list[Network | SoftLabels]) -> Alignment:
    known = []
    for teacher, what in zip(order["teachers"], loaded, strict=True):
        num_classes = len(what.class_names) if isinstance(what, SoftLabels) else what.num_classes
        assert num_classes is not None
        known.append(TeacherClasses(teacher["id"], num_classes, what.class_names))
    return align(data_names, known)


def _teacher(
    ident: str, what: Network | SoftLabels, outputs: list[int], device: torch.device
) -> Teacher | TableTeacher:
    if isinstance(what, SoftLabels):
        return TableTeacher(
            ident, what.values_NC, what.kind, what.rows, torch.tensor(outputs), what.temperature
        )
    assert what.preprocessing is not None  # its inspection saw to that
    what.to(device).eval().requires_grad_(False)
    return Teacher(ident, what, what.preprocessing, torch.tensor(outputs, device=device))
