"""PostgreSQL that may be slow, frozen or gone: no statement and no connection waits for ever.

`statement_timeout` ends what a busy server takes too long over, waiting for a lock included. A server that is frozen
cannot do that, and its kernel still acknowledges every packet, so TCP notices nothing either: hence a clock on this
side, which hangs up.
"""

import threading
import time
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

T = TypeVar("T")

CONNECT_SECONDS = 3
STATEMENT_SECONDS = 10.0
"""The longest statement of the service takes milliseconds."""
SILENT_SECONDS = STATEMENT_SECONDS + 2.0
"""The server's own timeout comes first: that costs a statement, this one the connection."""
PING_SECONDS = 2.0
"""An idle connection is asked whether it lives before it is used."""
POOL_SECONDS = 5.0
"""How long a thread waits for another one's connection."""
# A frozen client must not hold its locks: the sweeper, which skips locked rows, would never mend its job.
IDLE_IN_TRANSACTION_SECONDS = 15.0
FAIL_FAST_SECONDS = 1.0
"""After a connection that timed out, the next ones fail at once for so long."""


class Connection(psycopg.Connection[Any]):
    """Hangs up on a server that says nothing for `patience_seconds`; None waits for ever."""

    patience_seconds: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Raises psycopg.OperationalError, and is closed then."""
        if timeout is not None or self.patience_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience_seconds)
        except errors._WaitTimeout:
            self.pgconn.finish()  # what it would answer later must not be taken for the answer to something else
            raise psycopg.OperationalError(
                f"the server said nothing for {self.patience_seconds:g} s"
            ) from None


def connect(url: URL, *, patient: bool, **arguments: Any) -> Engine:
    """An engine. `patient`: its statements take as long as they need, as those of a migration do."""
    made = create_engine(
        url,
        pool_size=10,
        max_overflow=20,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,  # a restarted server costs one ping, not one failed request per pooled connection
        connect_args={"connect_timeout": CONNECT_SECONDS},
        **arguments,
    )
    event.listen(made, "do_connect", _Connector(patient))
    if not patient:
        event.listen(made, "connect", _limit)
        # The pool pings between these two.
        event.listen(made, "checkout", lambda connection, *_: _set_patience(connection, SILENT_SECONDS))
        event.listen(made, "checkin", lambda connection, *_: _set_patience(connection, PING_SECONDS))
    return made


class _Connector:
    """Opens connections. While the server is silent one thread at a time waits for it; the others fail at once."""

    def __init__(self, patient: bool) -> None:
        self._patience_seconds = None if patient else SILENT_SECONDS
        self._silent = False
        self._next_try_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, _dialect: Any, _record: Any, positional: Any, named: Any) -> Connection:
        with self._lock:
            now = time.monotonic()
            if self._silent and now < self._next_try_at:
                raise psycopg.OperationalError("the server did not answer a moment ago")
            self._next_try_at = now + CONNECT_SECONDS + FAIL_FAST_SECONDS
        try:
            made = Connection.connect(*positional, **named)
        except errors.ConnectionTimeout:
            self._silent, self._next_try_at = True, time.monotonic() + FAIL_FAST_SECONDS
            raise
        except psycopg.Error:
            self._silent = False  # it was refused, which is quick: everybody may ask
            raise
        self._silent = False
        made.patience_seconds = self._patience_seconds
        return made


def _limit(connection: Connection, _record: Any) -> None:
    # Not in the startup message: poolers between us and the server refuse options there.
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS,
    }
    for name, seconds in limits.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds * 1000:.0f}"))
    connection.commit()


def _set_patience(connection: Connection | None, seconds: float) -> None:
    if connection is not None:  # None: it was found dead
        connection.patience_seconds = seconds
