"""What a waiting job is told: how many come first, for how long, and what it waits for."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from app import db, jobs
from app.access import tenancy, tenants
from app.access.tenants import DEFAULT
from app.scheduling import schedule, workers
from app.scheduling.places import Place
from app.scheduling.schedule import Offer
from app.tables import Attempt, Job

pytestmark = pytest.mark.usefixtures("database")

GIB = 1 << 30


def tenant(name: str, **changes: Any) -> str:
    with db.transaction() as session:
        ident = tenants.make(session, name).id
        tenants.change(session, ident, changes)
    return ident


def submit(tenant_id: str = DEFAULT, macs: float | None = None, kind: str = "compress", **spec: Any) -> str:
    with tenancy.transaction(tenant_id) as session:
        return jobs.submit(session, kind=kind, spec=spec, estimated_macs=macs)[0].id


def worker(name: str = "host:1", *queues: str, **said: Any) -> None:
    with db.transaction() as session:
        workers.seen(session, name, queues=list(queues or ("compress",)), device="cpu", **said)


def claim(name: str = "host:1") -> jobs.Claim:
    with db.transaction() as session:
        offer = Offer(worker=name, queues=("compress", "gpu", "inspect"), memory_bytes=1 << 50)
        claimed = schedule.claim_next(session, offer)
    assert claimed is not None
    return claimed


def succeeded(seconds: float, macs: float | None = None, queue: str = "compress") -> None:
    """A job of before that took so long, and nothing of which counts in anybody's share any more."""
    job_id = submit(macs=macs)
    with db.transaction() as session:
        ended = db.db_now() - 30 * 86400
        changes = {"state": "succeeded", "queue": queue, "finished_at": ended}
        session.execute(update(Job).where(Job.id == job_id).values(changes))
        row = {"job_id": job_id, "n": 1, "worker": "w", "started_at": ended - seconds, "ended_at": ended}
        session.execute(insert(Attempt).values(row))


def place(job_id: str) -> Place:
    with db.reading() as session:
        owner = session.get_one(Job, job_id).tenant_id
    with tenancy.reading(owner) as session:  # as the API asks
        return schedule.place(session, session.get_one(Job, job_id))


