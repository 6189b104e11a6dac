"""Who is next: between tenants, within one, and what a worker is never given."""

import subprocess
import sys
import threading
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app import db, jobs
from app.access import tenancy, tenants
from app.access.tenants import DEFAULT
from app.jobs import Claim
from app.scheduling import schedule
from app.scheduling.schedule import Offer
from app.settings import settings
from app.tables import Attempt, Job

pytestmark = pytest.mark.usefixtures("database")

ANY = Offer(worker="host:1", queues=("compress", "gpu", "inspect"), memory_bytes=1 << 40, device="cpu")
GIB = 1 << 30


def tenant(name: str, **changes: Any) -> str:
    with db.transaction() as session:
        ident = tenants.make(session, name).id
        tenants.change(session, ident, changes)
    return ident


def submit(tenant_id: str = DEFAULT, kind: str = "compress", **spec: Any) -> str:
    with tenancy.transaction(tenant_id) as session:
        return jobs.submit(session, kind=kind, spec=spec)[0].id


def claim(offer: Offer = ANY) -> Claim | None:
    with db.reading() as session:
        waits = schedule.waits(session, offer)
    with db.transaction() as session:
        claimed = schedule.claim_next(session, offer)
    assert waits == (claimed is not None)
    return claimed


def claimed_id(offer: Offer = ANY) -> str | None:
    claimed = claim(offer)
    return claimed and claimed.job_id


def did(tenant_id: str, seconds: float, hours_ago: float = 1.0, kind: str = "compress") -> None:
    """The tenant had an attempt of so many seconds that ended then."""
    job_id = submit(tenant_id, kind)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="succeeded"))
        ended = db.db_now() - 3600 * hours_ago
        row = {"job_id": job_id, "n": 1, "worker": "w", "started_at": ended - seconds, "ended_at": ended}
        session.execute(insert(Attempt).values(row))


