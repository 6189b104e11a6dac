"""Workers whose clocks are an hour wrong, in both directions: leases must not care, before a kill and after it."""

import os
import random
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.db import reading
from app.tables import Attempt
from tests.faults import processes
from tests.faults.fakes import fake_rig, submit_work, wait_until_ended
from tests.faults.kills import all_at_work, running
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import PartsRig
from tests.faults.work import PATIENCE_SECONDS, until

SKEWED = Path(__file__).parent / "skewed"
SKEW_SECONDS = {"worker-1": 3600, "worker-2": -3600}


def run(options: Options) -> list[Row]:
    rows = []
    for on_sqlite in (True, False):
        with skewed_rig(options, on_sqlite=on_sqlite, FEWBYTES_MAX_FAILURES="1000") as rig:
            rows.append(campaign(rig, options))
    return rows


def skewed_rig(options: Options, *, on_sqlite: bool, **more: Any) -> AbstractContextManager[PartsRig]:
    """Real workers with fake trainers and wrong clocks."""
    of_worker = {
        name: {
            "PYTHONPATH": os.pathsep.join([str(SKEWED), os.environ.get("PYTHONPATH", "")]),
            "FEWBYTES_TEST_SKEW_SECONDS": str(seconds),
        }
        for name, seconds in SKEW_SECONDS.items()
    }
    return fake_rig(options, on_sqlite=on_sqlite, of_worker=of_worker, **more)


def campaign(rig: PartsRig, options: Options, *, num_jobs: int = 6, ticks: int = 60) -> Row:
    """Kill a worker as often as there are rounds. No job may lose an attempt whose worker was not killed."""
    row = Row("workers' clocks +1 h and -1 h, SIGKILL", rig.setup)
    chance = random.Random(options.seed)
    killed: set[str] = set()
    work: dict[str, str | None] = {}
    for _ in range(options.rounds):
        work |= submit_work(num_jobs, ticks)
        time.sleep(chance.uniform(0.5, 2.0))
        before = until(lambda: running(rig), PATIENCE_SECONDS, rig)
        victim = chance.choice(before)
        pid = int(victim.worker.rsplit(":", 1)[1])
        if processes.kill(pid):
            killed.add(victim.worker)
            row.tried += 1
            began = time.monotonic()
            until(lambda before=before, v=victim: all_at_work(before, [v]), PATIENCE_SECONDS, rig)
            row.recoveries.append(time.monotonic() - began)
        wait_until_ended(rig, work)
    judge(row, work, rig.storage)
    with reading() as session:
        mine = Attempt.job_id.in_(work)  # the service may have been through other faults before
        lost = select(Attempt).where(mine, Attempt.outcome == "worker_lost", Attempt.worker.not_in(killed))
        row.violations += [
            f"{attempt.job_id} lost attempt {attempt.n}, whose worker lives"
            for attempt in session.scalars(lost)
        ]
    return row
