"""Jobs as a page of plain Python, without a database: what `app.jobs` must do, for comparison.

One `ModelJob` is one job. Each method is a verb; it returns or raises what the verb must, by name.
"""

from dataclasses import dataclass, field

from tests.faults.checker import LOST

MAX_FAILURES = 3
FENCED = "Fenced"
FINISHED, NOT_RETRYABLE, CANCELLING = "JOB_FINISHED", "JOB_NOT_RETRYABLE", "JOB_CANCELLING"


@dataclass
class ModelJob:
    state: str = "queued"
    attempt: int = 0
    failures: int = 0
    lapsed: bool = False
    """Its lease is over, and nobody has noticed yet."""
    paused: bool = False
    waits: bool = False
    """For the time of its next attempt."""
    outcomes: list[str | None] = field(default_factory=list)
    """Of each attempt; None: it goes on."""
    num_events: int = 1
    num_artifacts: int = 0

    @property
    def held(self) -> bool:
        return self.state in ("running", "cancelling")

    def holds(self, attempt: int) -> bool:
        return self.held and attempt == self.attempt

    def claim(self) -> int | None:
        """The attempt's number; None: there is nothing to claim."""
        if self.state != "queued" or self.paused or self.waits:
            return None
        self.attempt += 1
        self.outcomes.append(None)
        self.lapsed = False
        self._move("running")
        return self.attempt

    def heartbeat(self, attempt: int) -> str:
        if not self.holds(attempt):
            return FENCED
        self.lapsed = False
        return "pausing" if self.state == "running" and self.paused else self.state

    def record(self, attempt: int, num_events: int) -> str | None:
        if not self.holds(attempt):
            return FENCED
        self.num_events += num_events
        return None

    def finish(self, attempt: int, num_artifacts: int) -> str | None:
        if not self.holds(attempt):
            return FENCED
        self._end("succeeded")
        self._move("succeeded", num_artifacts)
        return None

    def fail(self, attempt: int, outcome: str) -> str | None:
        if not self.holds(attempt):
            return FENCED
        self._end(outcome)
        self._move("failed")
        return None

    def release(self, attempt: int, outcome: str) -> str:
        if not self.holds(attempt):
            return FENCED
        self._end(outcome)
        counts = outcome in LOST
        self.failures += counts
        if self.state == "cancelling":
            self._move("cancelled")
        elif counts and self.failures >= MAX_FAILURES:
            self._move("failed")
        else:
            self._move("queued")
            # The first loss costs no pause, unless only time can mend it.
            self.waits = counts and (self.failures > 1 or outcome == "disk_full")
        return self.state

    def finish_cancel(self, attempt: int, num_artifacts: int) -> str | None:
        if not self.holds(attempt) or self.state != "cancelling":
            return FENCED
        self._end("cancelled")
        self._move("cancelled", num_artifacts)
        return None

    def cancel(self) -> str | None:
        if self.state in ("succeeded", "failed", "cancelled"):
            return FINISHED
        if self.state != "cancelling":
            self._move("cancelled" if self.state == "queued" else "cancelling")
        return None

    def pause(self) -> str | None:
        if self.state in ("succeeded", "failed", "cancelled"):
            return FINISHED
        if self.state == "cancelling":
            return CANCELLING
        self._hold(True)
        return None

    def resume(self) -> str | None:
        if self.state in ("succeeded", "failed", "cancelled"):
            return FINISHED
        self._hold(False)
        return None

    def _hold(self, paused: bool) -> None:
        self.num_events += paused != self.paused
        self.paused = paused

    def retry(self) -> str | None:
        if self.state not in ("failed", "cancelled"):
            return NOT_RETRYABLE
        self.failures = 0
        self.waits = False
        self._move("queued")
        return None

    def sweep(self) -> bool:
        """Whether there was something to mend."""
        if not (self.held and self.lapsed):
            return False
        self.release(self.attempt, "worker_lost")
        return True

    def _end(self, outcome: str) -> None:
        self.outcomes[-1] = outcome
        self.lapsed = False

    def _move(self, state: str, num_artifacts: int = 0) -> None:
        self.state = state
        if state not in ("queued", "running"):
            self.paused = False
        self.num_events += 1 + num_artifacts
        self.num_artifacts += num_artifacts
