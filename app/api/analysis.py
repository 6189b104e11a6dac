"""What the jobs of a sweep say together, and any jobs side by side: table, summary, Pareto front, comparison."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.analysis import formats, pareto, reads
from app.analysis.columns import Kind, axis_columns, columns, number_column
from app.analysis.common_ground import common_ground
from app.analysis.reads import Gathered
from app.analysis.summary import Summary, name_of, summarise
from app.analysis.table import Row
from app.api.analysis_views import (
    AxisView,
    ComparisonView,
    ParetoPoint,
    ParetoView,
    SummaryView,
    TableView,
)
from app.api.context import CurrentCaller
from app.api.sweeps import SweepId
from app.errors import Problem
from app.sweeps import reads as sweeps
from app.tables import SUCCEEDED, Sweep

router = APIRouter(tags=["analysis"])

Format = Literal["json", "csv", "parquet"]
_MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TABLES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": _BINARY,
        }
    }
}

Rows = Annotated[
    Kind,
    Query(
        description="answers: the last stage of each job. stages: all of them, step 0 being the teacher. iterations: "
        "those of prune steps, 0 being the network before the first cut."
    ),
]
AskedFormat = Annotated[Format | None, Query(description="Without it, what Accept asks for, else JSON.")]
Accept = Annotated[str, Header(max_length=1000)]
ColumnName = Annotated[str, Query(max_length=100, description="A column of numbers of the table.")]
Metric = Annotated[
    str | None,
    Query(
        max_length=100,
        description="A column of numbers. Without it the sweep's own, else test_accuracy, or val_accuracy where there "
        "is no test.",
    ),
]
Jobs = Annotated[
    list[Annotated[str, Query(pattern="^job_[0-9a-z]{1,40}$")]],
    Query(min_length=2, max_length=200, description="Each job once: `job=job_a&job=job_b`."),
]


@router.get("/v1/sweeps/{sweep_id}/table", response_model=TableView, responses=_TABLES)
def get_table(
    sweep_id: SweepId,
    caller: CurrentCaller,
    rows: Rows = "answers",
    format: AskedFormat = None,
    accept: Accept = "*/*",
) -> Response:
    """One tidy table of all jobs of the sweep, as JSON, CSV or Parquet; while they run it has what there is.

    `curl "$U/v1/sweeps/$ID/table?format=csv"`. The columns are always the same for the same sweep; what is not known is
    null (CSV: empty).
    """
    with caller.reading() as session:
        gathered = _of_sweep(session, sweep_id, rows)[1]
        made = _table(session, gathered, rows, sweep_id)
    return _table_response(made, _format(format, accept), f"{sweep_id}-{rows}")


@router.get("/v1/sweeps/{sweep_id}/summary", response_model=SummaryView)
def get_summary(
    sweep_id: SweepId,
    caller: CurrentCaller,
    metric: Metric = None,
    baseline: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="A point to compare with, in place of the sweep's.")
    ] = None,
) -> Response:
    """What the sweep says: per point mean and interval over seeds, difference to the baseline, winner or none, trends."""
    with caller.reading() as session:
        sweep, gathered = _of_sweep(session, sweep_id)
        ground = common_ground(session, gathered)
    rows = gathered.rows()
    name = number_column(_metric_of(metric or sweep.spec.get("metric"), rows), "metric").name
    summary = _summary(gathered, rows, name, _baseline_of(sweep, gathered, baseline))
    return _json(SummaryView(sweep_id=sweep_id, **vars(summary), **vars(ground)))


@router.get("/v1/sweeps/{sweep_id}/pareto", response_model=ParetoView)
def get_pareto(
    sweep_id: SweepId,
    caller: CurrentCaller,
    x: ColumnName = "size_bytes",
    y: Annotated[
        str | None,
        Query(
            max_length=100,
            description="As x; without it test_accuracy, or val_accuracy where there is no test.",
        ),
    ] = None,
    over: Annotated[
        Literal["points", "rows"],
        Query(description="points: means over the seeds of each. rows: every answer by itself."),
    ] = "points",
) -> Response:
    """What is best for its size: the points that nothing else beats in both numbers, and all others.

    Any two columns of numbers, such as test_accuracy, val_accuracy, size_bytes, parameters, macs, latency_ms.
    """
    of_x = number_column(x, "x")
    with caller.reading() as session:
        gathered = _of_sweep(session, sweep_id)[1]
        warnings = common_ground(session, gathered).warnings
    rows = gathered.rows()
    of_y = number_column(_metric_of(y, rows), "y")
    found = _points(rows, gathered) if over == "points" else _answers(rows, gathered)
    items = _items(found, of_x.name, of_y.name)
    left_out = len(found) - len(items)
    view = ParetoView(
        sweep_id=sweep_id, over=over, x=of_x, y=of_y, items=items, left_out=left_out, warnings=warnings
    )
    return _json(view)


@router.get("/v1/compare", response_model=ComparisonView, responses=_TABLES)
def compare(
    caller: CurrentCaller,
    job: Jobs,
    rows: Rows = "answers",
    metric: Metric = None,
    format: AskedFormat = None,
    accept: Accept = "*/*",
) -> Response:
    """Any 2 to 200 jobs side by side, each a point: the table, and what it says; the first is the baseline.

    A job with several seeds has a row for each, and so an interval. `shared` and `warnings` say whether they may be compared
    at all: the same teacher, the same images, the same version.
    """
    if len(set(job)) < len(job):
        detail = "job names one job twice: name each once."
        errors = [{"parameter": "job", "code": "INVALID_PARAMETER", "detail": detail}]
        raise Problem(422, "INVALID_PARAMETER", detail, errors=errors)
    with caller.reading() as session:
        gathered = reads.gather(session, reads.named_jobs(session, job), rows)
        table = _table(session, gathered, rows, None)
    answers = gathered.rows()
    name = number_column(_metric_of(metric, answers), "metric").name
    view = ComparisonView.model_construct(**vars(table), summary=_summary(gathered, answers, name, None))
    return _table_response(view, _format(format, accept), f"comparison-{rows}")


# ---- what they are made of


def _of_sweep(session: Session, sweep_id: str, kind: Kind = "answers") -> tuple[Sweep, Gathered]:
    """Problem 404."""
    sweep = sweeps.find(session, sweep_id)
    return sweep, reads.gather(session, sweeps.children(session, sweep_id), kind)


def _table(session: Session, gathered: Gathered, kind: Kind, sweep_id: str | None) -> TableView:
    ground = common_ground(session, gathered)
    # Built as it is: validating some thousand rows takes longer than making them.
    return TableView.model_construct(
        sweep_id=sweep_id,
        kind=kind,
        axes=[AxisView(name=axis, column=column) for axis, column in axis_columns(gathered.axes).items()],
        columns=columns(gathered.axes, kind),
        rows=gathered.rows(kind),
        **vars(ground),
    )


def _summary(
    gathered: Gathered, rows: Sequence[Row], metric: str, baseline: Mapping[str, Any] | None
) -> Summary:
    return summarise(
        rows,
        gathered.axes,
        metric,
        baseline,
        reasons=gathered.reasons(),
        discordances=gathered.discordances(),
    )


def _metric_of(asked: str | None, rows: Sequence[Row]) -> str:
    """test_accuracy, or val_accuracy where no answer was measured on test."""
    if asked is not None:
        return asked
    measured = {
        name for name in ("test_accuracy", "val_accuracy") if any(row[name] is not None for row in rows)
    }
    return "val_accuracy" if measured == {"val_accuracy"} else "test_accuracy"


def _baseline_of(sweep: Sweep, gathered: Gathered, point: int | None) -> Mapping[str, Any] | None:
    """The axis values of the point to compare with. Problem 422 UNKNOWN_BASELINE."""
    if point is None:
        baseline: dict[str, Any] | None = sweep.spec.get("baseline")
        return baseline
    found = next((child.params for child in gathered.children if child.point == point), None)
    if found is None:
        last = max((child.point for child in gathered.children), default=0)
        raise Problem(
            422,
            "UNKNOWN_BASELINE",
            f"baseline is {point}, and the sweep has the points 0 to {last}: name one of them.",
        )
    return found


def _points(rows: Sequence[Row], gathered: Gathered) -> list[Row]:
    return [{**row, "job_id": None, "seed": None} for row in pareto.point_rows(rows, gathered.axes)]


def _answers(rows: Sequence[Row], gathered: Gathered) -> list[Row]:
    params = {child.job.id: child.params for child in gathered.children}
    return [
        {**row, "n": 1, "params": params[row["job_id"]], "name": name_of(params[row["job_id"]])}
        for row in rows
        if row["state"] == SUCCEEDED
    ]


def _items(rows: Sequence[Row], x: str, y: str) -> list[ParetoPoint]:
    on_front = {id(row) for row in pareto.front(rows, x, y)}
    shown = ("point", "name", "params", "job_id", "seed", "n")
    return [
        ParetoPoint(**{name: row[name] for name in shown}, x=row[x], y=row[y], on_front=id(row) in on_front)
        for row in sorted(pareto.with_both(rows, x, y), key=lambda row: (row[x], row[y]))
    ]


# ---- how they are sent


def _format(asked: Format | None, accept: str) -> Format:
    if asked is not None:
        return asked
    return next((name for name, media_type in _MEDIA_TYPES.items() if media_type in accept.lower()), "json")


def _table_response(table: TableView, format: Format, filename: str) -> Response:
    if format == "json":
        return _json(table)
    content = (
        formats.csv_text(table.columns, table.rows).encode()
        if format == "csv"
        else formats.parquet_bytes(table.columns, table.rows)
    )
    headers = {"Content-Disposition": f'attachment; filename="{filename}.{format}"'}
    return Response(content, media_type=_MEDIA_TYPES[format], headers=headers)


def _json(view: BaseModel) -> Response:
    return Response(view.model_dump_json(), media_type="application/json")
