"""What every preset has: a question, the options that it can be asked with, and the sweep that answers it."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from app.spec.base import Seed, Spec
from app.spec.networks import ArchitectureName, Student
from app.spec.steps.prune import Prune

Step = dict[str, Any]
Axis = dict[str, Any]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
T = TypeVar("T")


def _each_once(given: list[T]) -> list[T]:
    twice = next((value for index, value in enumerate(given) if value in given[:index]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named twice, and each is one point of the sweep: name it once")
    return given


def _known_criterion(name: str) -> str:
    if name not in _CRITERIA:
        raise ValueError(f"there is no criterion {name!r}: take {', '.join(_CRITERIA)}")
    return name


_CRITERIA = get_args(Prune.model_fields["criterion"].annotation)
Values = Annotated[list[T], Field(min_length=1, max_length=50), AfterValidator(_each_once)]
"""Of an axis."""
ByteCounts = Values[Annotated[int, Field(ge=1)]]
Criterion = Annotated[str, Field(max_length=40), AfterValidator(_known_criterion)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Preset(Spec, ABC):
    """An experiment of the report as one request. Its fields are the options; `SHORT` has the values of those that are not
    given under `short: true`.

    A subclass in this folder is part of the API the moment it exists. The first line of its docstring is its title.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    NAME: ClassVar[str]
    ROWS: ClassVar[tuple[str, ...]]
    """The rows of the report that it repeats (docs/methods.md)."""
    ASKS: ClassVar[str]
    """The question, in a sentence."""
    FOUND: ClassVar[str]
    """What the report says to it, with its numbers."""
    SHORT: ClassVar[dict[str, Any]]
    NUM_TEACHERS: ClassVar[tuple[int, int]] = (1, 16)
    """The least and the most."""
    BASELINE: ClassVar[dict[str, Any]] = {}
    """The point that the others are compared with; empty: the first."""
    ITERATIONS: ClassVar[bool] = False
    """Whether the curve is within each job, over the iterations of a prune step."""

    short: bool = False
    """Minutes on two cores instead of the report's own lengths: every option that is not given gets its short value."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """Runs of each point: with `seed`, `seed` + 1, …"""
    seed: Seed = 0
    student: ArchitectureName | Student = "report/final"
    """The network that is trained: a name of GET /v1/architectures, or all that a step's `student` may say."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Pixels a side that the student sees; null: its own."""

    @model_validator(mode="before")
    @classmethod
    def _short_fills_in(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("short") is True:
            return {**cls.SHORT, **fields}
        return fields

    @classmethod
    def splits(cls) -> list[str]:
        """The splits that the data set must have, beside val or test."""
        return ["train"]

    @abstractmethod
    def steps(self) -> list[Step]:
        """Of the job that the axes change."""

    def job(self) -> dict[str, Any]:
        """Fields of the job beside its teachers, data and seed."""
        return {"steps": self.steps()}

    @abstractmethod
    def axes(self, teachers: list[str]) -> list[Axis]:
        """What differs between the points."""

    def baseline(self) -> dict[str, Any]:
        return self.BASELINE

    def trained(self) -> Step:
        """The student as a step has it."""
        if isinstance(self.student, str):
            student: Step = {"architecture": self.student}
        else:
            student = self.student.model_dump(mode="json", exclude_defaults=True)
        return student | ({} if self.image_size is None else {"image_size": self.image_size})

    def sweep(self, teachers: list[str], dataset: str) -> dict[str, Any]:
        """The sweep as a caller would write it."""
        used = teachers[:1] if self.NUM_TEACHERS == (2, 2) else teachers
        spec: dict[str, Any] = {
            "name": self.NAME,
            "labels": {"preset": self.NAME},
            "job": {"teachers": used, "dataset": dataset, "seed": self.seed, **self.job()},
            "axes": self.axes(teachers),
            "seeds": self.seeds,
        }
        return spec | ({"baseline": self.baseline()} if self.baseline() else {})


def values(name: str, field: str, given: list[Any]) -> Axis:
    """An axis over the values of one field; 1.0 is called 1."""
    return {"name": name, "field": field, "values": [_whole(value) for value in given]}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def points(name: str, changes: dict[str, dict[str, Any]]) -> Axis:
    """An axis of named points, each with the fields that it sets."""
    return {"name": name, "points": [{"name": point, "set": fields} for point, fields in changes.items()]}


STUDENTNET = "course/studentnet"
KEPT_BY_THE_COURSE = ["cnn.0.*", "cnn.1.*", "cnn.2.*", "cnn.7.3"]
"""What `width_mult` of the course's network leaves alone: its first three blocks and the last pointwise convolution."""


class DistillingPreset(Preset):
    """Students learn from the teachers, live or from kept labels."""

    epochs: Epochs = 200
    """Of distillation."""
    views: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """So many views of each photo are shown to the teachers, once, and what they said is kept for all jobs (`soft_labels`):
    faster, and a little less accurate. Null: they are asked in every epoch."""

    def distilled(self, student: Step, **fields: Any) -> Step:
        """The step, with the kept labels where they were asked for."""
        cache = {} if self.views is None else {"soft_labels": {"views": min(self.views, self.epochs)}}
        return {"method": "distill", "student": student, "epochs": self.epochs, **cache, **fields}


class PruningPreset(Preset):
    """A student is trained once, and pruned in several ways."""

    student: ArchitectureName | Student = STUDENTNET
    """The network that is trained and pruned; the course's exclusions belong to `course/studentnet`."""
    epochs: Epochs = 100
    """Of the training before the first cut, which all points share."""

    def pretraining(self) -> Step:
        return {"method": "train", "student": self.trained(), "epochs": self.epochs}

    def exclude(self) -> list[str]:
        """Layers that keep their channels: the course's own rule for the course's own network."""
        named = self.student if isinstance(self.student, str) else self.student.architecture
        return KEPT_BY_THE_COURSE if named == STUDENTNET else []


Recovering = Literal[
    "none", "finetune", "reinit_once", "reinit_each", "scratch_e", "scratch_b", "weight_rewind", "lr_rewind"
]