def change(job_id: str, **values: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


# ---- what it waits for


def test_without_a_worker_it_says_which_command_starts_one() -> None:
    found = place(submit())
    assert (found.position, found.eta_seconds, found.reason) == (1, None, "no_worker")
    assert "fewbytes worker --queues compress" in found.detail
    worker()
    assert place(submit(device="cuda")).reason == "no_worker"
    assert "GPU" in place(submit(device="cuda")).detail


def test_the_next_one_is_told_that_a_worker_is_free() -> None:
    worker()
    found = place(submit())
    assert (found.position, found.eta_seconds, found.reason) == (1, 0.0, "next")


def test_a_job_larger_than_every_worker_is_told_both_sizes() -> None:
    worker("host:1", memory_bytes=4 * GIB)
    worker("host:2", memory_bytes=8 * GIB)
    found = place(submit(memory_bytes=9 * GIB))
    assert found.reason == "too_little_memory"
    assert str(9 * GIB) in found.detail
    assert str(8 * GIB) in found.detail
    assert place(submit(memory_bytes=8 * GIB, priority=1)).reason == "next"


def test_a_job_that_no_worker_can_take_delays_nobody() -> None:
    worker(memory_bytes=4 * GIB)
    submit(memory_bytes=9 * GIB)
    assert place(submit()).position == 1


def test_workers_in_trouble_are_no_workers() -> None:
    worker("host:1", trouble="Only 3 MB are free.")
    job_id = submit()
    found = place(job_id)
    assert (found.reason, "Only 3 MB" in found.detail) == ("worker_trouble", True)
    worker("host:2")
    assert place(job_id).reason == "next"


def test_a_paused_job_has_no_position_and_delays_nobody() -> None:
    worker()
    held, other = submit(priority=5), submit()
    with db.transaction() as session:
        jobs.pause(session, held)
    assert (place(held).position, place(held).reason) == (None, "paused")
    assert f"/v1/jobs/{held}/resume" in place(held).detail
    assert place(other).position == 1


def test_a_job_that_waits_before_a_retry_knows_how_long() -> None:
    worker()
    late, other = submit(), submit()
    with db.transaction() as session:
        session.execute(
            update(Job).where(Job.id == late).values(next_attempt_at=db.db_now() + 40, failures=2)
        )
    found = place(late)
    assert found.reason == "waits_before_retry"
    assert found.eta_seconds == pytest.approx(40, abs=5)
    assert "2 attempts" in found.detail
    assert place(other).position == 1


def test_a_tenant_at_its_limit_is_told_that_it_waits_for_its_own() -> None:
    acme = tenant("acme", max_running_jobs=1)
    worker("host:1")
    worker("host:2")
    submit(acme)
    claim()
    found = place(submit(acme))
    assert (found.reason, found.eta_seconds) == ("tenant_limit", None)
    assert place(submit()).reason == "next"
    assert place(submit(acme, kind="inspect")).reason == "no_worker"  # inspections have no such limit


# ---- how many come first


def test_the_position_is_the_number_of_claims_until_its_turn() -> None:
    """Of two tenants, of different weights, with priorities, and with nothing that ends meanwhile."""
    heavy, light = tenant("heavy", weight=2.0), tenant("light")
    ids = [submit(light, priority=n % 3) for n in range(5)] + [submit(heavy) for _ in range(6)]
    for name in ("host:1", "host:2"):
        worker(name)
    positions = {job_id: place(job_id).position for job_id in ids}
    order = {claim(str(n)).job_id: n + 1 for n in range(len(ids))}
    assert {job_id: positions[job_id] - order[job_id] for job_id in ids} == pytest.approx(
        dict.fromkeys(ids, 0), abs=1
    )  # where two tenants are level, the milliseconds since their claims decide
    own = [job_id for job_id in sorted(ids, key=positions.__getitem__) if job_id in ids[5:]]
    assert own == ids[5:]


def test_own_and_others_jobs_are_counted_apart_and_not_named() -> None:
    acme, zeta = tenant("acme"), tenant("zeta")
    worker()
    first, *others = [submit(zeta) for _ in range(3)]
    submit(acme)
    found = place(submit(acme))
    assert (found.position, found.reason) == (4, "behind_others")
    assert "1 jobs of yours and 2 of others" in found.detail
    assert not any(secret in found.detail for secret in ("zeta", zeta, first, *others))


def test_with_one_worker_the_tenant_that_used_it_all_day_waits_for_the_other() -> None:
    """Ten minutes of work more are ten jobs of a minute of the other's."""
    succeeded(60)
    busy, idle = tenant("busy"), tenant("idle")
    worker()
    done = submit(busy)
    change(done, state="succeeded", queue="gpu")  # what is usual is told by each queue alone
    with db.transaction() as session:
        row = {"job_id": done, "n": 1, "worker": "w", "ended_at": db.db_now() - 60}
        session.execute(insert(Attempt).values(**row, started_at=db.db_now() - 660))
    mine = submit(busy)
    [submit(idle) for _ in range(20)]
    assert place(mine).position == pytest.approx(11, abs=1)


# ---- how long


def test_a_busy_worker_makes_it_wait_for_what_is_usual() -> None:
    for seconds in (90, 110):
        succeeded(seconds)
    worker()
    submit()
    running, mine, behind = claim(), submit(), submit()
    assert place(mine).eta_seconds == pytest.approx(100, abs=5)
    assert place(behind).eta_seconds == pytest.approx(200, abs=5)
    worker("host:2")
    assert place(mine).eta_seconds == 0
    assert place(behind).eta_seconds == pytest.approx(100, abs=5)
    with db.transaction() as session:
        jobs.record(session, running, progress={"eta_seconds": 30.0})
    assert place(behind).eta_seconds == pytest.approx((100 + 30) / 2, abs=5)


def test_estimated_costs_make_a_long_job_long() -> None:
    """At the speed of the jobs before it, not at their length."""
    succeeded(100, macs=1e12)
    worker()
    submit(macs=5e12)
    submit(macs=2e12)
    claim()
    assert place(submit(macs=1.0)).eta_seconds == pytest.approx(700, abs=10)


def test_nothing_is_said_where_nothing_is_known() -> None:
    succeeded(100, queue="gpu")
    worker()
    submit()
    claim()
    assert place(submit()).eta_seconds is None
