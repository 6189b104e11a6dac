"""Jobs with results, for whoever looks at their reports."""

from collections.abc import Callable
from typing import Any

import pytest

from app import jobs
from app.db import transaction
from tests.app.conftest import Service
from tests.app.reports import examples

STEPS = [
    {"method": "distill", "student": "student_net", "alpha": 0.8, "epochs": 5},
    {"method": "quantize", "scheme": "minmax"},
]

MakeJob = Callable[..., str]


def ended(
    service: Service, result: dict[str, Any], metrics: list[dict[str, Any]] | None = None, **spec: Any
) -> str:
    """A job of this spec that succeeded with this result."""
    job_id = service.job(**{"steps": STEPS, **spec})
    claim = service.worker.claim(job_id)
    with transaction() as session:
        jobs.record(session, claim, metrics=metrics or [])
        jobs.finish(session, claim, result, [service.worker.artifact(b"student")])
    return job_id


@pytest.fixture
def job_id(sqlite_service: Service) -> str:
    """A plain one, with learning curves and sensitivity."""
    whole = examples.result(sensitivity=examples.sensitivity())
    return ended(sqlite_service, whole, examples.curves(1, 5), name="small student")
