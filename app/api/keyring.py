"""Which secret opens the door, remembered for a moment so that not every request asks the database."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from app.access import keys
from app.db import db_now, reading, transaction

REMEMBERED_SECONDS = 5.0
"""How long another process's revocation may take to be noticed here; this process's own counts at once."""

_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Opened:
    """A key that is in force, less its secret."""

    key_id: str
    tenant_id: str
    scope: keys.Scope
    until: float
    """By this process's clock: what is remembered counts no longer than that."""


class Keyring:
    """The keys in use. `look_up` and `is_needed` wait for the database: call them in a thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By the secret's digest: the secret itself stays nowhere.
        self._opened: OrderedDict[bytes, Opened] = OrderedDict()
        self._changes = 0
        self._has_keys = False
        self._has_none_until = -1.0

    def remembered(self, secret: str) -> Opened | None:
        opened = self._opened.get(_digest(secret))
        return opened if opened is not None and self._clock() < opened.until else None

    def look_up(self, secret: str) -> Opened | None:
        """What the secret opens; None when it opens nothing. One query, and at most once a minute a write."""
        began, changes = self._clock(), self._changes  # before the query, which may be older than its answer
        with reading() as session:
            key = keys.find(session, secret)
            if key is None:
                return None
            now = session.scalar(select(db_now())) or 0.0
        if keys.is_stale(key, now):
            with transaction() as session:
                keys.mark_used(session, key.id)
        left = REMEMBERED_SECONDS if key.expires_at is None else min(REMEMBERED_SECONDS, key.expires_at - now)
        opened = Opened(key.id, key.tenant_id, keys.scope_of(key), began + left)
        if changes == self._changes:
            self._opened[_digest(secret)] = opened
        if len(self._opened) > _MOST_REMEMBERED:
            self._opened.popitem(last=False)
        return opened

    def is_needed(self) -> bool:
        """Whether there ever was a key. It stays so: revoking the last one must not open the door again."""
        began = self._clock()
        with reading() as session:
            self._has_keys = keys.any_ever(session)
        self._has_none_until = began + REMEMBERED_SECONDS
        return self._has_keys

    def was_needed(self) -> bool | None:
        """`is_needed` without asking the database; None when it must be asked."""
        if not self._has_keys and self._clock() >= self._has_none_until:
            return None
        return self._has_keys

    def forget(self) -> None:
        """A key was made or revoked here, and committed."""
        self._changes += 1
        self._opened.clear()
        self._has_none_until = -1.0


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
