"""A sweep: one job many times, each time with other values in some of its fields."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from app.canonical import canonical_json
from app.spec.base import Name, Spec
from app.spec.job import Label

METRICS = (
    *("train_accuracy", "val_accuracy", "test_accuracy", "val_accuracy_best5", "val_loss", "test_loss"),
    *("val_agreement", "test_agreement", "size_bytes", "parameters", "macs", "latency_ms"),
    *("compression_ratio", "speed_up", "epochs", "train_macs", "seconds"),
)
"""What a summary may be about: columns of the table of answers."""

Pointer = Annotated[str, Field(pattern=r"^(/([^~/]|~[01])*)+$", max_length=500)]
"""A JSON pointer (RFC 6901) into the job."""
_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$"
AxisName = Annotated[str, Field(pattern=_NAME)]
Values = Annotated[list[Any], Field(min_length=1, max_length=10_000)]
Labels = Annotated[dict[Label, Annotated[str, Field(max_length=200)]], Field(max_length=32)]


def parts(pointer: str) -> list[str]:
    """The names that a pointer goes through."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def escaped(part: str) -> str:
    """A name as a part of a pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def _last_name(pointer: str) -> str:
    name = next((part for part in reversed(parts(pointer)) if not part.isdigit() and part != "-"), "")
    if not re.match(_NAME, name):
        raise ValueError(
            f"the axis of {pointer} would be called {name!r}: give it a name of letters, digits and _ . - that begins with "
            "a letter"
        )
    return name


@dataclass(frozen=True)
class Change:
    """A field of the job and what it becomes. `source`: a pointer into the axis, to what asks for it."""

    pointer: str
    value: Any
    source: str


@dataclass(frozen=True)
class Choice:
    """One position of an axis. `params`: what it is called in tables, by the name of its column."""

    params: dict[str, Any]
    changes: tuple[Change, ...]


class ValuesAxis(Spec):
    """A field, or several that change together, and its values one after the other.

    `name`, the column in tables, is by default the last part of the (first) pointer that is no number.
    """

    name: AxisName | None = None
    field: Pointer | Annotated[list[Pointer], Field(min_length=1, max_length=16)]
    values: Values

    @model_validator(mode="after")
    def _has_a_name(self) -> "ValuesAxis":
        if self.name is None:
            object.__setattr__(self, "name", _last_name(self.pointers[0]))
        return self

    @property
    def pointers(self) -> list[str]:
        return self.field if isinstance(self.field, list) else [self.field]

    @property
    def columns(self) -> list[str]:
        assert self.name is not None
        return [self.name]

    def choices(self) -> list[Choice]:
        [name] = self.columns
        return [
            Choice(
                {name: value},
                tuple(Change(pointer, value, f"/values/{index}") for pointer in self.pointers),
            )
            for index, value in enumerate(self.values)
        ]


class ZipAxis(Spec):
    """Several fields that go through their values in step: the first values of all, then the second of all, and so on."""

    zip: Annotated[list[ValuesAxis], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _equally_long(self) -> "ZipAxis":
        lengths = [len(axis.values) for axis in self.zip]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"zip goes through its fields in step, and they have {', '.join(map(str, lengths))} values: give each as "
                "many, or make them axes of their own, whose product is taken"
            )
        return self

    @property
    def columns(self) -> list[str]:
        return [name for axis in self.zip for name in axis.columns]

    def choices(self) -> list[Choice]:
        zipped = zip(*(axis.choices() for axis in self.zip), strict=True)
        return [
            Choice(
                {name: value for choice in together for name, value in choice.params.items()},
                tuple(
                    Change(change.pointer, change.value, f"/zip/{position}{change.source}")
                    for position, choice in enumerate(together)
                    for change in choice.changes
                ),
            )
            for together in zipped
        ]


class SweepPoint(Spec):
    """Several fields set at once, under one name: a field before what is in it, in whatever order they are given."""

    name: Annotated[Name, Field(max_length=80)]
    set: Annotated[dict[Pointer, Any], Field(max_length=32)]


class PointsAxis(Spec):
    """Whole settings with names: other plans, other students, other teachers."""

    name: AxisName
    points: Annotated[list[SweepPoint], Field(min_length=1, max_length=10_000)]

    @property
    def columns(self) -> list[str]:
        return [self.name]

    def choices(self) -> list[Choice]:
        return [
            Choice(
                {self.name: point.name},
                tuple(
                    Change(pointer, value, f"/points/{index}/set/{escaped(pointer)}")
                    # A database keeps an object's keys in an order of its own.
                    for pointer, value in sorted(
                        point.set.items(), key=lambda item: (item[0].count("/"), item[0])
                    )
                ),
            )
            for index, point in enumerate(self.points)
        ]


def _kind_of_axis(value: Any) -> str:
    """By the field that only one kind has."""
    for kind in ("zip", "points"):
        if kind in value if isinstance(value, dict) else hasattr(value, kind):
            return f"{kind} axis"
    return "values axis"


# No field has a blank in its name, so a tag is never taken for a part of a pointer.
Axis = Annotated[
    Annotated[ValuesAxis, Tag("values axis")]
    | Annotated[ZipAxis, Tag("zip axis")]
    | Annotated[PointsAxis, Tag("points axis")],
    Discriminator(_kind_of_axis),
]


class SweepSpec(Spec):
    """One job at every point of a grid: the product of the axes in order, the last one fastest, the seeds innermost.

    Jobs that begin with the same steps, seed, teachers and data share them: what several have in common is trained once.
    """

    name: Name | None = None
    labels: Labels = {}
    """Also those of every job of the sweep, beside the job's own."""
    job: dict[str, Any]
    """A job as `POST /v1/jobs` takes it, with one seed. What every point sets may be left out: each point is checked."""
    axes: Annotated[list[Axis], Field(max_length=8)] = []
    """Empty: one point, with its seeds."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Each point runs with the job's seed, and the numbers after it."""
    baseline: Annotated[dict[AxisName, Any], Field(max_length=32)] | None = None
    """The point with which the others are compared, by its values on the axes; null: the first."""
    metric: Literal[METRICS] | None = None  # type: ignore[valid-type]  # the tuple above is its one home
    """What the summary is about. Null: test_accuracy, or val_accuracy where the data has no test split."""
    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """So many jobs of the sweep, shared ones included, may run or wait for a worker at once; null: no limit."""

    @model_validator(mode="after")
    def _axes_fit(self) -> "SweepSpec":
        columns = [name for axis in self.axes for name in axis.columns]
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"two axes are called {twice!r}: give one a name of its own, and change what belongs together in one axis"
            )
        for index, axis in enumerate(self.axes):
            seen: set[str] = set()
            for choice in axis.choices():
                spelled = canonical_json(choice.params)
                if spelled in seen:
                    raise ValueError(f"axes[{index}] has {spelled} twice: each point is run once")
                seen.add(spelled)
        return self

    @model_validator(mode="after")
    def _baseline_is_a_point(self) -> "SweepSpec":
        if self.baseline is None:
            return self
        known = [name for axis in self.axes for name in axis.columns]
        for name in self.baseline:
            if name not in known:
                raise ValueError(
                    f"baseline names the axis {name!r}, and there is {', '.join(known) or 'none'}"
                )
        for axis in self.axes:
            wanted = {name: value for name, value in self.baseline.items() if name in axis.columns}
            fitting = sum(wanted.items() <= choice.params.items() for choice in axis.choices())
            if fitting == 0:
                raise ValueError(
                    f"baseline has {canonical_json(wanted)}, and no point has: take values of the axes"
                )
            if fitting > 1:
                raise ValueError(
                    f"baseline fits {fitting} points of the axis {', '.join(axis.columns)}: name one value of every axis"
                )
        return self

    @property
    def num_points(self) -> int:
        return math.prod(len(axis.choices()) for axis in self.axes)


class SweepPreset(Spec):
    """A sweep by the name of a preset (`GET /v1/presets`), with one's own teachers and data in it."""

    preset: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    teachers: Annotated[
        list[Annotated[str, Field(pattern=r"^tch_[0-9a-z]{1,40}$")]], Field(min_length=1, max_length=16)
    ]
    dataset: Annotated[str, Field(pattern=r"^dst_[0-9a-z]{1,40}$")]
    options: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Any], Field(max_length=32)] = {}
    name: Name | None = None
    """Null: the preset's own, as the next two."""
    labels: Labels = {}
    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


def _form(value: Any) -> str:
    named = "preset" in value if isinstance(value, dict) else isinstance(value, SweepPreset)
    return "a preset" if named else "a spec"


SweepRequest = Annotated[
    Annotated[SweepSpec, Tag("a spec")] | Annotated[SweepPreset, Tag("a preset")], Discriminator(_form)
]


class SweepExtension(Spec):
    """`seeds`: how many each point has afterwards, those that it has already included."""

    seeds: Annotated[int, Field(ge=1, le=100)]
