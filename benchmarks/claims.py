"""How long `claim_next`, a look that finds nothing, and a waiting job's place take with many rows.

    python -m benchmarks.claims [--waiting 1000 10000] [--database URL] [--calls 200]

On SQLite and on a PostgreSQL of its own, or on the one that --database names (emptied by nobody: give it an empty one).
Five tenants, 10,000 ended attempts of the last day, then as many waiting rows as asked for. After it, four processes
claim 1,000 rows, each exactly once. "CPU here" is the caller's own, which on SQLite is all of it.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, text, update

from app import db, jobs
from app.access import tenants
from app.database.migrate import upgrade
from app.scheduling import schedule
from app.scheduling.schedule import Offer
from app.settings import settings
from app.tables import Attempt, Job, Tenant
from tests.servers import embedded_postgres_url

OFFER = Offer(worker="bench:1", queues=("compress", "gpu"), memory_bytes=1 << 40, device="cpu")
NUM_PROCESSES = 4
CLAIMER = """
import sys
from app import db, schedule
db.configure(sys.argv[1])
offer = schedule.Offer(worker=sys.argv[2], queues=("compress", "gpu"))
while True:
    with db.transaction() as session:
        claim = schedule.claim_next(session, offer)
    if claim is None:
        break
    print(claim.job_id)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waiting", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--database")
    arguments = parser.parse_args()
    for number in arguments.waiting:
        for name, url in _databases(arguments.database):
            with url as address:
                upgrade(address)
                db.configure(address)
                _fill(number)
                _measure(f"{name}, {number} waiting", arguments.calls)
                db.close()
    for name, url in _databases(arguments.database):
        with url as address:
            upgrade(address)
            db.configure(address)
            _fill(1_000, ended=0)
            _race(name, address)
            db.close()


def _databases(given: str | None) -> list[tuple[str, Any]]:
    if given is not None:
        return [("given", contextlib.nullcontext(given))]
    return [("SQLite", _sqlite()), ("PostgreSQL", embedded_postgres_url())]


@contextlib.contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'fewbytes.db'}"


def _fill(waiting: int, ended: int = 10_000) -> None:
    with db.transaction() as session:
        owners = [
            *session.scalars(select(Tenant.id)),
            *(tenants.make(session, f"tenant {n}").id for n in range(4)),
        ]
        now = session.scalars(select(db.db_now())).one()
        for first in range(0, waiting + ended, 1000):
            numbers = range(first, min(first + 1000, waiting + ended))
            session.execute(insert(Job), [_row(n, owners[n % 5], now, n >= ended) for n in numbers])
            done = [
                {
                    "job_id": f"job_{n}",
                    "n": 1,
                    "worker": "w",
                    "started_at": now - 8 * n - 8,
                    "ended_at": now - 8 * n,
                }
                for n in numbers
                if n < ended
            ]
            if done:
                session.execute(insert(Attempt), done)
    if db.engine().dialect.name == "postgresql":
        with db.engine().begin() as connection:
            connection.execute(text("ANALYZE"))  # its autovacuum does that within a minute


def _row(number: int, owner: str, now: float, waits: bool) -> dict[str, Any]:
    return {
        "id": f"job_{number}",
        "tenant_id": owner,
        "kind": "compress",
        "queue": "compress",
        "labels": {},
        "spec": {},
        "fingerprint": "",
        "state": "queued" if waits else "succeeded",
        "priority": number % 3,
        "estimated_macs": 1e12,
        "created_at": now - 100_000 + number,
        "dispatched_at": now,
        "started_at": None if waits else now - 8 * number - 8,
        "finished_at": None if waits else now - 8 * number,
    }


def _measure(what: str, calls: int) -> None:
    def claim() -> None:
        with db.transaction() as session:
            claimed = schedule.claim_next(session, OFFER)
            assert claimed is not None
            jobs.finish(session, claimed, {})  # else the running ones alone would decide

    def look() -> None:
        with db.reading() as session:
            assert schedule.waits(session, OFFER)

    def place() -> None:
        with db.reading() as session:
            job = session.scalars(
                select(Job).where(Job.state == "queued").order_by(Job.id.desc()).limit(1)
            ).one()
            schedule.place(session, job)

    def due() -> None:
        with db.reading() as session:
            assert jobs.due(session) == []

    for name, call in (("claim and finish", claim), ("look", look), ("place", place), ("due", due)):
        print(f"{what:28} {name:17} {_times(call, calls)}")
    with db.transaction() as session:
        session.execute(update(Job).where(Job.state == "queued").values(memory_bytes=1 << 50))

    def look_in_vain() -> None:
        with db.reading() as session:
            assert not schedule.waits(session, OFFER)

    print(f"{what:28} {'look in vain':17} {_times(look_in_vain, calls)}   (all need more memory)")


def _times(call: Callable[[], None], number: int) -> str:
    for _ in range(5):
        call()
    spent, computed = [], []
    for _ in range(number):
        started, cpu = time.perf_counter(), time.thread_time()
        call()
        spent.append(1000 * (time.perf_counter() - started))
        computed.append(1000 * (time.thread_time() - cpu))
    p95 = statistics.quantiles(spent, n=20)[-1]
    return f"p50 {statistics.median(spent):6.1f} ms   p95 {p95:6.1f} ms   CPU here {statistics.median(computed):5.1f} ms"


def _race(name: str, address: str) -> None:
    started = time.perf_counter()
    racers = [
        subprocess.Popen([sys.executable, "-c", CLAIMER, address, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(NUM_PROCESSES)
    ]
    claimed = [racer.communicate()[0].split() for racer in racers]
    seconds = time.perf_counter() - started
    each = [len(ids) for ids in claimed]
    distinct = len({job_id for ids in claimed for job_id in ids})
    print(
        f"{name}: {NUM_PROCESSES} processes claimed {each} = {sum(each)} of 1000, {distinct} distinct, {seconds:.1f} s"
    )


if __name__ == "__main__":
    settings()
    main()
