"""A real Celery worker whose trainers need no torch: they do what the job's spec says (`tests.faults.fake_trainer`).

For faults between the service's processes, where what a trainer computes makes no difference.
"""

import sys
from functools import partial
from typing import Any

from app.jobs import Claim
from worker import main, orders, supervisor, work_folder

COMMAND = [sys.executable, "-m", "tests.faults.fake_trainer"]


def order(claim: Claim) -> dict[str, Any]:
    """With teachers and data of no files: a work folder, and the spec."""
    return {
        "do": "compress",
        "spec": claim.spec,
        "work_dir": str(work_folder.prepare(claim)),
        "num_threads": 1,
        "teachers": [],
        "data": {"id": "dst_1", "index_sha256": None, "pack_sha256": None},
    }


if __name__ == "__main__":
    orders.build = order
    supervisor.run = partial(supervisor.run, command=COMMAND)  # type: ignore[assignment]
    main.main()
