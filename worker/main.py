"""The worker process:

`python -m worker.main --queues compress,gpu,inspect`. One job at a time, one process a device.

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
from celery.platforms import EX_OK, SecurityWarning
from celery.worker import state as celery_state
from sqlalchemy.exc import DBAPIError

from app import logs
from app.access.door import CannotStartError
from app.db import transaction
from app.scheduling import workers
from app.scheduling.outbox import Outbox
from app.scheduling.queue import QUEUES, TASK, celery_app
from app.scheduling.schedule import Claim, Offer
from app.settings import settings
from app.starting import gpu, start
from app.starting.parent import end_with_parent, end_with_stdin
from worker import room, supervisor
from worker.hands import Hands
from worker.orders import machine_bytes, num_cores, num_threads
from worker.warm_parent import WarmParent

log = logging.getLogger(__name__)

WORKER_ID = f"{socket.gethostname()}:{os.getpid()}"


def offer(queues: list[str]) -> Offer:
    """What this machine can do. Of a machine with a GPU that GPU's memory counts: its jobs compute there."""
    memory_bytes = settings().worker_memory_bytes
    if memory_bytes is None:
        memory_bytes = (gpu.memory_bytes() if gpu.present() else None) or machine_bytes()
    # What people see in the list of workers. The child, which has torch, decides what it really computes on.
    device = "cuda" if gpu.present() else f"cpu ({platform.machine()}, {num_cores()} cores)"
    return Offer(worker=WORKER_ID, queues=tuple(queues), memory_bytes=memory_bytes, device=device)


class Presence:
    """Tells the database, every few seconds, that this worker lives and what it does."""

    def __init__(self, offer: Offer, hands: Hands) -> None:
        self._offer = offer
        self._hands = hands
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, if the database hears it."""
        self._ended.set()
        self._thread.join(5.0)
        try:
            with transaction() as session:
                workers.left(session, WORKER_ID)
        except DBAPIError as error:  # it will be missed in some seconds
            log.warning("goodbye not written: %s", error)

    def _tell(self) -> None:
        while True:
            try:
                with transaction() as session:
                    workers.seen(
                        session,
                        WORKER_ID,
                        queues=list(self._offer.queues),
                        device=self._offer.device or "",
                        memory_bytes=self._offer.memory_bytes,
                        trouble=self._hands.trouble,
                        job_id=self._hands.job_id,
                    )
            except DBAPIError as error:  # no claim reads this; the next round tells it again
                log.warning("presence not written: %s", error)
            if self._ended.wait(settings().lease_seconds / 4):
                return


def add_task(celery: Celery, hands: Hands) -> None:
    """Give the Celery application its one task."""

    @celery.task(name=TASK)
    def run_job(job_id: str) -> None:
        """`job_id` was queued: whichever job is next is done."""
        log.debug("told of %s", job_id)
        hands.look()


def main(arguments: list[str] | None = None) -> None:
    """Work until SIGTERM; the running job is then saved and handed back."""
    end_with_stdin()
    if os.environ.get("FEWBYTES_ENDS_WITH_STDIN") == "1":
        end_with_parent(signal.SIGTERM)  # the one set before an exec is kept, but not by every sandbox
    # It says "superuser privileges". In a container everybody is root, and no pickle is ever accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    logs.configure(settings().log_format, "WARNING")
    queues = _queues(arguments)
    # Celery would put handlers of its own in their place.
    signals.setup_logging.connect(_keep_our_logging, weak=False)
    _wait_for_database()
    offered = offer(queues)
    outbox = Outbox()

    def do(claim: Claim) -> str:
        outcome = supervisor.run(claim)
        outbox.wake()  # others of its sweep may go now, and other workers are idle
        return outcome

    hands = Hands(offered, do, ending=supervisor.PREEMPT, trouble=room.trouble)
    celery, presence = celery_app(), Presence(offered, hands)
    add_task(celery, hands)
    warm = WarmParent(supervisor.child_environment(num_threads(None)))
    # The signal's handler runs in the main thread between two instructions of it: setting a flag is all it
    # may do.
    signals.worker_shutting_down.connect(_preempt, weak=False)
    # Until Celery has its own: the hands work before that, even when the broker is not there to connect to.
    signal.signal(signal.SIGTERM, _end_early)
    presence.start()
    outbox.start()
    if settings().warm_start and set(queues) != {"inspect"}:  # inspections must not have torch
        warm.start()
    hands.start()
    try:
        celery.worker_main(_celery_arguments(queues))
    finally:
        # However Celery ended, the running job is saved and handed back before this process is gone.
        _preempt()
        hands.stop()
        warm.stop()
        outbox.stop()
        presence.stop()


def _queues(arguments: list[str] | None) -> list[str]:
    """Those asked for. Without a GPU not "gpu", whose jobs could only fail here."""
    parser = argparse.ArgumentParser(prog="fewbytes worker")
    parser.add_argument("--queues", help="comma-separated: " + ", ".join(QUEUES))
    asked = parser.parse_args(arguments).queues
    queues = asked.split(",") if asked is not None else list(QUEUES)
    if unknown := set(queues) - set(QUEUES):
        parser.error(f"no such queue: {', '.join(sorted(unknown))}; there are {', '.join(QUEUES)}")
    if "gpu" in queues and not gpu.present():
        queues.remove("gpu")
        if not queues:
            parser.error("this machine has no GPU, so there is nothing to do for the queue gpu")
        if asked is not None:
            log.warning("this machine has no GPU: jobs of the queue gpu are left to others")
    return queues


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


def _end_early(*_: Any) -> None:
    """As Celery's own handler does, which is not there yet: it goes on starting and ends at its first look at this.

    An exception thrown into whatever runs just now could be swallowed there, and the process would live for ever.
    """
    _preempt()
    celery_state.should_stop = EX_OK


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
