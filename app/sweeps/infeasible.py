"""What no attempt could do, told apart from what failed: a target below the smallest network, say."""

from typing import Any

from sqlalchemy import ColumnElement, and_

from app.tables import FAILED, Job

INFEASIBLE = frozenset(
    {
        # found when the step looks at the network
        "BUDGET_TOO_SMALL",
        "GROUPS_DO_NOT_DIVIDE",
        "HINT_IMPOSSIBLE",
        "NOTHING_TO_PRUNE",
        "NOTHING_TO_SPARSIFY",
        "NOT_EXPORTABLE",
        "NOT_QUANTIZABLE",
        "RANK_TOO_LARGE",
        "REWIND_IMPOSSIBLE",
        "STUDENT_IMPOSSIBLE",
        "TARGET_UNREACHABLE",
        # found before it is queued
        "CLASSES_UNSUITABLE",
        "INVALID_IMAGE_SIZE",
    }
)
"""Codes of errors that say: this method cannot do that to this network or with these data, however often it is tried."""

SHARED_STAGE_FAILED = "SHARED_STAGE_FAILED"


def code_of(error: dict[str, Any] | None) -> str | None:
    return None if error is None else error.get("code")


def is_infeasible(state: str, error: dict[str, Any] | None) -> bool:
    return state == FAILED and code_of(error) in INFEASIBLE


def infeasible() -> ColumnElement[bool]:
    """The same as SQL, of a job's row."""
    return and_(Job.state == FAILED, Job.error["code"].as_string().in_(sorted(INFEASIBLE)))
