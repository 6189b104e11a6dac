"""Jobs for workers with fake trainers: queued at once, without teachers and data."""

import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import func, select

from app import jobs
from app.access import tenancy, tenants
from app.db import reading
from app.tables import TERMINAL, Job
from tests.faults.fake_trainer import DEFAULT_TICKS, answer
from tests.faults.options import Options
from tests.faults.rig import PartsRig, parts_rig
from tests.faults.work import until


def fake_rig(options: Options, *, on_sqlite: bool, **more: Any) -> AbstractContextManager[PartsRig]:
    """API and real workers whose trainers are fake. `more`: what `parts_rig` takes."""
    return parts_rig(
        options.database_url,
        options.broker_url,
        on_sqlite=on_sqlite,
        worker_module="tests.faults.fake_worker",
        **more,
    )


def submit(does: str, num_jobs: int = 1, **spec: object) -> list[str]:
    """Queue jobs whose trainer does what a function of `tests.faults.fake_trainer` does; their ids."""
    ids = []
    for _ in range(num_jobs):
        with tenancy.transaction(tenants.DEFAULT) as session:
            ids.append(jobs.submit(session, kind="compress", spec={"name": does, **spec})[0].id)
    return ids


def submit_work(num_jobs: int, ticks: int = DEFAULT_TICKS) -> dict[str, str | None]:
    """Jobs of so many ticks of 50 ms; their ids, each with the digest that it must give."""
    return dict.fromkeys(submit("work", num_jobs, ticks=ticks), answer(ticks))


def num_ended(ids: Collection[str]) -> int:
    with reading() as session:
        return session.scalar(select(func.count()).where(Job.id.in_(ids), Job.state.in_(TERMINAL))) or 0


def wait_until_ended(rig: PartsRig, ids: Collection[str], seconds: float = 240.0) -> float:
    """Seconds it took, counted from now. What is not ended then is for the judge to name."""
    began = time.monotonic()
    try:
        until(lambda: num_ended(ids) == len(ids), seconds, rig)
    except AssertionError:
        print(f"{len(ids) - num_ended(ids)} jobs did not end within {seconds:g} s", flush=True)
    return time.monotonic() - began
