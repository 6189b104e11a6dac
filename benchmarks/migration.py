"""How long a migration takes, and what it costs those who work meanwhile: a large database of the version before.

    python -m benchmarks.migration                        # 100,000 jobs, SQLite in a temporary folder
    python -m benchmarks.migration --database postgresql://postgres@/NAME?host=/tmp   # an empty database

Four processes of the version before (`tests.old_process`) submit, claim, beat and finish all the time, in that
version's SQL, from threads of their own. docs/operations.md has the output.
"""

import argparse
import tempfile
import time
from pathlib import Path

from sqlalchemy import Engine, text

from app import db
from app.database.migrate import upgrade
from tests.old_process import BEFORE, OldProcess

_EVENTS = 5


def fill(engine: Engine, num_jobs: int) -> None:
    """Jobs that ended, with their events, an attempt and an artifact each."""
    jobs = [{"id": f"job_{n:08}", "at": float(n)} for n in range(num_jobs)]
    events = [{"id": job["id"], "at": job["at"], "seq": seq} for job in jobs for seq in range(1, _EVENTS + 1)]
    spec = '{"steps": [' + ", ".join(['{"method": "distill", "epochs": 10}'] * 10) + "]}"
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, kind, queue, labels, spec, fingerprint, state, version, last_seq, attempt, "
                "failures, created_at, finished_at, result, tenant_id) VALUES (:id, 'compress', 'compress', '{}', "
                f":spec, 'f', 'succeeded', 5, {_EVENTS}, 1, 0, :at, :at, :spec, 'ten_default')"
            ),
            [job | {"spec": spec} for job in jobs],
        )
        connection.execute(
            text("INSERT INTO attempts (job_id, n, worker, started_at) VALUES (:id, 1, 'w', :at)"), jobs
        )
        connection.execute(
            text("INSERT INTO events (job_id, seq, at, type, data) VALUES (:id, :seq, :at, 'log', '{}')"),
            events,
        )
        connection.execute(
            text(
                "INSERT INTO artifacts (id, job_id, step, kind, name, sha256, size_bytes, metrics, created_at, "
                "tenant_id) VALUES ('art_' || :id, :id, 1, 'final', 'a', 's', 1, '{}', :at, 'ten_default')"
            ),
            jobs,
        )


def measure(url: str, num_jobs: int) -> None:
    upgrade(url, BEFORE)
    engine = db.connect(url, patient=True)
    fill(engine, num_jobs)
    processes = [OldProcess(engine, f"w{n}-") for n in range(4)]
    for process in processes:
        process.__enter__()
    time.sleep(2)
    usual = max(max(process.waits) for process in processes)
    for process in processes:
        process.waits.clear()
    began = time.monotonic()
    upgrade(url)
    seconds = time.monotonic() - began
    time.sleep(1)
    for process in processes:
        process.__exit__()
    failures = [process.failure for process in processes if process.failure is not None]
    longest = max(max(process.waits) for process in processes)
    name = engine.dialect.name
    engine.dispose()
    print(
        "| database | jobs | migration | longest transaction before, during | failed |\n|---|---|---|---|---|"
    )
    print(f"| {name} | {num_jobs} | {seconds:.2f} s | {usual:.2f} s, {longest:.2f} s | {len(failures)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", help="URL of an empty PostgreSQL database; default: a new SQLite file")
    parser.add_argument("--jobs", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.database or f"sqlite:///{Path(folder) / 'large.db'}", given.jobs)


if __name__ == "__main__":
    main()
