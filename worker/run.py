"""What a step is given: device, seed, teachers, data, and a way to report. It holds no database and no storage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from app.errors import Problem
from app.spec.base import Split
from models import Network
from worker.shared_files import SharedFiles

Stop = Literal["cancel", "preempt"]


class Stopped(Exception):
    """The run was asked to stop. `model`: the best network so far, when the step has one worth keeping."""

    def __init__(self, stop: Stop, model: Network | None = None) -> None:
        super().__init__(stop)
        self.stop = stop
        self.model = model


class Data(Protocol):
    """A data set as a step sees it. Labels are already in the order of the networks' outputs."""

    class_names: list[str]

    def has(self, split: Split) -> bool: ...

    def num_images(self, split: Split) -> int: ...

    def digest(self, split: Split) -> str:
        """sha256 over the split's paths, labels and image digests."""
        ...

    def labels(self, split: Split) -> torch.Tensor:
        """int64 [N]; -1 where an image has none."""
        ...

    def paths(self, split: Split) -> list[str]:
        """Where each image lies in the data set, in the order of `labels` and `images`."""
        ...

    def images(self, split: Split, preprocessing: dict[str, Any]) -> torch.Tensor:
        """uint8 [N, 3, H, W], resized and cropped as `preprocessing` says, backed by a file; decoded once, then cached."""
        ...


@dataclass
class Teacher:
    """A frozen network in eval mode on the run's device. `order`: for each class of the data, the teacher's output index."""

    id: str
    network: Network
    preprocessing: dict[str, Any]
    order: torch.Tensor  # int64 [C]

    def logits(
        self, images_NCHW: torch.Tensor, observe: Callable[[str, Any], None] | None = None
    ) -> torch.Tensor:
        """Logits [N, C] for images that `preprocessing` already normalised, columns in the data's class order.

        `observe(node name, value)` is called with every value on the way.
        """
        if observe is None:
            return self.network(images_NCHW)[:, self.order]
        return self.network.run(images_NCHW, observe)[:, self.order]


@dataclass
class TableTeacher:
    """A teacher that is only a table: what it said about images, found by their path (`worker.distillation.soft_labels`).

    `values_RC`: float32, logits or probabilities (softmax(logits / `temperature`)) with its own order of classes; `rows`:
    path -> row; `order`: for each class of the data, the table's column.
    """

    id: str
    values_RC: torch.Tensor
    kind: Literal["logits", "probabilities"]
    rows: Mapping[str, int]
    order: torch.Tensor  # int64 [C]
    temperature: float = 1.0


@dataclass
class Cost:
    """What training took, added up over a step."""

    epochs: float = 0.0
    seconds: float = 0.0
    macs: int = 0
    """Multiply-adds: forward of the teachers, forward and backward (twice a forward) of the student."""

    def add(self, *, epochs: float, seconds: float, macs: int) -> None:
        self.epochs += epochs
        self.seconds += seconds
        self.macs += macs


class Reporter(Protocol):
    """Where a run's messages go: the supervisor's pipe, or a list in a test."""

    def send(self, message: dict[str, Any]) -> None: ...


@dataclass
class Run:
    device: torch.device
    seed: int
    teachers: Sequence[Teacher | TableTeacher]
    data: Data
    step: int
    """1-based; 0 is the teacher."""
    work_dir: Path
    """This step's own folder; survives attempts, so a checkpoint written here is found again."""
    reporter: Reporter
    checkpoint_seconds: float = 10.0
    stop_requested: Callable[[], Stop | None] = field(default=lambda: None)
    snapshot_epochs: frozenset[int] = frozenset()
    """Epochs whose weights a later step goes back to, 0 being before training: `worker.training.loop.train` keeps them in
    `work_dir`."""
    rewind_dir: Path | None = None
    """Where the last training step before this one kept its snapshots (`worker.training.snapshots`)."""
    cost: Cost = field(default_factory=Cost)
    """The loop adds to it; a step adds what an earlier attempt had trained."""
    details: dict[str, Any] = field(default_factory=dict)
    """Tables of this step, ready for JSON: they become `details` of the stage's record. A step that finds its own results
    of an earlier attempt puts them here again."""
    attachments: dict[str, str] = field(default_factory=dict)
    """name -> kind of files that are offered for download beside the network; written to `attachment(name, kind)`."""
    packed_with: Mapping[str, Any] = field(default_factory=dict)
    """What the job's last file holds beside the network, as `models.pack` takes it (`steps`, `metrics`, `digests`), with
    stand-ins as large as what is not known yet; for a step that works toward a number of bytes."""
    shared: SharedFiles | None = None
    """What other jobs of the tenant computed and may be read instead; null: everything is computed here."""
    first_epoch: int = 0
    """Added to every noted epoch: a step that trains several times counts on."""
    window: tuple[float, float] = (0.0, 1.0)
    """The part of the step's progress that this run covers."""

    def network_teacher(self, index: int) -> Teacher:
        """The teacher at this position, where a network is needed. Raises Problem 422 TEACHER_IS_TABLE for one that is
        only a table of soft labels."""
        teacher = self.teachers[index]
        if isinstance(teacher, TableTeacher):
            raise Problem(
                422,
                "TEACHER_IS_TABLE",
                f"Teacher {teacher.id} is a table of soft labels: it has no layers to use. "
                "Name a teacher that was uploaded as a network.",
            )
        return teacher

    def teachers_preprocessing(self) -> dict[str, Any]:
        """What a student sees when nothing is said: the preprocessing of the first teacher that is a network. Raises
        Problem 422 PREPROCESSING_MISSING when all are tables."""
        for teacher in self.teachers:
            if isinstance(teacher, Teacher):
                return teacher.preprocessing
        raise Problem(
            422,
            "PREPROCESSING_MISSING",
            "All teachers are tables of soft labels, so nothing says how the student's images are made: "
            "give student.preprocessing.",
        )

    def nested(self, name: str, *, first_epoch: int = 0, window: tuple[float, float] = (0.0, 1.0)) -> "Run":
        """The same run for one of several trainings of a step: checkpoints in a folder of their own, epochs counted on
        from `first_epoch`, progress within `window`; it snapshots nothing."""
        return replace(
            self,
            work_dir=self.work_dir / name,
            first_epoch=self.first_epoch + first_epoch,
            window=window,
            snapshot_epochs=frozenset(),
        )

    def attachment(self, name: str, kind: str) -> Path:
        """Where to write a file that is offered for download."""
        self.attachments[name] = kind
        folder = self.work_dir / "attachments"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def note(self, name: str, value: float, unit: str = "1", *, split: str = "", epoch: int = -1) -> None:
        """Record one number of this step."""
        self.reporter.send(
            {
                "type": "metric",
                "step": self.step,
                "epoch": epoch if epoch < 0 else epoch + self.first_epoch,
                "split": split,
                "name": name,
                "value": value,
                "unit": unit,
            }
        )

    def progress(self, done: float, total: float, unit: str, eta_seconds: float | None = None) -> None:
        """How far this step is; `done` of `total` `unit`s ("epoch")."""
        low, high = self.window
        if self.window != (0.0, 1.0) and total:
            share = done / total
            done = (low + (high - low) * share) * total
            if eta_seconds is not None and share < 1:
                eta_seconds *= (1 - done / total) / ((high - low) * (1 - share))
        self.reporter.send(
            {
                "type": "progress",
                "step": self.step,
                "done": done,
                "total": total,
                "unit": unit,
                "eta_seconds": eta_seconds,
            }
        )

    def log(self, message: str, level: str = "info") -> None:
        self.reporter.send({"type": "log", "level": level, "message": message})
