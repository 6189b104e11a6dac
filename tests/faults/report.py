"""What a campaign found, and the table of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.db import reading
from app.storage.objects import Storage
from app.tables import SUCCEEDED, Artifact, Attempt, Job
from tests.faults.checker import check


@dataclass
class Row:
    """One line of the table. `recoveries`: seconds from each fault until the work went on."""

    fault: str
    setup: str
    tried: int = 0
    num_jobs: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.differing or self.violations)


def judge(
    row: Row, expected: Mapping[str, str | None], storage: Storage, *, max_failures: int | None = None
) -> Row:
    """Fill in what became of the jobs. `expected`: job id → digest of its answer; None: any will do."""
    row.num_jobs += len(expected)
    with reading() as session:
        states = dict(_pairs(session, select(Job.id, Job.state)))
        digests = dict(
            _pairs(session, select(Artifact.job_id, Artifact.sha256).where(Artifact.kind == "final"))
        )
        won = select(Attempt.job_id, func.count()).where(Attempt.outcome == SUCCEEDED)
        wins = dict(_pairs(session, won.group_by(Attempt.job_id)))
        row.violations += check(session, storage, max_failures=max_failures)
    for job_id, digest in expected.items():
        if states.get(job_id) != SUCCEEDED:
            row.lost.append(f"{job_id} is {states.get(job_id)}")
        elif wins.get(job_id, 0) > 1:
            row.doubled.append(job_id)
        elif digest is not None and digests.get(job_id) != digest:
            row.differing.append(f"{job_id}: {digests.get(job_id)}, not {digest}")
    return row


def _pairs(session: Session, statement: Select[Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in session.execute(statement)]


HEADER = (
    "| fault | set-up | faults tried | jobs | lost | doubled | digests differing | recovery p50 | p95 |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    return "\n".join([*HEADER, *map(_line, rows)])


def _line(row: Row) -> str:
    counts = (row.tried, row.num_jobs, len(row.lost), len(row.doubled), len(row.differing))
    times = (_seconds(row.recoveries, 0.5), _seconds(row.recoveries, 0.95))
    return f"| {' | '.join(map(str, (row.fault, row.setup, *counts, *times)))} |"


def _seconds(values: Sequence[float], share: float) -> str:
    return f"{sorted(values)[round(share * (len(values) - 1))]:.1f} s" if values else ""


def complaints(rows: Iterable[Row]) -> list[str]:
    """Everything that must not be, in sentences."""
    return [
        f"{row.fault} ({row.setup}): {name}: {what}"
        for row in rows
        for name in ("lost", "doubled", "differing", "violations")
        for what in getattr(row, name)
    ]
