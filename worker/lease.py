"""The heartbeat of a claim, in a thread of its own: no slow disk and no chatty child delays it."""

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from app import jobs
from app.db import transaction
from app.settings import settings

log = logging.getLogger(__name__)


class Lease:
    """Renews the claim every min(lease / 4, 1) seconds and notices a cancel or a pause while it does.

    `cancelling`, `pausing`: that was asked. `lost`: another attempt counts now, or the database was away until the
    lease must have lapsed: whoever holds this lease kills its child and writes nothing more.
    """

    def __init__(self, claim: jobs.Claim) -> None:
        self._claim = claim
        self._ended = threading.Event()
        self._renewed_at = time.monotonic()
        self.cancelling = threading.Event()
        self.pausing = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(min(settings().lease_seconds / 4, 1.0)):
            # Taken before the statement: the database's lease can only end later than this clock says.
            now = time.monotonic()
            try:
                with transaction() as session:
                    state = jobs.heartbeat(session, self._claim)
            except jobs.Fenced:
                self.lost.set()
                return
            except SQLAlchemyError as error:  # a pool's timeout as well: without this thread the job is lost
                if time.monotonic() - self._renewed_at > settings().lease_seconds:
                    log.error(
                        "%s: no heartbeat for a whole lease, giving the job up: %s", self._claim.job_id, error
                    )
                    self.lost.set()
                    return
                log.warning("%s: heartbeat failed, trying on: %s", self._claim.job_id, error)
                continue
            self._renewed_at = now
            if state == "cancelling":
                self.cancelling.set()
            if state == jobs.PAUSING:
                self.pausing.set()
            else:
                self.pausing.clear()  # resumed before the child was asked to stop
