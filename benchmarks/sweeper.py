"""How long a lapsed job waits when the process that sweeps for all is killed at that very moment.

    python -m benchmarks.sweeper [--kills 20] [--database URL]

Without a URL: a SQLite file of its own. A database that is named must be migrated and empty.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import select, update

from app import db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.database.migrate import upgrade
from app.db import db_now, reading, transaction
from app.scheduling import outbox
from app.tables import Duty, Job

_PROCESS = """
import sys, time
from app import db, outbox
db.configure(sys.argv[1])
outbox.Outbox().start()
print("started", flush=True)
time.sleep(3600)
"""


def start(url: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"BROKER_URL": ""}
    started = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, url],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def holders_pid() -> int | None:
    with reading() as session:
        owner = session.scalar(select(Duty.owner).where(Duty.name == "sweep", Duty.until > db_now()))
    return int(owner.split(":")[1]) if owner else None


def seconds_until_mended(processes: "list[subprocess.Popen[str]]", url: str) -> float:
    """Kill the holder, let a lease lapse, and wait for another process."""
    while (pid := holders_pid()) is None:
        time.sleep(0.01)
    time.sleep(random.random())
    with tenancy.transaction(DEFAULT) as session:
        job_id = jobs.submit(session, kind="compress", spec={})[0].id
    with transaction() as session:
        assert jobs.claim(session, job_id, worker="dead:1")
    (holder,) = (process for process in processes if process.pid == pid)
    holder.kill()
    holder.wait()
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=db_now() - 0.001))
    began = time.monotonic()
    while True:
        with reading() as session:
            if session.scalar(select(Job.state).where(Job.id == job_id)) != "running":
                break
        time.sleep(0.005)
    took = time.monotonic() - began
    processes.remove(holder)
    processes.append(start(url))
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--database")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.database or f"sqlite:///{Path(folder) / 'fewbytes.db'}"
        if not arguments.database:
            upgrade(url)
        db.configure(url)
        processes = [start(url) for _ in range(3)]
        try:
            took = sorted(seconds_until_mended(processes, url) for _ in range(arguments.kills))
        finally:
            for process in processes:
                process.kill()
                process.wait()
            db.close()
    print(
        f"{len(took)} kills of the sweeper, {outbox.SWEEPER_SECONDS:g} s lease, a look every {outbox.SWEEP_SECONDS:g} s: "
        f"mended by another after p50 {statistics.median(took):.2f} s, longest {took[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
