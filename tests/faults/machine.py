"""The verbs of jobs against a model in plain Python, in any order that hypothesis thinks of.

Claims are never forgotten: attempts that lost their job try all their verbs again at random, and must change nothing.
"""

import contextlib
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import make_url, select, update
from sqlalchemy.orm import Session

from app import db, jobs
from app.access import tenancy, tenants
from app.database.migrate import upgrade
from app.db import db_now, reading, transaction
from app.errors import Problem
from app.scheduling import schedule
from app.storage import removal
from app.tables import Artifact, Attempt, Base, Event, Job, Tenant
from tests.faults.checker import LOST, check
from tests.faults.model import FENCED, GONE, MAX_FAILURES, ModelJob
from tests.faults.options import Options
from tests.faults.report import Row
from tests.servers import Postgres, embedded_postgres_url

HANDED_BACK = ("preempted",)
OUTCOMES = st.sampled_from(HANDED_BACK + LOST)


@dataclass(frozen=True)
class Held:
    """A claim as its worker keeps it, for ever."""

    job_id: str
    claim: jobs.Claim

    @property
    def attempt(self) -> int:
        return self.claim.attempt


def outcome_of(verb: Callable[[Session], Any]) -> Any:
    """What the verb returns in a transaction of its own, or the name of what it raises."""
    try:
        with transaction() as session:
            return verb(session)
    except jobs.Fenced:
        return FENCED
    except Problem as problem:
        return problem.code


class JobMachine(RuleBasedStateMachine):
    """Rules are what workers, callers, sweepers and time may do. `app.db` is configured by whoever runs it."""

    known = Bundle("known")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, ModelJob] = {}
        self._count = 0

    # ---- callers

    @initialize(target=known)
    def begin_with_two(self) -> Any:
        with transaction() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table is not Tenant.__table__:
                    session.connection().execute(table.delete())
        return multiple(self.submit(), self.submit())

    # Few jobs: with many, most steps would meet one that has nothing to tell any more.
    @precondition(lambda self: sum(job.state != GONE for job in self.model.values()) < 4)
    @rule(target=known)
    def submit_another(self) -> str:
        return self.submit()

    def submit(self) -> str:
        self._count += 1
        with tenancy.transaction(tenants.DEFAULT) as session:
            job, replayed = jobs.submit(
                session,
                kind="compress",
                spec={"name": f"job {self._count}"},
                idempotency_key=str(self._count),
            )
        assert not replayed
        self.model[job.id] = ModelJob()
        return job.id

    @rule(job_id=known)
    def submit_again(self, job_id: str) -> None:
        """The same key and body: the same job, nothing new. The key of a deleted one is free."""
        if self.model[job_id].state == GONE:
            return
        number = list(self.model).index(job_id) + 1
        with tenancy.transaction(tenants.DEFAULT) as session:
            job, replayed = jobs.submit(
                session, kind="compress", spec={"name": f"job {number}"}, idempotency_key=str(number)
            )
        assert replayed
        assert job.id == job_id

    @rule(job_id=known)
    def cancel(self, job_id: str) -> None:
        expected = self.model[job_id].cancel()
        answer = self._called(lambda session: jobs.cancel(session, job_id))
        assert answer == expected

    @rule(job_id=known)
    def pause(self, job_id: str) -> None:
        expected = self.model[job_id].pause()
        assert self._called(lambda session: jobs.pause(session, job_id)) == expected

    @rule(job_id=known)
    def resume(self, job_id: str) -> None:
        expected = self.model[job_id].resume()
        assert self._called(lambda session: jobs.resume(session, job_id)) == expected

    @rule(job_id=known)
    def retry(self, job_id: str) -> None:
        expected = self.model[job_id].retry()
        answer = self._called(lambda session: jobs.retry(session, job_id))
        assert answer == expected

    @rule(job_id=known)
    def delete(self, job_id: str) -> None:
        expected = self.model[job_id].delete()
        assert self._called(lambda session: removal.remove(session, job_id)) == expected

    # ---- workers

    @rule(target=claims, job_id=known)
    def claim(self, job_id: str) -> Any:
        expected = self.model[job_id].claim()
        made: jobs.Claim | None = outcome_of(lambda session: jobs.claim(session, job_id, worker="w"))
        assert (made and made.attempt) == expected
        return Held(job_id, made) if made is not None else multiple()

    @rule(target=claims)
    def claim_next(self) -> Any:
        """Whichever is next: the oldest that may be claimed, for there is one tenant and one priority."""
        open_ones = (job for job in self.model.items() if job[1].state == "queued")
        expected = next((name for name, job in open_ones if not job.paused and not job.waits), None)
        offer = schedule.Offer("w", ("compress", "gpu", "inspect"))
        made: jobs.Claim | None = outcome_of(lambda session: schedule.claim_next(session, offer))
        assert (made and made.job_id) == expected
        if made is None:
            return multiple()
        assert made.attempt == self.model[made.job_id].claim()
        return Held(made.job_id, made)

    @rule(held=claims)
    def heartbeat(self, held: Held) -> None:
        expected = self.model[held.job_id].heartbeat(held.attempt)
        assert outcome_of(lambda session: jobs.heartbeat(session, held.claim)) == expected

    @rule(held=claims, num_events=st.integers(0, 3))
    def record(self, held: Held, num_events: int) -> None:
        expected = self.model[held.job_id].record(held.attempt, num_events)
        events = [("log", {"level": "info", "message": str(n)}) for n in range(num_events)]
        metric = {"step": 1, "name": "loss", "value": 1.0}
        assert (
            outcome_of(lambda session: jobs.record(session, held.claim, events=events, metrics=[metric]))
            == expected
        )

    @rule(held=claims, num_stages=st.integers(0, 2))
    def finish(self, held: Held, num_stages: int) -> None:
        expected = self.model[held.job_id].finish(held.attempt, num_stages + 1)
        files = [_artifact("stage")] * num_stages + [_artifact("final")]
        assert outcome_of(lambda session: jobs.finish(session, held.claim, {"stages": []}, files)) == expected

    @rule(held=claims, outcome=st.sampled_from(["user_error", "service_error", "deadline", "out_of_memory"]))
    def fail(self, held: Held, outcome: str) -> None:
        expected = self.model[held.job_id].fail(held.attempt, outcome)
        problem = Problem(422, "NO", "It is not possible.")
        assert (
            outcome_of(lambda session: jobs.fail(session, held.claim, problem, outcome=outcome)) == expected
        )

    @rule(held=claims, outcome=OUTCOMES)
    def release(self, held: Held, outcome: str) -> None:
        expected = self.model[held.job_id].release(held.attempt, outcome)
        assert outcome_of(lambda session: _release(session, held.claim, outcome)) == expected

    @rule(held=claims, has_best=st.booleans())
    def finish_cancel(self, held: Held, has_best: bool) -> None:
        expected = self.model[held.job_id].finish_cancel(held.attempt, int(has_best))
        files = [_artifact("best_so_far")] if has_best else []
        assert outcome_of(lambda session: jobs.finish_cancel(session, held.claim, None, files)) == expected

    # ---- time

    @rule(job_id=known)
    def let_the_pause_pass(self, job_id: str) -> None:
        if self.model[job_id].waits:
            self.model[job_id].waits = False
            self._change(job_id, next_attempt_at=db_now() - 1.0)

    @rule(job_id=known)
    def let_the_lease_lapse(self, job_id: str) -> None:
        if self.model[job_id].held:
            self.model[job_id].lapsed = True
            self._change(job_id, lease_until=db_now() - 1.0)

    @rule()
    def sweep(self) -> None:
        expected = sum([job.sweep() for job in self.model.values()])
        with reading() as session:
            assert jobs.has_lapsed(session) == bool(expected)
        assert outcome_of(jobs.sweep) == expected

    @rule(target=claims, job_id=known)
    def another_worker_takes_over(self, job_id: str) -> Any:
        """What makes stale claims: the lease lapses, somebody sweeps, somebody else claims."""
        if not self.model[job_id].held:
            return multiple()
        self.let_the_lease_lapse(job_id)
        self.sweep()
        return self.claim(job_id)

    # ---- what must hold after every step

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        with reading() as session:
            rows = {job.id: job for job in session.scalars(select(Job))}
            outcomes = _grouped(session, select(Attempt.job_id, Attempt.outcome).order_by(Attempt.n))
            num_events = _grouped(session, select(Event.job_id, Event.seq))
            num_artifacts = _grouped(session, select(Artifact.job_id, Artifact.id))
            left = {job_id: job for job_id, job in self.model.items() if job.state != GONE}
            assert rows.keys() == left.keys()
            for job_id, expected in left.items():
                row = rows[job_id]
                found = ModelJob(
                    state=row.state,
                    attempt=row.attempt,
                    failures=row.failures,
                    lapsed=expected.lapsed,
                    paused=row.paused,
                    waits=expected.waits,
                    outcomes=outcomes.get(job_id, []),
                    num_events=len(num_events[job_id]),
                    num_artifacts=len(num_artifacts.get(job_id, [])),
                )
                assert found == expected

    @invariant()
    def the_checker_finds_nothing(self) -> None:
        with reading() as session:
            assert check(session, max_failures=MAX_FAILURES) == []

    def _called(self, verb: Callable[[Session], object]) -> str | None:
        """None where the caller's verb worked, else the problem's code."""
        try:
            with tenancy.transaction(tenants.DEFAULT) as session:
                verb(session)
        except Problem as problem:
            return problem.code
        return None

    def _change(self, job_id: str, **columns: Any) -> None:
        with transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(**columns))


