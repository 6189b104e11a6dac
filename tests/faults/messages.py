"""The broker's worst: every message five times and in another order, its queues emptied, its connections cut."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from app.scheduling import queue
from app.settings import settings
from tests.faults.fakes import fake_rig, submit_work, wait_until_ended
from tests.faults.options import Options
from tests.faults.report import Row, judge
from tests.faults.rig import PartsRig

COPIES = 5


def run(options: Options) -> list[Row]:
    rows = []
    for on_sqlite in (True, False):
        with fake_rig(options, on_sqlite=on_sqlite) as rig:
            rows += [campaign(rig, options) for campaign in (repeated, emptied, cut)]
    return rows


def repeated(rig: PartsRig, options: Options, num_jobs: int = 100) -> Row:
    """Each message five more times, shuffled, before its job runs and while it does."""
    row = Row("messages delivered six times, reordered", rig.setup)
    work = submit_work(num_jobs, ticks=1)
    messages = list(work) * COPIES
    random.Random(options.seed).shuffle(messages)
    with _sending_to(rig):
        for job_id in messages:
            queue.send(job_id, "compress")
    row.tried = len(messages)
    seconds = wait_until_ended(rig, work)
    options.say(f"{num_jobs} jobs and {len(messages)} more messages in {seconds:.1f} s")
    return judge(row, work, rig.storage, max_failures=3)


def emptied(rig: PartsRig, options: Options, num_jobs: int = 100) -> Row:
    """All messages are wiped once they were sent."""
    row = Row("broker emptied", rig.setup)
    work = submit_work(num_jobs, ticks=1)
    with redis.Redis.from_url(rig.broker_url) as client:
        for _ in range(options.rounds):
            time.sleep(0.7)  # the outbox announces within half a second
            client.flushall()
            row.tried += 1
    row.recoveries.append(wait_until_ended(rig, work))
    options.say(f"{num_jobs} jobs ended {row.recoveries[-1]:.1f} s after the last FLUSHALL")
    return judge(row, work, rig.storage, max_failures=3)


def cut(rig: PartsRig, options: Options, num_jobs: int = 30) -> Row:
    """All connections to the broker are closed by it, again and again."""
    row = Row("broker closes all connections", rig.setup)
    work = submit_work(num_jobs, ticks=1)
    with redis.Redis.from_url(rig.broker_url) as client:
        for _ in range(options.rounds):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            row.tried += 1
            time.sleep(0.3)
    row.recoveries.append(wait_until_ended(rig, work))
    options.say(f"{num_jobs} jobs ended {row.recoveries[-1]:.1f} s after the last cut")
    return judge(row, work, rig.storage, max_failures=3)


@contextmanager
def _sending_to(rig: PartsRig) -> Iterator[None]:
    """Send by the service's own sender, from this process."""
    before = settings().broker_url
    settings().broker_url = rig.broker_url
    queue.reset()
    try:
        yield
    finally:
        queue.reset()
        settings().broker_url = before
