"""The columns of the tidy table: one word for one thing, with its unit, wherever numbers of jobs are shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import Problem

Kind = Literal["answers", "stages", "iterations"]
"""What a row is: the answer of a job, a stage of one, an iteration of a prune step."""

Type = Literal["string", "integer", "number", "boolean", "any"]
"""`any`: values of an axis, which may be whatever a spec takes."""


@dataclass(frozen=True)
class Column:
    """`better`: which way a user wants the number to go; null where neither is better."""

    name: str
    type: Type
    unit: str | None
    description: str
    better: Literal["higher", "lower"] | None = None


def is_share(name: str) -> bool:
    """Whether this column is a share of images: people read it in percent, and its differences in points."""
    return "accuracy" in name or "agreement" in name


_WHICH = (
    Column("job_id", "string", None, "The job that the row is of."),
    Column("point", "integer", None, "Position of its point in the grid, from 0; seeds apart."),
)

_MEASURED = (
    Column("seed", "integer", None, "The seed that the steps ran with."),
    Column("state", "string", None, "The job's state; infeasible: its plan cannot be."),
    Column("code", "string", None, "Of the problem that ended the job, if one did."),
    Column(
        "step", "integer", None, "Which step made the network: 1 is the first, 0 the teacher as uploaded."
    ),
    Column("method", "string", None, "Of that step; teacher: step 0."),
    Column("train_accuracy", "number", "1", "Share of the train images it gets right.", "higher"),
    Column("val_accuracy", "number", "1", "Share of the val images it gets right.", "higher"),
    Column("test_accuracy", "number", "1", "Share of the test images it gets right.", "higher"),
    Column("val_loss", "number", "nat", "Mean cross-entropy on val.", "lower"),
    Column("test_loss", "number", "nat", "Mean cross-entropy on test.", "lower"),
    Column(
        "val_agreement", "number", "1", "Share of the val images it answers as the (first) teacher.", "higher"
    ),
    Column(
        "test_agreement",
        "number",
        "1",
        "Share of the test images it answers as the (first) teacher.",
        "higher",
    ),
    Column(
        "val_accuracy_best5",
        "number",
        "1",
        "Mean val accuracy of the step's five best epochs. Optimistic: val chose the epochs that it scores.",
        "higher",
    ),
    Column(
        "size_bytes", "integer", "byte", "Of the file; step 0: of the teacher's file as uploaded.", "lower"
    ),
    Column("parameters", "integer", "1", "Trainable numbers of the network.", "lower"),
    Column("macs", "integer", "1", "Multiply-adds for one image.", "lower"),
    Column(
        "latency_ms", "number", "ms", "For one image, the median, on the job's device and threads.", "lower"
    ),
    Column("compression_ratio", "number", "1", "The teacher's size_bytes by this one's.", "higher"),
    Column("speed_up", "number", "1", "The teacher's macs by this one's: in theory, not in time.", "higher"),
    Column("epochs", "number", "epoch", "Trained by all steps up to this one.", "lower"),
    Column(
        "train_macs",
        "integer",
        "1",
        "Multiply-adds of training in all steps up to this one, teachers included.",
        "lower",
    ),
    Column("seconds", "number", "s", "All steps up to this one took, measuring apart.", "lower"),
    Column("teacher_val_accuracy", "number", "1", "Of the teacher (several: the ensemble) on val.", "higher"),
    Column(
        "teacher_test_accuracy", "number", "1", "Of the teacher (several: the ensemble) on test.", "higher"
    ),
    Column("val_leaked", "boolean", None, "Whether a step was trained on val: its val figures say nothing."),
    Column(
        "test_leaked", "boolean", None, "Whether a step was trained on test: its test figures say nothing."
    ),
)

_OF_ITERATIONS = (
    Column("iteration", "integer", None, "Of the prune step, from 1; 0: the network before the first cut."),
    Column("accuracy_before", "number", "1", "On val after the cut, before it is trained again.", "higher"),
    Column("accuracy_after", "number", "1", "On val after that training.", "higher"),
)

_FIXED = (*_WHICH, *_MEASURED, *_OF_ITERATIONS)
BY_NAME = {column.name: column for column in _FIXED}

NUMBERS = tuple(column.name for column in _MEASURED if column.better)
"""What is averaged, compared and plotted: the columns of a measured number."""


def axis_columns(axes: Iterable[str]) -> dict[str, str]:
    """Axis -> its column: the axis's own name, or `axis_NAME` where a column of the table has that name."""
    found: dict[str, str] = {}
    for axis in axes:
        column = axis
        while column in BY_NAME or column in found.values():
            column = f"axis_{column}"
        found[axis] = column
    return found


def columns(axes: Sequence[str], kind: Kind) -> list[Column]:
    """All columns of a table, in order: the same for the same axes, whatever is in the rows."""
    of_axes = [
        Column(column, "any", None, f"Axis {axis!r}: the value, or the name of the point.")
        for axis, column in axis_columns(axes).items()
    ]
    return [*_WHICH, *of_axes, *_MEASURED, *(_OF_ITERATIONS if kind == "iterations" else ())]


def number_column(name: str, parameter: str) -> Column:
    """The column of this name, which must be a measured number. Problem 422 UNKNOWN_COLUMN."""
    if name in NUMBERS:
        return BY_NAME[name]
    detail = f"{parameter} is {name[:100]!r}, and there is no such column of numbers. There are: {', '.join(NUMBERS)}."
    errors = [{"parameter": parameter, "code": "UNKNOWN_COLUMN", "detail": detail}]
    raise Problem(422, "UNKNOWN_COLUMN", detail, errors=errors)
