"""What the database has about a sweep, and what it says: read at one moment, so that a report is made without a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.analysis import reads
from app.analysis.columns import NUMBERS
from app.analysis.common_ground import CommonGround, common_ground
from app.analysis.reads import Gathered
from app.analysis.summary import PointSummary, Summary, summarise
from app.analysis.table import Row
from app.sweeps import reads as sweeps
from app.tables import Sweep


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
    sweep = sweeps.find(session, sweep_id)
    gathered = reads.gather(session, sweeps.children(session, sweep_id), "iterations")
    answers = gathered.rows("answers")
    metric = _metric(sweep.spec.get("metric"), answers)
    progress = sweeps.standing(session, sweep)
    return SweepFacts(
        sweep=sweep,
        state=progress.state,
        counts=progress.counts,
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
    )


def _metric(asked: str | None, rows: Sequence[Row]) -> str:
    """What was asked for; else test_accuracy, or val_accuracy where no answer was measured on test."""
    if asked in NUMBERS:
        return asked
    has = {name for name in ("test_accuracy", "val_accuracy") if any(row[name] is not None for row in rows)}
    return "val_accuracy" if has == {"val_accuracy"} else "test_accuracy"
