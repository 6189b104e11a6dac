"""Callers and workers in any order that hypothesis thinks of: the rows of a sweep tell the same story at every moment, and
whatever happened, whoever goes on working comes to an end."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select, update

from app import db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.errors import Problem
from app.storage import removal
from app.storage.objects import Storage
from app.sweeps import verbs
from app.tables import TERMINAL, Artifact, Attempt, Event, Job, Sweep
from tests.app.sweeps.conftest import QUANTIZE, TRAIN, Ground, prepared, prune
from tests.faults.checker import check
from tests.faults.machine import long_run

RATES = {"field": "/steps/1/keep_rate", "values": [0.9, 0.8]}
BITS = {"field": "/steps/2/bits", "values": [8, 4]}
CODES = st.sampled_from(["TRAINING_DIVERGED", "TARGET_UNREACHABLE"])
numbers = st.integers(0, 99)


class SweepMachine(RuleBasedStateMachine):
    """`ground` is set by whoever runs it."""

    ground: Ground

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[jobs.Claim] = []

    @initialize(most=st.sampled_from([None, 1, 2]))
    def begin(self, most: int | None) -> None:
        with db.transaction() as session:
            of_sweeps = select(Job.id).where(
                Job.kind == "compress"
            )  # not the inspection that the teacher refers to
            for table in (Artifact, Event, Attempt):
                session.execute(delete(table).where(table.job_id.in_(of_sweeps)))
            session.execute(delete(Job).where(Job.kind == "compress"))
            session.execute(delete(Sweep))
        self.post(most)

    @precondition(lambda self: len(self.sweeps()) < 2)
    @rule(most=st.sampled_from([None, 1, 2]))
    def post(self, most: int | None) -> None:
        """A training, two prunings, two quantizations of each."""
        self.ground.post(
            self.ground.spec(TRAIN, prune(0.5), QUANTIZE, axes=[RATES, BITS], max_concurrent=most)
        )

    def sweeps(self) -> list[str]:
        with db.reading() as session:
            return list(session.scalars(select(Sweep.id).order_by(Sweep.id)))

    def some_job(self, number: int) -> str | None:
        with db.reading() as session:
            ids = session.scalars(select(Job.id).where(Job.sweep_id.is_not(None)).order_by(Job.id)).all()
        return ids[number % len(ids)] if ids else None

    # ---- workers

    @rule()
    def claim(self) -> None:
        if (claim := self.ground.claim()) is not None:
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(number=numbers)
    def finish(self, number: int) -> None:
        self._held(number, self.ground.finish)

    @precondition(lambda self: self.claims)
    @rule(number=numbers, code=CODES)
    def fail(self, number: int, code: str) -> None:
        self._held(number, lambda claim: self.ground.fail(claim, code))

    @precondition(lambda self: self.claims)
    @rule(number=numbers, outcome=st.sampled_from(["preempted", "worker_lost"]))
    def release(self, number: int, outcome: str) -> None:
        def hand_back(claim: jobs.Claim) -> None:
            with db.transaction() as session:
                jobs.release(session, claim, outcome=outcome)
                session.execute(update(Job).values(next_attempt_at=None))

        self._held(number, hand_back)

    @precondition(lambda self: self.claims)
    @rule(number=numbers)
    def finish_cancel(self, number: int) -> None:
        def end(claim: jobs.Claim) -> None:
            with db.transaction() as session:
                if session.scalar(select(Job.state).where(Job.id == claim.job_id)) == "cancelling":
                    jobs.finish_cancel(session, claim, None)
                else:
                    jobs.release(session, claim, outcome="preempted")

        self._held(number, end)

    def _held(self, number: int, do: Any) -> None:
        do(self.claims.pop(number % len(self.claims)))

    # ---- callers

    @rule(
        number=numbers,
        verb=st.sampled_from([jobs.cancel, jobs.retry, jobs.pause, jobs.resume, removal.remove]),
    )
    def to_a_job(self, number: int, verb: Any) -> None:
        job_id = self.some_job(number)
        if job_id is not None:
            self._refused_or_done(verb, job_id)

    @rule(
        number=numbers,
        verb=st.sampled_from([verbs.cancel, verbs.retry, verbs.pause, verbs.resume, verbs.delete]),
    )
    def to_a_sweep(self, number: int, verb: Any) -> None:
        if found := self.sweeps():
            self._refused_or_done(verb, found[number % len(found)])

    def _refused_or_done(self, verb: Any, ident: str) -> None:
        with contextlib.suppress(Problem):  # which says why not; that it changed nothing, the rows tell
            self.ground.act(verb, ident)

    # ---- what must be true

    @invariant()
    def the_rows_tell_the_same(self) -> None:
        with db.reading() as session:
            assert check(session) == []

    def teardown(self) -> None:
        """Everybody goes on, and all of it ends."""
        for sweep_id in self.sweeps():
            with tenancy.transaction(DEFAULT) as session:
                if not session.get_one(Sweep, sweep_id).finished_at:
                    verbs.resume(session, sweep_id)
        while self.claims:
            self.finish_cancel(0)
        while (claim := self.ground.claim()) is not None:
            self.ground.finish(claim)
        for sweep_id in self.sweeps():
            assert {job.state for job in self.ground.jobs(sweep_id)} <= set(TERMINAL)
            assert self.ground.look(sweep_id).tally.is_over
        self.the_rows_tell_the_same()


@pytest.mark.usefixtures("database")
def test_a_sweep_is_consistent_whatever_happens_to_it(tmp_path: Path) -> None:
    SweepMachine.ground = prepared(Storage(tmp_path / "data"))
    run_state_machine_as_test(SweepMachine, settings=long_run(6, 25))