def run(options: Options) -> list[Row]:
    """`options.rounds` sequences of fifty steps, on both databases."""
    rows = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = options.database_url or stack.enter_context(embedded_postgres_url())
        postgres = Postgres(server)
        stack.callback(postgres.close)
        for url in (f"sqlite:///{folder}/fewbytes.db", postgres.url_of(postgres.emptied_database())):
            upgrade(url)
            db.configure(url)
            stack.callback(db.configure, None)
            row = Row(
                "verbs in any order, against a model", make_url(url).get_backend_name(), options.rounds * 50
            )
            try:
                run_state_machine_as_test(
                    seed(options.seed)(JobMachine), settings=long_run(options.rounds, 50, derandomize=False)
                )
            except Exception as divergence:  # whatever it is, it is what was looked for
                traceback.print_exc()
                row.violations.append(f"{type(divergence).__name__}: {divergence}")
            rows.append(row)
    return rows


def long_run(num_examples: int, num_steps: int, *, derandomize: bool = True) -> settings:
    """Settings of hypothesis. The same machine runs in CI with few examples and on demand with many."""
    return settings(
        max_examples=num_examples,
        stateful_step_count=num_steps,
        deadline=None,
        database=None,
        derandomize=derandomize,
        # A failure is reported as it was found: to shrink it on PostgreSQL takes minutes.
        phases=[Phase.generate, Phase.shrink] if num_examples > 100 else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _release(session: Session, claim: jobs.Claim, outcome: str) -> str:
    return jobs.release(session, claim, outcome=outcome)


def _artifact(kind: str) -> jobs.NewArtifact:
    return jobs.NewArtifact(1, kind, f"{kind}.pt", "ab" * 32, 1, {})


def _grouped(session: Session, statement: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for job_id, value in session.execute(statement):
        found.setdefault(job_id, []).append(value)
    return found
