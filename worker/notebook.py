"""What a child said and the database does not know yet: collected, then written in few transactions."""

import time
from typing import Any

from sqlalchemy.orm import Session

from app import jobs
from app.jobs import Claim

_WRITE_EVERY_SECONDS = 1.0
# A trainer that prints every batch must not fill the database: the first lines say what is wrong, the rest
# repeats it.
MAX_LOG_LINES = 2_000


class Notebook:
    """Notes of one attempt.

    `due` says when to `write`; after a commit, `written` forgets what was written.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._progress: dict[str, Any] | None = None
        self._phase: str | None = None
        self._urgent = False
        self._write_at = 0.0
        self._num_log_lines = 0

    def add(self, message: dict[str, Any]) -> None:
        """Take one message of the child.

        One that no version of this file knows is a log line: nothing is lost in silence.
        """
        kind, data = message["type"], {key: value for key, value in message.items() if key != "type"}
        if kind == "log":
            self._log(data)
        elif kind == "metric":
            # A resumed trainer repeats a few epochs; within one write the last one counts, as it does in the
            # table.
            key = (data.get("seed"), data["step"], data.get("epoch"), data.get("split"), data["name"])
            self._metrics[key] = data
        elif kind == "progress":
            self._progress = data
        elif kind == "phase":
            self._phase, self._urgent = data["phase"], True
        elif kind == "stage":
            self._events.append(("stage", data))
            self._urgent = True
        else:
            self._log({"level": "warning", "message": f"unknown message {kind!r}"})

    def due(self) -> bool:
        return self._waiting() and (self._urgent or time.monotonic() >= self._write_at)

    def write(self, session: Session) -> None:
        """Write everything; the caller commits. Raises Fenced."""
        if not self._waiting():
            return
        events = list(self._events)
        if self._progress is not None:
            events.append(("progress", self._progress))
        jobs.record(
            session,
            self._claim,
            events=events,
            metrics=list(self._metrics.values()),
            phase=self._phase,
            progress=self._progress,
        )

    def written(self) -> None:
        self._events, self._metrics, self._progress, self._phase = [], {}, None, None
        self.postpone()

    def postpone(self) -> None:
        self._urgent, self._write_at = False, time.monotonic() + _WRITE_EVERY_SECONDS

    def _waiting(self) -> bool:
        return bool(self._events or self._metrics or self._progress or self._phase)

    def _log(self, data: dict[str, Any]) -> None:
        self._num_log_lines += 1
        if self._num_log_lines < MAX_LOG_LINES:
            self._events.append(("log", data))
        elif self._num_log_lines == MAX_LOG_LINES:
            message = f"more than {MAX_LOG_LINES} log lines in one attempt: the rest is dropped"
            self._events.append(("log", {"level": "warning", "message": message}))
