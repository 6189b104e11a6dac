"""A job whose trainer dies each time: it ends after three attempts, and the others hardly wait for it."""

from sqlalchemy import select

from app.db import reading
from app.tables import Job
from tests.faults.fakes import fake_rig, submit, submit_work, wait_until_ended
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import LEASE_SECONDS, PartsRig

MOST = 3


def run(options: Options) -> list[Row]:
    rows = []
    for on_sqlite in (True, False):
        with fake_rig(options, on_sqlite=on_sqlite) as rig:
            rows.append(campaign(rig, options, num_poison=options.rounds))
    return rows


def campaign(rig: PartsRig, options: Options, *, num_poison: int, num_jobs: int = 20) -> Row:
    """`violations` names poison with another number of attempts, and delays of more than one lease."""
    row = Row("poison jobs among others", rig.setup)
    alone = submit_work(num_jobs, ticks=1)
    seconds_alone = wait_until_ended(rig, alone)
    poison = submit("crash", num_poison)
    good = submit_work(num_jobs, ticks=1)
    delay = wait_until_ended(rig, good) - seconds_alone
    wait_until_ended(rig, poison)
    row.tried = num_poison
    judge(row, alone | good, rig.storage, max_failures=MOST)
    row.num_jobs += num_poison
    with reading() as session:
        ended = session.execute(
            select(Job.id, Job.state, Job.attempt, Job.error).where(Job.id.in_(poison))
        ).all()
    for job_id, state, attempt, error in ended:
        if (state, attempt) != ("failed", MOST) or (error or {}).get("code") != "WORKER_LOST":
            row.violations.append(f"poison {job_id} is {state} after {attempt} attempts: {error}")
    options.say(f"{num_poison} poison jobs delay {num_jobs} others by {delay:.1f} s")
    if delay > num_poison * LEASE_SECONDS:
        row.violations.append(f"the others were delayed by {delay:.1f} s for {num_poison} poison jobs")
    return row
