"""Starting while something is still missing: what time may bring is waited for, what only a hand mends is refused."""

import logging
import threading

from app.access.door import CannotStartError
from app.database import outage

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.5


def refuse_hopeless() -> bool:
    """Whether the database can be used now. Says what is waited for. Raises CannotStartError where waiting is vain."""
    found = outage.now()
    if found is None:
        return True
    if not found.heals:
        raise CannotStartError(found.sentence)
    outage.say(found)
    return False


def wait_for_database(ending: threading.Event) -> bool:
    """Until the database can be used; says once what is missing. False when `ending` was set before.

    Raises CannotStartError where waiting is vain.
    """
    waited = False
    while not refuse_hopeless():
        waited = True
        if ending.wait(LOOK_AGAIN_SECONDS):
            return False
    if waited:
        log.warning("the database is there: starting")
    return True
