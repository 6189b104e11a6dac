"""Runs one claimed job: starts its child, keeps the lease, passes stop requests on, writes down what the
child says.

The child computes and knows no database; the supervisor writes and imports no torch. Whatever happens to the
child, or to the supervisor itself, becomes exactly one verb of `app.jobs`: finish, fail, release or finish_cancel.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.orm import Session

from app import retries
from app.db import transaction
from app.errors import Problem
from app.jobs import Claim, Fenced
from app.settings import settings
from app.storage import disk
from worker import orders, verdicts, work_folder
from worker.lease import Lease
from worker.leash import BrokenLineError, Leash
from worker.notebook import Notebook
from worker.starting import WARM_SOCKET, spawn
from worker.verdicts import Verb

log = logging.getLogger(__name__)

CHILD = [sys.executable, "-m", "worker.child"]
# Set when this process was told to end: every running job is checkpointed and handed back.
PREEMPT = threading.Event()
# A stop, a deadline or a lost lease is noticed this soon when the child says nothing.
_TICK_SECONDS = 0.2
# Why a child is asked to stop, and what it is told: it knows a stop that keeps the best student and one that keeps all.
_WORD = {"cancel": "cancel", "deadline": "cancel", "pause": "preempt", "preempt": "preempt"}
_OUTCOME = {"pause": "paused", "preempt": "preempted"}
_Found = TypeVar("_Found")


def run(claim: Claim, *, command: list[str] = CHILD, preempt: threading.Event = PREEMPT) -> str:
    """Do the claimed job to its end; returns the outcome of this attempt, for the log.

    "fenced" means that nothing was written because another attempt counts now.
    """
    with Lease(claim) as lease:
        try:
            try:
                order = _patiently(lease, lambda: orders.build(claim))
                return _Watch(claim, order, lease, preempt, command).run()
            except Fenced:
                raise
            except (
                Exception
            ) as error:  # left to its lease, the job would wait for that and nobody would know why
                outcome, verb = _of_our_own(claim, error)
                _write(lease, verb)
                return outcome
        except Fenced:
            log.warning("%s: attempt %d no longer counts", claim.job_id, claim.attempt)
            return "fenced"


def _of_our_own(claim: Claim, error: Exception) -> tuple[str, Verb]:
    """How an attempt ends that this process cannot go on with; its child is gone by then."""
    if isinstance(error, Problem):  # what the job names is gone
        return retries.outcome_of(error), verdicts.fail(claim, error)
    log.error("%s: attempt %d ends here", claim.job_id, claim.attempt, exc_info=error)
    if isinstance(error, OSError | MemoryError):  # the machine's fault: another attempt may fare better
        outcome = "disk_full" if disk.is_full(error) else "worker_lost"
        detail = f"The worker {claim.worker} could not go on: {str(error) or type(error).__name__}."
        return outcome, verdicts.release(claim, outcome=outcome, detail=detail)
    detail = f"A fault in the service, not in the request: {type(error).__name__}: {str(error)[:300]}. The log has the rest."
    return "service_error", verdicts.fail(claim, Problem(500, "INTERNAL_ERROR", detail))


@dataclass
class _Exit:
    """How the child ended: its exit code (None: it was killed by us), its last word, and why it was killed."""

    code: int | None
    last: dict[str, Any] | None
    reason: str | None = None


class _Watch:
    """One child's life."""

    def __init__(
        self, claim: Claim, order: dict[str, Any], lease: Lease, preempt: threading.Event, command: list[str]
    ) -> None:
        self.claim = claim
        self.order = order
        self.lease = lease
        self.preempt = preempt
        self.command = command
        self.notebook = Notebook(claim)
        self.last: dict[str, Any] | None = None
        self.asked: str | None = None
        """Why it was asked to stop: a key of `_WORD`."""
        self.deadline = time.monotonic() + (order.get("deadline_seconds") or float("inf"))
        self.kill_at = float("inf")

    def run(self) -> str:
        leash = self._start()
        try:
            ended = self._follow(leash)
        finally:
            leash.kill()
        return self._conclude(ended)

    def _start(self) -> Leash:
        env = child_environment(self.order["num_threads"])
        if self.claim.kind == "inspect":
            # Strangers' files are opened in a process of their own, which holds no torch and knows of none that does.
            return Leash(self.command, self.order, env=env | {WARM_SOCKET: ""}, start=spawn)
        return Leash(self.command, self.order, env=env)

    def _follow(self, leash: Leash) -> _Exit:
        try:
            while leash.exit_code() is None:
                self._hear(leash.read(_TICK_SECONDS))
                self._write_notes()
                if self.lease.lost.is_set():
                    raise Fenced
                self._pass_on_stops(leash)
                if time.monotonic() > self.kill_at:
                    grace = settings().cancel_grace_seconds
                    return _Exit(None, self.last, f"did not stop within {grace:g} s and was killed")
            self._hear(leash.rest())
        except BrokenLineError as broken:
            return _Exit(None, None, str(broken))
        return _Exit(leash.exit_code(), self.last)

    def _hear(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if message["type"] in ("result", "stopped", "error"):
                self.last = message
            else:
                self.notebook.add(message)

    def _write_notes(self) -> None:
        if not self.notebook.due():
            return
        try:
            with transaction() as session:
                self.notebook.write(session)
        except DBAPIError as error:  # the lease decides how long an outage may last; the notes are kept
            if not _is_outage(error):
                raise
            log.warning("%s: notes not written, trying again: %s", self.claim.job_id, error)
            self.notebook.postpone()
        else:
            self.notebook.written()

    def _pass_on_stops(self, leash: Leash) -> None:
        wanted = self._wanted()
        if wanted and wanted != self.asked:
            self.asked = wanted
            self.kill_at = min(self.kill_at, time.monotonic() + settings().cancel_grace_seconds)
            leash.send({"stop": _WORD[wanted]})

    def _wanted(self) -> str | None:
        """Why the child is to stop. The first reason stays: only a cancel outranks it."""
        if self.lease.cancelling.is_set():
            return "cancel"
        if self.asked is not None:
            return self.asked
        if time.monotonic() > self.deadline:
            return "deadline"
        if self.lease.pausing.is_set():
            return "pause"
        return "preempt" if self.preempt.is_set() else None

    def _conclude(self, ended: _Exit) -> str:
        """The one verb that this exit means, with the last notes in the same transaction."""
        outcome, verb = self._verdict(ended)
        self._close(verb)
        if outcome == "succeeded" or self.claim.kind == "inspect":
            work_folder.remove(self.claim.job_id)
        return outcome

    def _verdict(self, ended: _Exit) -> tuple[str, Verb]:
        last = ended.last or {}
        said = last.get("type")
        if said == "result":
            return "succeeded", verdicts.finish(self.claim, self.order, last)
        if said == "error" and self.asked is None:
            return self._met(verdicts.problem_of(last))
        if self.lease.cancelling.is_set():
            detail = f"It was cancelled. {self._leavings(ended)}"
            return "cancelled", verdicts.finish_cancel(self.claim, self.order, last, detail=detail)
        if self.asked == "deadline":
            detail = f"Its {self.order['asked_seconds']:g} s were over. {self._leavings(ended)}"
            return "deadline", verdicts.fail_late(self.claim, self.order, last, detail=detail)
        if self.asked in _OUTCOME or last.get("stop") == "preempt":
            return self._handed_back(ended)
        return self._lost(ended)

    def _met(self, problem: Problem) -> tuple[str, Verb]:
        outcome = retries.outcome_of(problem)
        if outcome in retries.LOST:
            return outcome, verdicts.release(self.claim, outcome=outcome, detail=problem.detail)
        return outcome, verdicts.fail(self.claim, problem)

    def _handed_back(self, ended: _Exit) -> tuple[str, Verb]:
        outcome = _OUTCOME.get(
            self.asked or "", "preempted"
        )  # unasked: somebody sent the trainer itself a SIGTERM
        why = {
            "pause": "It was paused.",
            "preempt": f"The worker {self.claim.worker} was told to end.",
            None: "The trainer was sent SIGTERM.",
        }[self.asked]
        left = "Its checkpoint was saved."
        if (ended.last or {}).get("type") != "stopped":
            left = f"{self._told(ended)} The next attempt goes on from the last checkpoint."
        return outcome, verdicts.release(self.claim, outcome=outcome, detail=f"{why} {left}")

    def _leavings(self, ended: _Exit) -> str:
        """A sentence on what a stop left behind."""
        if (ended.last or {}).get("type") != "stopped":
            return self._told(ended)
        if (ended.last or {}).get("artifacts"):
            return "The best student so far was kept."
        return "There was nothing to keep yet."

    def _lost(self, ended: _Exit) -> tuple[str, Verb]:
        verdict = verdicts.killed_by_its_limits if self.claim.kind == "inspect" else verdicts.starved
        if problem := verdict(ended.code, self.order):
            return self._met(problem)
        detail = self._told(ended)
        self.notebook.add({"type": "log", "level": "error", "message": detail})
        return "trainer_lost", verdicts.release(self.claim, outcome="trainer_lost", detail=detail)

    def _told(self, ended: _Exit) -> str:
        who = "trainer" if self.claim.kind == "compress" else "reading process"
        return f"The {who} {ended.reason or _death(ended.code)}."

    def _close(self, verb: Verb) -> None:
        def both(session: Session) -> None:
            self.notebook.write(session)
            verb(session)

        _write(self.lease, both)


def _write(lease: Lease, verb: Verb) -> None:
    """Commit `verb`. Raises Fenced."""

    def write() -> None:
        with transaction() as session:
            verb(session)

    _patiently(lease, write)


def _patiently(lease: Lease, action: Callable[[], _Found]) -> _Found:
    """Do it, through an outage of the database as long as the lease may still be ours. Raises Fenced."""
    while True:
        try:
            return action()
        except DBAPIError as error:
            if not _is_outage(error):
                raise
            log.warning("the database failed, trying again: %s", error)
            if lease.lost.wait(1.0):
                raise Fenced from error


def _is_outage(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later; what the database cannot store it never will."""
    is_ours = isinstance(error, DataError | IntegrityError | ProgrammingError | NotSupportedError)
    return error.connection_invalidated or not is_ours


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", probably by the kernel because memory ran out" if -code == signal.SIGKILL else ""
        return f"was ended by {name}{hint}"
    return f"exited with code {code} and without a result"


def child_environment(num_threads: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Threads that wait sleep instead of spinning: two trainers on one machine would starve each other
    otherwise.
    """
    threads = str(num_threads)
    return {
        **environment,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        # Deterministic cuBLAS needs a fixed workspace:
        # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
    }
