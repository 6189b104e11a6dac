"""How long the table and the summary of a large sweep take, by what the results weigh.

    python -m benchmarks.tables [--jobs 1000] [--classes 0 20 60] [--database URL]

On SQLite and on a PostgreSQL of its own, or on the one that --database names (give it an empty one). The jobs are a grid
of points with ten seeds; each result has three stages, one of them with a confusion matrix of so many classes. "CPU here"
is the service's own, which on SQLite is all of it. Median of five.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app import db
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.analysis import reads
from app.analysis.summary import summarise
from app.database.migrate import upgrade
from app.sweeps import reads as sweeps
from app.tables import Sweep
from tests.app.analysis.made import child, result, stage, stored
from tests.servers import embedded_postgres_url

SEEDS, RUNS = 10, 5
STEPS = [{"method": "distill", "best_k": 5}, {"method": "quantize"}]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--classes", type=int, nargs="*", default=[0, 20, 60])
    parser.add_argument("--database")
    arguments = parser.parse_args()
    for name, url in _databases(arguments.database):
        with url as address:
            upgrade(address)
            db.configure(address)
            for classes in arguments.classes:
                weight = _fill(f"swp_{classes}", arguments.jobs, classes)
                print(f"{name}, {arguments.jobs} jobs, results of {weight:,} bytes")
                _measure(f"swp_{classes}")
            db.close()


def _databases(given: str | None) -> list[tuple[str, Any]]:
    if given is not None:
        return [("given", contextlib.nullcontext(given))]
    return [("SQLite", _sqlite()), ("PostgreSQL", embedded_postgres_url())]


@contextlib.contextmanager
def _sqlite() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'fewbytes.db'}"


def _fill(sweep_id: str, num_jobs: int, classes: int) -> int:
    """A sweep whose jobs have ended; returns the bytes of a result."""
    confusion = {"test": [[7] * classes] * classes}
    done = db.dumps(result(stage(1, "distill", confusion=confusion), stage(2, "quantize")))
    alphas = {"name": "alpha", "field": "/steps/0/alpha", "values": list(range(-(-num_jobs // SEEDS)))}
    with tenancy.transaction(DEFAULT) as session:
        spec = {"job": {}, "axes": [alphas], "seeds": SEEDS}
        session.add(Sweep(id=sweep_id, labels={}, spec=spec, fingerprint="f" * 64, shared={}, created_at=0.0))
        children = [child(n, {}, point=n // SEEDS, seed=n % SEEDS, steps=STEPS) for n in range(num_jobs)]
        for each in children:
            each.job.id = f"{sweep_id.replace('swp', 'job')}_{each.job.id}"
            each.job.sweep_id, each.job.point = sweep_id, each.point
        stored(session, children)
    # Written once and copied: building a thousand takes minutes.
    value = ":result" if db.engine().dialect.name == "sqlite" else "CAST(:result AS jsonb)"
    with db.transaction() as session:
        statement = text(f"UPDATE jobs SET result = {value} WHERE sweep_id = :id")
        session.execute(statement, {"result": done, "id": sweep_id})
    return len(done)


def _measure(sweep_id: str) -> None:
    def table() -> list[dict[str, Any]]:
        with tenancy.reading(DEFAULT) as session:
            return reads.gather(session, sweeps.children(session, sweep_id)).rows()

    rows = table()
    _time("table", table)
    _time("summary of it", lambda: summarise(rows, ["alpha"]))


def _time(name: str, act: Callable[[], Any]) -> None:
    wall, cpu = [], []
    for _ in range(RUNS):
        started, used = time.perf_counter(), time.process_time()
        act()
        wall.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - used))
    print(f"  {name:14} {statistics.median(wall):6.0f} ms, CPU here {statistics.median(cpu):6.0f} ms")


if __name__ == "__main__":
    main()
