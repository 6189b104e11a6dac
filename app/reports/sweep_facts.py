"""What the database has about a sweep, and what it says, read at one moment: a report is made without a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.analysis import reads
from app.analysis.columns import NUMBERS
from app.analysis.common_ground import CommonGround, common_ground
from app.analysis.reads import Gathered
from app.analysis.summary import PointSummary, Summary, summarise
from app.analysis.table import Row
from app.sweeps import reads as sweeps
from app.tables import Sweep, Teacher


class TeacherRow(NamedTuple):
    """Teachers that jobs of the sweep learned from (several: together), and what was measured of them."""

    names: list[str]
    num_jobs: int
    row: Row


@dataclass(frozen=True)
class SweepFacts:
    """`answers`: a row for each job; `iterations`: a row for each iteration of a prune step."""

    sweep: Sweep
    state: str
    counts: dict[str, int]
    gathered: Gathered
    answers: list[Row]
    iterations: list[Row]
    metric: str
    summary: Summary
    ground: CommonGround
    teachers: list[TeacherRow]

    @property
    def points(self) -> Sequence[PointSummary]:
        """Those that have an answer with the metric."""
        return [point for point in self.summary.points if self.metric in point.metrics]

    def known(self, name: str) -> bool:
        return any(row[name] is not None for row in self.answers)

    @property
    def accuracy(self) -> str:
        """The column for plots of accuracy: the metric, or where that is none the test's, or val's."""
        if "accuracy" in self.metric:
            return self.metric
        return "test_accuracy" if self.known("test_accuracy") else "val_accuracy"

    def sum_of(self, name: str) -> float | None:
        """Over the answers; None where none has it."""
        values: list[Any] = [row[name] for row in self.answers if row[name] is not None]
        return sum(values) if values else None


def read_sweep(session: Session, sweep_id: str) -> SweepFacts:
    """Raises Problem 404."""
    found = sweeps.snapshot(session, sweep_id)
    sweep = found.sweep
    gathered = reads.gather(session, sweeps.children(session, sweep_id), "iterations")
    answers = gathered.rows("answers")
    metric = _metric(sweep.spec.get("metric"), answers)
    return SweepFacts(
        sweep=sweep,
        state=found.state,
        counts=found.tally.counts,
        gathered=gathered,
        answers=answers,
        iterations=[row for row in gathered.rows("iterations") if row["iteration"] is not None],
        metric=metric,
        summary=summarise(
            answers,
            gathered.axes,
            metric,
            sweep.spec.get("baseline"),
            reasons=gathered.reasons(),
            discordances=gathered.discordances(),
        ),
        ground=common_ground(session, gathered),
        teachers=_teachers(session, gathered),
    )


def _teachers(session: Session, gathered: Gathered) -> list[TeacherRow]:
    """Stage 0 of the jobs, once for each team of teachers, in the order of the points."""
    teams = {child.job.id: tuple(child.job.spec["teachers"]) for child in gathered.children}
    rows: dict[tuple[str, ...], list[Row]] = {}
    for row in gathered.rows("stages"):
        if row["step"] == 0:
            rows.setdefault(teams[row["job_id"]], []).append(row)
    wanted = {ident for team in rows for ident in team}
    named = session.execute(select(Teacher.id, Teacher.name).where(Teacher.id.in_(wanted)))
    names = {row.id: row.name for row in named}
    return [
        TeacherRow([names.get(ident) or ident for ident in team], len(found), found[0])
        for team, found in rows.items()
    ]


def _metric(asked: str | None, rows: Sequence[Row]) -> str:
    """What was asked for; else test_accuracy, or val_accuracy where no answer was measured on test."""
    if asked is not None and asked in NUMBERS:
        return asked
    has = {name for name in ("test_accuracy", "val_accuracy") if any(row[name] is not None for row in rows)}
    return "val_accuracy" if has == {"val_accuracy"} else "test_accuracy"