def change(job_id: str, **values: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


# ---- within a tenant


def test_the_higher_priority_goes_first_and_then_the_older() -> None:
    old, urgent, later, low = submit(), submit(priority=7), submit(), submit(priority=-100)
    assert [claimed_id() for _ in range(5)] == [urgent, old, later, low, None]


def test_a_claim_is_recorded_with_the_worker_and_its_device() -> None:
    job_id = submit()
    claimed = claim(Offer(worker="host:9", queues=("compress",), device="cuda"))
    assert claimed is not None
    assert (claimed.job_id, claimed.attempt, claimed.worker) == (job_id, 1, "host:9")
    with db.reading() as session:
        attempt = session.scalars(select(Attempt)).one()
        assert (attempt.worker, attempt.device) == ("host:9", "cuda")
        assert session.get_one(Job, job_id).lease_owner == "host:9"


def test_what_is_paused_or_waits_for_its_time_is_passed_over() -> None:
    paused, late, ready = submit(priority=2), submit(priority=1), submit()
    with db.transaction() as session:
        jobs.pause(session, paused)
        session.execute(update(Job).where(Job.id == late).values(next_attempt_at=db.db_now() + 60))
    assert [claimed_id(), claimed_id()] == [ready, None]
    with db.transaction() as session:
        jobs.resume(session, paused)
        session.execute(update(Job).where(Job.id == late).values(next_attempt_at=db.db_now() - 1))
    assert [claimed_id(), claimed_id(), claimed_id()] == [paused, late, None]


# ---- what a worker can do


def test_a_job_that_asks_for_a_gpu_waits_for_a_worker_of_that_queue() -> None:
    gpu, automatic, cpu = submit(device="cuda"), submit(device="auto"), submit(device="cpu")
    plain = Offer(worker="w", queues=("compress",))
    assert [claimed_id(plain) for _ in range(3)] == [automatic, cpu, None]
    assert claimed_id(Offer(worker="w", queues=("gpu",))) == gpu


def test_a_worker_of_two_queues_takes_them_as_one_line() -> None:
    first, second, urgent = submit(device="cuda"), submit(), submit(device="cuda", priority=1)
    assert [claimed_id() for _ in range(3)] == [urgent, first, second]


def test_a_job_that_needs_more_memory_is_left_to_a_larger_worker() -> None:
    large, small = submit(memory_bytes=8 * GIB, priority=9), submit(memory_bytes=2 * GIB)
    modest = submit()
    four = Offer(worker="w", queues=("compress",), memory_bytes=4 * GIB)
    unknown = Offer(worker="w", queues=("compress",))
    assert claimed_id(four) == small
    assert claimed_id(unknown) == modest
    assert claimed_id(four) is None
    assert claimed_id(Offer(worker="w", queues=("compress",), memory_bytes=8 * GIB)) == large


def test_inspections_go_first_where_a_worker_takes_both() -> None:
    training, inspection = submit(priority=100), submit(kind="inspect")
    assert [claimed_id(), claimed_id()] == [inspection, training]


# ---- between tenants


def test_tenants_take_turns_however_many_one_has_waiting() -> None:
    acme, zeta = tenant("acme"), tenant("zeta")
    many = [submit(acme) for _ in range(4)]
    few = [submit(zeta) for _ in range(2)]
    order = [claimed_id() for _ in range(6)]
    assert order[0] == many[0]  # all else equal, whose job waits longest
    assert order[1] == few[0]
    assert set(order[2:4]) == {many[1], few[1]}
    assert order[4:] == many[2:]


def test_a_priority_moves_nobody_elses_turn() -> None:
    acme, zeta = tenant("acme"), tenant("zeta")
    mine = [submit(acme, priority=100) for _ in range(3)]
    others = [submit(zeta, priority=-100) for _ in range(2)]
    order = [claimed_id() for _ in range(4)]
    assert set(order) == {*mine[:2], *others}


def test_running_jobs_count_by_weight() -> None:
    heavy, light = tenant("heavy", weight=3.0), tenant("light")
    owner = {submit(name): name for name in [light] * 8 + [heavy] * 8}
    order = [owner[str(claimed_id())] for _ in range(8)]
    assert (order.count(heavy), order.count(light)) == (6, 2)


def test_who_did_less_lately_goes_first() -> None:
    busy, modest = tenant("busy"), tenant("modest")
    did(busy, 600)
    did(modest, 60)
    older, newer = submit(busy), submit(modest)
    assert [claimed_id(), claimed_id()] == [newer, older]


def test_work_counts_by_weight() -> None:
    heavy, light = tenant("heavy", weight=10.0), tenant("light")
    did(heavy, 500)
    did(light, 60)
    first, second = submit(light), submit(heavy)
    assert [claimed_id(), claimed_id()] == [second, first]


def test_only_the_work_within_the_window_counts() -> None:
    """What ended before is forgotten, and of what reaches into it the part inside counts. Inspections do not."""
    hours = settings().fair_share_hours
    before, across, lately = tenant("before"), tenant("across"), tenant("lately")
    did(before, 50_000, hours_ago=hours + 0.1)
    did(before, 50_000, kind="inspect")
    did(across, 50_000, hours_ago=hours - 0.1)  # 360 s inside
    did(lately, 1_000)
    ids = {name: submit(name) for name in (lately, across, before)}
    assert [claimed_id() for _ in range(3)] == [ids[before], ids[across], ids[lately]]


def test_what_runs_counts_until_now() -> None:
    acme, zeta = tenant("acme"), tenant("zeta")
    for name, seconds in ((acme, 500), (zeta, 100)):
        submit(name)
        running = claim()
        assert running is not None
        with db.transaction() as session:
            started = db.db_now() - seconds
            session.execute(
                update(Attempt).where(Attempt.job_id == running.job_id).values(started_at=started)
            )
    older, newer = submit(acme), submit(zeta)
    assert [claimed_id(), claimed_id()] == [newer, older]


def test_inspections_of_many_tenants_take_turns_too() -> None:
    acme, zeta = tenant("acme"), tenant("zeta")
    many = [submit(acme, "inspect") for _ in range(3)]
    one = submit(zeta, "inspect")
    assert [claimed_id(), claimed_id()] == [many[0], one]


def test_a_tenant_at_its_limit_is_passed_over_until_one_of_its_jobs_ends() -> None:
    acme, zeta = tenant("acme", max_running_jobs=1), tenant("zeta")
    mine = [submit(acme), submit(acme)]
    [submit(zeta) for _ in range(2)]
    first = claim()
    assert first is not None
    assert first.job_id == mine[0]
    assert mine[1] not in (claimed_id(), claimed_id(), claimed_id())
    with db.transaction() as session:
        jobs.finish(session, first, {})
    assert claimed_id() == mine[1]


# ---- races


CLAIMER = """
import sys
from app import db
from app.scheduling import schedule
db.configure(sys.argv[1])
while True:
    with db.transaction() as session:
        claim = schedule.claim_next(session, schedule.Offer(worker=sys.argv[2], queues=("compress", "inspect")))
    if claim is None:
        break
    print(claim.job_id)
"""


def test_processes_that_race_claim_every_job_exactly_once(database: str) -> None:
    """Of tenants with and without a limit, which is passed by none."""
    owners = [tenant("a"), tenant("b", max_running_jobs=7), tenant("c", max_running_jobs=5), tenant("d")]
    ids = {submit(owner): owner for owner in owners for _ in range(25)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database, str(name)], stdout=subprocess.PIPE, text=True
        )
        for name in range(3)
    ]
    claimed = [job_id for racer in racers for job_id in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(claimed) == len(set(claimed)) == 25 + 7 + 5 + 25
    with db.reading() as session:
        attempts = session.execute(select(Attempt.job_id, Attempt.n)).all()
    assert sorted(attempts) == sorted((job_id, 1) for job_id in claimed)
    counts = [sum(ids[job_id] == owner for job_id in claimed) for owner in owners]
    assert counts == [25, 7, 5, 25]


def test_a_worker_that_loses_a_race_takes_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its claim another one was quicker."""
    first, second = submit(), submit()
    look, beaten = schedule._next, threading.Event()

    def slow_look(session: Any, offer: Offer) -> str | None:
        found = look(session, offer)
        if found == first and not beaten.is_set():
            beaten.set()
            session.execute(update(Job).where(Job.id == first).values(state="running", attempt=1))
        return found

    monkeypatch.setattr(schedule, "_next", slow_look)
    with db.transaction() as session:
        claimed = schedule.claim_next(session, ANY)
    assert claimed is not None
    assert claimed.job_id == second
