"""Runs one claimed job: starts its child, keeps the lease, passes stop requests on, writes down what the
child says.

The child computes and knows no database; the supervisor writes and imports no torch. Whatever happens to the
child becomes exactly one verb of `app.jobs`: finish, fail, release or finish_cancel.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import transaction
from app.errors import Problem
from app.jobs import Claim, Fenced
from app.settings import settings
from worker import orders, verdicts
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


def run(claim: Claim, *, command: list[str] = CHILD, preempt: threading.Event = PREEMPT) -> str:
    """Do the claimed job to its end; returns what became of it, for the log.

    "fenced" means that nothing was written because another attempt counts now.
    """
    with Lease(claim) as lease:
        try:
            order = orders.build(claim)
            return _Watch(claim, order, lease, preempt, command).run()
        except Problem as problem:  # what the job names is gone
            _write(lease, verdicts.fail(claim, problem))
            return "failed"
        except Fenced:
            log.warning("%s: attempt %d no longer counts", claim.job_id, claim.attempt)
            return "fenced"


@dataclass
class _Exit:
    """How the child ended: its exit code (None: it broke the protocol), its last word, and why it was killed
    if it was.
    """

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
        deadline = time.monotonic() + (self.order.get("deadline_seconds") or float("inf"))
        try:
            while leash.exit_code() is None:
                self._hear(leash.read(_TICK_SECONDS))
                self._write_notes()
                if self.lease.lost.is_set():
                    raise Fenced
                self._pass_on_stops(leash)
                if time.monotonic() > deadline:
                    return _Exit(None, self.last, "deadline")
                if time.monotonic() > self.kill_at:
                    return _Exit(None, self.last, "grace")
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
            log.warning("%s: notes not written, trying again: %s", self.claim.job_id, error)
            self.notebook.postpone()
        else:
            self.notebook.written()

    def _pass_on_stops(self, leash: Leash) -> None:
        wanted = "cancel" if self.lease.cancelling.is_set() else "preempt" if self.preempt.is_set() else None
        if wanted and wanted != self.asked and self.asked != "cancel":
            self.asked = wanted
            self.kill_at = min(self.kill_at, time.monotonic() + settings().cancel_grace_seconds)
            leash.send({"stop": wanted})

    def _conclude(self, ended: _Exit) -> str:
        """The one verb that this exit means, with the last notes in the same transaction."""
        last = ended.last or {}
        if last.get("type") == "result":
            outcome, verb = "succeeded", verdicts.finish(self.claim, self.order, last)
        elif last.get("type") == "error" and self.asked is None:
            outcome, verb = "failed", verdicts.fail(self.claim, verdicts.problem_of(last))
        elif ended.reason == "deadline":
            problem = verdicts.deadline_exceeded(self.order["asked_seconds"])
            outcome, verb = "failed", verdicts.fail(self.claim, problem)
        elif self.lease.cancelling.is_set():
            outcome, verb = "cancelled", verdicts.finish_cancel(self.claim, self.order, last)
        elif self.asked == "preempt":
            outcome, verb = "preempted", verdicts.release(self.claim, outcome="preempted", counts=False)
        else:
            outcome, verb = self._lost(ended)
        self._close(verb)
        if outcome == "succeeded" or self.claim.kind == "inspect":
            shutil.rmtree(
                self.order["work_dir"], ignore_errors=True
            )  # what is left of it costs disk, not truth
        return outcome

    def _lost(self, ended: _Exit) -> tuple[str, Verb]:
        detail = ended.reason or _death(ended.code)
        verdict = verdicts.killed_by_its_limits if self.claim.kind == "inspect" else verdicts.starved
        if problem := verdict(ended.code, self.order):
            return "failed", verdicts.fail(self.claim, problem)
        self.notebook.add({"type": "log", "level": "error", "message": f"The trainer {detail}."})
        return "trainer_lost", verdicts.release(self.claim, outcome="trainer_lost", counts=True)

    def _close(self, verb: Verb) -> None:
        def both(session: Session) -> None:
            self.notebook.write(session)
            verb(session)

        _write(self.lease, both)


def _write(lease: Lease, verb: Verb) -> None:
    """Commit `verb`, through an outage of the database as long as the lease may still be ours.

    Raises Fenced.
    """
    while True:
        try:
            with transaction() as session:
                verb(session)
            return
        except DBAPIError as error:
            log.warning("could not write the end of a job, trying again: %s", error)
            if lease.lost.wait(1.0):
                raise Fenced from error


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
