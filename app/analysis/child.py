"""One job of a table."""

from dataclasses import dataclass
from typing import Any

from app.tables import Job


@dataclass
class Child:
    """`point`: its position in the grid; `params`: axis -> value; `state`: the job's, or "infeasible"."""

    job: Job
    point: int
    params: dict[str, Any]
    seed: int
    state: str
