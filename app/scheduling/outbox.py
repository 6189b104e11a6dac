"""The thread that rings doorbells and sweeps, in every process of ours. Ringing twice is harmless.

A request never talks to the broker: it commits its row and calls `wake()`. So a broker that is dead, frozen
or emptied costs waiting jobs a second, in which idle workers look by themselves, and a client nothing.
"""

import logging
import threading
import time
from collections.abc import Callable

from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from app import jobs, sweeps
from app.db import reading, transaction
from app.scheduling import duties, queue
from app.settings import settings

log = logging.getLogger(__name__)

RING_SECONDS = 0.5
SWEEP_SECONDS = 0.5
# How long a sweeper that died is waited for. Its next look may be a round later.
SWEEPER_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0


class Outbox:
    """`start` it once per process. It outlives a dead database or broker: it logs, waits, and tries again."""

    def __init__(self) -> None:
        self._owner = duties.new_owner()
        self._ring = _Duty("ring", ring, every_seconds=RING_SECONDS)
        self._duties = [_Duty("sweep", self._sweep, every_seconds=SWEEP_SECONDS), self._ring]
        self._something_to_do = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A row was just queued: ring now, not at the next half second."""
        self._something_to_do.set()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Finish the round under way and end."""
        self._stopping.set()
        self._something_to_do.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for duty in self._duties:
                duty.do_if_due()
            pause = min(duty.due_at for duty in self._duties) - time.monotonic()
            if self._something_to_do.wait(max(pause, 0.01)):
                self._something_to_do.clear()
                self._ring.hurry()  # who queues a row has nothing to sweep, and the caller's answer would wait for it
        self._give_up()

    def _sweep(self) -> None:
        if sweep(self._owner):
            self.wake()  # what was mended waits for a worker now

    def _give_up(self) -> None:
        try:
            with transaction() as session:
                duties.give_up(session, self._owner)
        except SQLAlchemyError as error:  # the others wait until its time is over
            log.info("outbox: the duties were not given up: %s", str(error).splitlines()[0])


class _Duty:
    """Something done again and again; after failures less and less often, down to every five seconds."""

    def __init__(self, name: str, action: Callable[[], object], *, every_seconds: float) -> None:
        self._name = name
        self._action = action
        self._every_seconds = every_seconds
        self._failures = 0
        self.due_at = time.monotonic()

    def hurry(self) -> None:
        if not self._failures:
            self.due_at = time.monotonic()

    def do_if_due(self) -> None:
        if time.monotonic() < self.due_at:
            return
        try:
            self._action()
        except (SQLAlchemyError, BrokerError, KombuError, OSError) as error:
            self._failed(f"{type(error).__name__}: {error}")
        except Exception as error:  # this thread is the only one that rings: it must not end for a bug either
            log.exception("outbox: %s hit a bug", self._name)
            self._failed(repr(error))
        else:
            self._succeeded()

    def _failed(self, why: str) -> None:
        self._failures += 1
        pause = min(self._every_seconds * 2 ** min(self._failures, 10), LONGEST_PAUSE_SECONDS)
        self.due_at = time.monotonic() + pause
        if self._failures == 1:  # of the others, the end is told
            log.warning("outbox: %s failed, trying again until it works: %s", self._name, why.splitlines()[0])

    def _succeeded(self) -> None:
        if self._failures:
            log.info("outbox: %s works again after %d failures", self._name, self._failures)
        self._failures = 0
        self.due_at = time.monotonic() + self._every_seconds


def ring() -> int:
    """Announce, once, each row that may be claimed, and stamp it; how many. Raises when broker or database fails."""
    with reading() as session:
        new = jobs.due(session)
    sent: list[str] = []
    try:
        for job_id, queue_name in new:
            queue.send(job_id, queue_name)
            sent.append(job_id)
    finally:
        # Sent, then stamped: killed in between, it is sent twice. The other way round it would be sent late.
        if sent:
            with transaction() as session:
                jobs.mark_dispatched(session, sent)
    return len(sent)


def sweep(owner: str) -> int:
    """Mend what lost its worker, and sweeps in which nothing goes on, if this is the owner's duty; how many.

    Takes the write lock only to renew the duty, and when there is something to mend.
    """
    with reading() as session:
        if duties.is_anothers(session, "sweep", owner):
            return 0
    with transaction() as session:
        # Shorter than half a lease: a worker that swept too is no longer waited for when its job's lease ends.
        if not duties.hold(session, "sweep", owner, min(SWEEPER_SECONDS, settings().lease_seconds / 2)):
            return 0
    with reading() as session:
        has_lapsed, stuck = jobs.has_lapsed(session), sweeps.stuck(session)
    num_mended = 0
    if has_lapsed:
        with transaction() as session:
            num_mended += jobs.sweep(session)
    for sweep_id in stuck:
        with transaction() as session:
            sweeps.advance(session, sweep_id)
        num_mended += 1
    return num_mended
