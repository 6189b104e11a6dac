"""The worker's one pair of hands: a thread that looks for a job, does it, and looks again.

A message in the queue makes it look at once; otherwise it looks by itself every `poll_seconds`. So a lost message costs
a second, and a broker that is dead or frozen stops nothing.
"""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from app.db import reading, transaction
from app.jobs import Claim
from app.scheduling import schedule
from app.scheduling.schedule import Offer
from app.settings import settings

log = logging.getLogger(__name__)


def _no_trouble() -> str | None:
    return None


class Hands:
    """`start` once, `stop` before the process ends. One job at a time: nobody else claims in this process."""

    def __init__(
        self,
        offer: Offer,
        do: Callable[[Claim], object],
        *,
        ending: threading.Event,
        trouble: Callable[[], str | None] = _no_trouble,
    ) -> None:
        """`do`: carries a claim to its end. `ending`: nothing new is begun once it is set. `trouble`: why this worker
        should take no job just now, in a sentence."""
        self._offer = offer
        self._do = do
        self._ending = ending
        self._ask_for_trouble = trouble
        self._changed = threading.Condition()
        self._asked = 0
        self._looked = 0
        self._stopping = False
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="hands")
        self.job_id: str | None = None
        self.trouble: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new and wait for the running job, which `ending` has told to be saved and handed back."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look for work now. Returns after a look that began later than this call, with what it found done.

        Until then the caller's message counts as being worked on, so the broker gives this worker no other: those
        are for workers that are idle.
        """
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._looked >= mine or self._is_over)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_ending():
                    break
                asked = self._asked
            found = self._look_once()
            with self._changed:
                self._looked = asked
                self._changed.notify_all()
            if not found:
                self._rest(asked)
        with self._changed:
            self._is_over = True  # whoever waits for a look waits in vain
            self._changed.notify_all()

    def _rest(self, asked: int) -> None:
        """Until somebody asked for another look than that, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked > asked or self._is_ending(), settings().poll_seconds)

    def _is_ending(self) -> bool:
        return self._stopping or self._ending.is_set()

    def _look_once(self) -> bool:
        """Do the job whose turn it is; whether there was one."""
        try:
            claim = self._claim()
            if claim is None:
                return False
            self.job_id = claim.job_id
            log.warning("%s: attempt %d: %s", claim.job_id, claim.attempt, self._do(claim))
        except SQLAlchemyError as error:
            log.warning("cannot look for jobs: %s", str(error).splitlines()[0])
            return False
        except Exception:  # this thread is the worker: a bug must not end it while the process seems to live
            log.exception("a job met a bug of the worker")
            return False
        finally:
            self.job_id = None
        return True

    def _claim(self) -> Claim | None:
        self.trouble = self._ask_for_trouble()
        if self.trouble is not None:
            return None
        with reading() as session:
            if not schedule.waits(session, self._offer):
                return None
        with transaction() as session:
            return schedule.claim_next(session, self._offer)
