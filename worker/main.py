"""The worker process:

`python -m worker.main --queues compress,inspect`. One job at a time, one process a device.

It hears doorbells, claims rows, and supervises their children. It never imports torch: what may crash, leak
or hold a GPU lives in the child.
"""

import argparse
import logging
import os
import platform
import signal
import socket
import sys
import threading
import warnings
from typing import Any

from celery import Celery, signals
from celery.platforms import SecurityWarning
from sqlalchemy.exc import DBAPIError

from app import jobs, logs, start, workers
from app.db import transaction
from app.door import CannotStartError
from app.outbox import Outbox
from app.parent import end_with_parent, end_with_stdin
from app.queue import QUEUES, TASK, celery_app
from app.settings import settings
from worker import supervisor
from worker.orders import has_gpu, num_cores

log = logging.getLogger(__name__)

WORKER_ID = f"{socket.gethostname()}:{os.getpid()}"


def device() -> str:
    """What people see in the list of workers.

    The child, which has torch, decides what it really computes on.
    """
    return "cuda" if has_gpu() else f"cpu ({platform.machine()}, {num_cores()} cores)"


class Presence:
    """Tells the database, every few seconds, that this worker lives and what it does."""

    def __init__(self, queues: list[str]) -> None:
        self._queues = queues
        self._ended = threading.Event()
        self.job_id: str | None = None

    def start(self) -> None:
        threading.Thread(target=self._tell, name="presence", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def _tell(self) -> None:
        while True:
            try:
                with transaction() as session:
                    workers.seen(session, WORKER_ID, queues=self._queues, device=device(), job_id=self.job_id)
            except DBAPIError as error:  # only people read this; the next round tells it again
                log.warning("presence not written: %s", error)
            if self._ended.wait(settings().lease_seconds / 4):
                return


def add_task(celery: Celery, presence: Presence) -> None:
    """Give the Celery application its one task."""

    @celery.task(name=TASK)
    def run_job(job_id: str) -> None:
        with transaction() as session:
            claim = jobs.claim(session, job_id, worker=WORKER_ID, device=device())
        if claim is None:
            return  # a stale doorbell: somebody else has it, or it ended
        presence.job_id = job_id
        try:
            log.warning("%s: attempt %d: %s", job_id, claim.attempt, supervisor.run(claim))
        finally:
            presence.job_id = None


def main(arguments: list[str] | None = None) -> None:
    """Work until SIGTERM; the running job is then saved and handed back."""
    end_with_stdin()
    if os.environ.get("FEWBYTES_ENDS_WITH_STDIN") == "1":
        end_with_parent(signal.SIGTERM)  # the one set before an exec is kept, but not by every sandbox
    parser = argparse.ArgumentParser(prog="fewbytes worker")
    parser.add_argument("--queues", default=",".join(QUEUES), help="comma-separated: " + ", ".join(QUEUES))
    queues = parser.parse_args(arguments).queues.split(",")
    if unknown := set(queues) - set(QUEUES):
        parser.error(f"no such queue: {', '.join(sorted(unknown))}; there are {', '.join(QUEUES)}")
    # It says "superuser privileges". In a container everybody is root, and no pickle is ever accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    logs.configure(settings().log_format, "WARNING")
    # Celery would put handlers of its own in their place.
    signals.setup_logging.connect(_keep_our_logging, weak=False)
    _wait_for_database()
    celery, presence, outbox = celery_app(), Presence(queues), Outbox()
    add_task(celery, presence)
    # The signal's handler runs in the main thread between two instructions of it: setting a flag is all it
    # may do.
    signals.worker_shutting_down.connect(_preempt, weak=False)
    presence.start()
    outbox.start()
    try:
        celery.worker_main(_celery_arguments(queues))
    finally:
        outbox.stop()
        presence.stop()


def _wait_for_database() -> None:
    """Before anything else: a worker without a database takes no job. Ends the process where waiting is vain."""
    ending = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ending.set())
    try:
        if not settings().broker_url:
            raise CannotStartError("There is no broker: set BROKER_URL, or start with `fewbytes up`.")
        if not start.wait_for_database(ending):
            sys.exit(0)
    except CannotStartError as error:
        sys.stderr.write(f"fewbytes worker: {error}\n")
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_our_logging(**_: Any) -> None:
    """Celery configures logging only where nobody listens to this signal."""


def _preempt(**_: Any) -> None:
    supervisor.PREEMPT.set()


def _celery_arguments(queues: list[str]) -> list[str]:
    return [
        "--quiet",  # no banner
        "worker",
        "--pool=threads",
        "--concurrency=1",
        f"--queues={','.join(queues)}",
        f"--hostname={WORKER_ID.replace(':', '-')}@fewbytes",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]


if __name__ == "__main__":
    main()
