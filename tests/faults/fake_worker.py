"""A real Celery worker whose trainers need no torch: they do what the job's spec says (`tests.faults.fake_trainer`).

For faults between the service's processes, where what a trainer computes makes no difference.
"""

import sys
from functools import partial
from typing import Any

from app.jobs import Claim
from app.settings import settings
from worker import main, orders, supervisor

COMMAND = [sys.executable, "-m", "tests.faults.fake_trainer"]


def order(claim: Claim) -> dict[str, Any]:
    """Without teachers and data: a work folder, and the spec."""
    work_dir = settings().resolved_data_dir / "jobs" / claim.job_id
    work_dir.mkdir(parents=True, exist_ok=True)
    return {"do": "compress", "spec": claim.spec, "work_dir": str(work_dir), "num_threads": 1}


if __name__ == "__main__":
    orders.build = order
    supervisor.run = partial(supervisor.run, command=COMMAND)  # type: ignore[assignment]
    main.main()
