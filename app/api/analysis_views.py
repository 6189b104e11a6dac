"""What callers see of the analysis: tables, summaries, Pareto fronts, comparisons."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.analysis.columns import Column
from app.analysis.common_ground import CommonGround
from app.analysis.summary import Summary

_ROW: dict[str, Any] = {
    "job_id": "job_01kay0000000000000000000aa",
    "point": 1,
    "alpha": 0.8,
    "seed": 0,
    "state": "succeeded",
    "code": None,
    "step": 1,
    "method": "distill",
    "val_accuracy": 0.871,
    "test_accuracy": 0.865,
    "size_bytes": 242_900,
    "parameters": 120_859,
}
_COLUMN = {
    "name": "size_bytes",
    "type": "integer",
    "unit": "byte",
    "description": "Of the file; step 0: of the teacher's file as uploaded.",
    "better": "lower",
}
_TABLE: dict[str, Any] = {
    "sweep_id": "swp_01kay0000000000000000000aa",
    "kind": "answers",
    "axes": [{"name": "alpha", "column": "alpha"}],
    "columns": [_COLUMN],
    "rows": [_ROW],
    "shared": {"teacher": True, "splits": True, "version": True},
    "digests": {"teacher": [["9f2c…"]], "splits": {"test": ["77ab…"]}, "version": ["0.1.0"]},
    "warnings": [],
}


class AxisView(BaseModel):
    """`column`: where its values are in the rows; `axis_NAME` where the table has a column of the axis's own name."""

    name: str
    column: str


class TableView(CommonGround):
    """`rows` have the keys of `columns`, in their order. `kind`: what a row is.

    `shared`: whether all jobs that have results share the teacher, the images that they are measured on, and the version
    that measured; each that they do not has a warning.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_TABLE]})

    sweep_id: str | None
    kind: str
    axes: list[AxisView]
    columns: list[Column]
    rows: list[dict[str, Any]]


class SummaryView(Summary, CommonGround):
    """What the sweep says so far: means with intervals over seeds, differences to the baseline, the winner or why there is
    none, trends, and the jobs that gave no answer."""

    sweep_id: str | None


class ComparisonView(TableView):
    """The table of some jobs, and what it says; the axis is `job`."""

    summary: Summary


class ParetoPoint(BaseModel):
    """Of a point the means over its n answers (`job_id` and `seed` are null), of a row the numbers themselves."""

    point: int
    name: str
    params: dict[str, Any]
    job_id: str | None
    seed: int | None
    n: int
    x: float
    y: float
    on_front: bool


class ParetoView(BaseModel):
    """`items`: all that have both numbers, by rising x; `on_front`: nothing else is at least as good in both and better in
    one. `left_out`: how many points (or rows) lack a number."""

    sweep_id: str | None
    over: str
    x: Column
    y: Column
    items: list[ParetoPoint]
    left_out: int
    warnings: list[str]
