"""The verbs of a job, on both databases: every transition, every fence, and what concurrency does to them."""

import hashlib
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from app import canonical, db, jobs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.errors import Problem
from app.jobs import Claim, Fenced, NewArtifact
from app.settings import settings
from app.tables import Artifact, Attempt, Event, Job, Metric

pytestmark = pytest.mark.usefixtures("database")

STUDENT = NewArtifact(
    step=1, kind="final", name="student.pt", sha256="ab" * 32, size_bytes=5 << 30, metrics={"accuracy": 0.5}
)


def submit(**options: Any) -> str:
    with tenancy.transaction(DEFAULT) as session:
        return jobs.submit(session, **{"kind": "compress", "spec": {"steps": []}} | options)[0].id


def claim(job_id: str, worker: str = "host:1") -> Claim:
    with db.transaction() as session:
        claimed = jobs.claim(session, job_id, worker=worker, device="cpu")
    assert claimed is not None
    return claimed


def act(verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with db.transaction() as session:
        return verb(session, *arguments, **options)


def act_as_owner(verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with tenancy.transaction(DEFAULT) as session:
        return verb(session, *arguments, **options)


def job(job_id: str) -> Job:
    with db.reading() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def events(job_id: str) -> list[Event]:
    with db.reading() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)))


def states(job_id: str) -> list[str]:
    return [event.data["state"] for event in events(job_id) if event.type == "state"]


def outcomes(job_id: str) -> list[str | None]:
    with db.reading() as session:
        return list(
            session.scalars(select(Attempt.outcome).where(Attempt.job_id == job_id).order_by(Attempt.n))
        )


def everything(job_id: str) -> list[Any]:
    """All that is stored of a job, to see that nothing changed."""
    found: list[Any] = []
    with db.reading() as session:
        for table in (Job, Attempt, Event, Metric, Artifact):
            key = table.id if table is Job else table.job_id
            rows = session.execute(
                select(*table.__table__.columns).where(key == job_id).order_by(*table.__table__.primary_key)
            )
            found += [tuple(row) for row in rows]
    return found


def lapse_lease(job_id: str) -> None:
    act(lambda session: session.execute(update(Job).values(lease_until=db.db_now() - 1)))


# The path of a job that goes well


def test_a_job_runs_and_succeeds_with_its_artifact() -> None:
    job_id = submit(name="first", labels={"team": "a"})
    assert (job(job_id).state, job(job_id).attempt) == ("queued", 0)
    claimed = claim(job_id)
    assert (claimed.attempt, claimed.kind, claimed.spec) == (1, "compress", {"steps": []})
    act(jobs.record, claimed, phase="step 1", progress={"fraction": 0.5}, events=[("log", {"message": "hi"})])
    assert (job(job_id).phase, job(job_id).progress) == ("step 1", {"fraction": 0.5})
    act(jobs.finish, claimed, {"bytes": 1}, [STUDENT])
    done = job(job_id)
    assert (done.state, done.result, done.phase, done.lease_owner) == ("succeeded", {"bytes": 1}, None, None)
    assert done.created_at <= done.started_at <= done.finished_at
    assert states(job_id) == ["queued", "running", "succeeded"]
    assert outcomes(job_id) == ["succeeded"]
    with db.reading() as session:
        artifact = session.scalars(select(Artifact)).one()
    assert (artifact.job_id, artifact.name, artifact.size_bytes) == (job_id, "student.pt", 5 << 30)
    [announced] = [event.data for event in events(job_id) if event.type == "artifact"]
    assert announced["id"] == artifact.id


def test_an_inspection_goes_the_same_way_through_its_own_queue() -> None:
    job_id = submit(kind="inspect", spec={"teacher": "tch_1"})
    assert job_id.startswith("ins_")
    with db.reading() as session:
        assert jobs.due(session) == [(job_id, "inspect")]
    act(jobs.finish, claim(job_id), {"layers": []})
    assert job(job_id).state == "succeeded"


def test_version_grows_with_every_visible_change_only() -> None:
    job_id = submit()
    claimed = claim(job_id)
    seen = [job(job_id).version]
    for change in (
        lambda: act(jobs.record, claimed, phase="a"),
        lambda: act(jobs.cancel, job_id),
        lambda: act(jobs.finish_cancel, claimed, None),
        lambda: act(jobs.retry, job_id),
    ):
        change()
        seen.append(job(job_id).version)
    assert seen == sorted(set(seen))
    second = claim(job_id)
    before = job(job_id).version
    act(jobs.heartbeat, second)
    assert job(job_id).version == before


# Claims


def test_a_row_is_claimed_once() -> None:
    job_id = submit()
    claim(job_id)
    assert act(jobs.claim, job_id, worker="host:2") is None
    assert act(jobs.claim, "job_unknown", worker="host:2") is None


def test_a_row_is_not_claimed_before_its_next_attempt() -> None:
    job_id = submit()
    act(lambda session: session.execute(update(Job).values(next_attempt_at=db.db_now() + 60)))
    assert act(jobs.claim, job_id, worker="host:1") is None
    with db.reading() as session:
        assert jobs.due(session) == []
    act(lambda session: session.execute(update(Job).values(next_attempt_at=db.db_now() - 60)))
    claim(job_id)


CLAIMER = """
import sys
from app import db, jobs
from app.access import tenancy
db.configure(sys.argv[1])
for job_id in sys.stdin.read().split():
    with db.transaction() as session:
        if jobs.claim(session, job_id, worker=sys.argv[2]):
            print(job_id)
"""


def test_processes_that_race_claim_every_row_exactly_once(database: str) -> None:
    with tenancy.transaction(DEFAULT) as session:
        ids = [jobs.submit(session, kind="compress", spec={})[0].id for _ in range(200)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    talks = [threading.Thread(target=racer.communicate, args=("\n".join(ids),)) for racer in racers]
    for talk in talks:
        talk.start()
    for talk in talks:
        talk.join(60)
    assert [racer.returncode for racer in racers] == [0, 0]
    with db.reading() as session:
        attempts = session.execute(select(Attempt.job_id, Attempt.n)).all()
    assert sorted(attempts) == sorted((job_id, 1) for job_id in ids)


def test_threads_that_race_claim_every_row_exactly_once() -> None:
    with tenancy.transaction(DEFAULT) as session:
        ids = [jobs.submit(session, kind="compress", spec={})[0].id for _ in range(200)]
    claimed: list[str] = []

    def race() -> None:
        for job_id in ids:
            if act(jobs.claim, job_id, worker="host:1"):
                claimed.append(job_id)

    in_threads(race, race)
    assert sorted(claimed) == sorted(ids)


def in_threads(*actions: Callable[[], Any]) -> None:
    """Run the actions at once; an exception in any of them is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


# The fence

WRITES: dict[str, Callable[[Any, Claim], Any]] = {
    "heartbeat": jobs.heartbeat,
    "record": lambda session, claimed: jobs.record(
        session,
        claimed,
        events=[("log", {"message": "late"})],
        metrics=[{"step": 1, "name": "accuracy", "value": 1.0}],
        phase="late",
    ),
    "finish": lambda session, claimed: jobs.finish(session, claimed, {"late": True}, [STUDENT]),
    "fail": lambda session, claimed: jobs.fail(session, claimed, Problem(500, "LATE", "late")),
    "release": lambda session, claimed: jobs.release(session, claimed, outcome="preempted"),
    "finish_cancel": lambda session, claimed: jobs.finish_cancel(session, claimed, None, [STUDENT]),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("now", ["queued", "running", "cancelling", "succeeded"])
def test_a_stale_attempt_changes_nothing(write: str, now: str) -> None:
    job_id = submit()
    stale = claim(job_id)
    act(jobs.release, stale, outcome="worker_lost")
    if now != "queued":
        current = claim(job_id, worker="host:2")
        if now == "cancelling":
            act(jobs.cancel, job_id)
        if now == "succeeded":
            act(jobs.finish, current, {})
    before = everything(job_id)
    with pytest.raises(Fenced):
        act(WRITES[write], stale)
    assert everything(job_id) == before


@pytest.mark.parametrize("write", WRITES)
def test_an_attempt_that_finished_writes_nothing_more(write: str) -> None:
    job_id = submit()
    claimed = claim(job_id)
    act(jobs.finish, claimed, {})
    before = everything(job_id)
    with pytest.raises(Fenced):
        act(WRITES[write], claimed)
    assert everything(job_id) == before


def test_only_a_job_that_was_asked_to_cancel_can_finish_its_cancel() -> None:
    job_id = submit()
    claimed = claim(job_id)
    with pytest.raises(Fenced):
        act(jobs.finish_cancel, claimed, None)
    assert job(job_id).state == "running"


# Cancel


def test_a_queued_job_is_cancelled_at_once() -> None:
    job_id = submit()
    assert act(jobs.cancel, job_id).state == "cancelled"
    assert job(job_id).finished_at is not None
    assert act(jobs.claim, job_id, worker="host:1") is None


def test_a_running_job_learns_of_the_cancel_from_its_heartbeat_and_keeps_its_best_student() -> None:
    job_id = submit()
    claimed = claim(job_id)
    assert act(jobs.heartbeat, claimed) == "running"
    assert act(jobs.cancel, job_id).state == "cancelling"
    assert act(jobs.cancel, job_id).state == "cancelling"
    assert act(jobs.heartbeat, claimed) == "cancelling"
    act(jobs.record, claimed, events=[("log", {"message": "saving"})])
    act(jobs.finish_cancel, claimed, {"best": 1}, [STUDENT])
    assert (job(job_id).state, job(job_id).result) == ("cancelled", {"best": 1})
    assert states(job_id) == ["queued", "running", "cancelling", "cancelled"]
    assert outcomes(job_id) == ["cancelled"]


def test_a_job_that_finished_before_it_noticed_the_cancel_has_succeeded() -> None:
    job_id = submit()
    claimed = claim(job_id)
    act(jobs.cancel, job_id)
    act(jobs.finish, claimed, {})
    assert job(job_id).state == "succeeded"


@pytest.mark.parametrize("verb", ["finish", "fail", "finish_cancel"])
def test_a_finished_job_cannot_be_cancelled(verb: str) -> None:
    job_id = submit()
    claimed = claim(job_id)
    if verb == "finish_cancel":
        act(jobs.cancel, job_id)
    act(WRITES[verb], claimed)
    before = everything(job_id)
    with pytest.raises(Problem) as refusal:
        act(jobs.cancel, job_id)
    assert (refusal.value.status, refusal.value.code) == (409, "JOB_FINISHED")
    assert everything(job_id) == before


@pytest.mark.parametrize("verb", [jobs.cancel, jobs.retry])
def test_an_unknown_job_is_a_404(verb: Callable[..., Any]) -> None:
    with pytest.raises(Problem) as refusal:
        act(verb, "job_unknown")
    assert refusal.value.status == 404


# Failures, handing back, sweeping


def wait_no_longer(job_id: str) -> None:
    """As if the pause before the next attempt had passed."""
    act(lambda session: session.execute(update(Job).where(Job.id == job_id).values(next_attempt_at=None)))


def test_a_failed_job_stores_the_problem() -> None:
    job_id = submit()
    problem = Problem(422, "CLASSES_DIFFER", "The teacher knows 10 classes, the data set 7.")
    act(jobs.fail, claim(job_id), problem)
    assert (job(job_id).state, job(job_id).error) == ("failed", problem.body())
    assert outcomes(job_id) == ["user_error"]


def test_a_job_handed_back_uses_up_no_failure_and_is_due_at_once() -> None:
    job_id = submit()
    act(jobs.mark_dispatched, [job_id])
    for _ in range(5):
        assert act(jobs.release, claim(job_id), outcome="preempted") == "queued"
    assert (job(job_id).failures, job(job_id).attempt, job(job_id).error) == (0, 5, None)
    with db.reading() as session:
        assert jobs.due(session) == [(job_id, "compress")]


def test_the_third_lost_attempt_fails_the_job() -> None:
    job_id = submit()
    for outcome, detail, state in (
        ("trainer_lost", "It was killed.", "queued"),
        ("preempted", "The worker was told to end.", "queued"),
        ("worker_lost", "The worker was silent.", "queued"),
        ("trainer_lost", "It was killed again.", "failed"),
    ):
        assert act(jobs.release, claim(job_id), outcome=outcome, detail=detail) == state
        wait_no_longer(job_id)
    failed = job(job_id)
    assert failed.error is not None
    assert (failed.error["code"], failed.error["retryable"], failed.failures) == ("WORKER_LOST", True, 3)
    told = "lost 3 times while it ran. (1) It was killed. (2) The worker was silent. (3) It was killed again."
    assert told in failed.error["detail"]
    assert outcomes(job_id) == ["trainer_lost", "preempted", "worker_lost", "trainer_lost"]


def pauses(job_id: str) -> float:
    """Seconds until the next attempt may start; 0 when it may at once."""
    with db.reading() as session:
        left = session.scalar(select(Job.next_attempt_at - db.db_now()).where(Job.id == job_id))
    return round(left or 0.0)


def test_the_first_retry_comes_at_once_and_the_next_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither claimed nor announced before."""
    monkeypatch.setattr(settings(), "retry_pause_seconds", 60.0)
    monkeypatch.setattr(settings(), "max_failures", 5)
    lost, full = submit(), submit()
    for expected in ([0, 60], [60, 120], [120, 240]):
        act(jobs.release, claim(lost), outcome="trainer_lost")
        act(jobs.release, claim(full), outcome="disk_full")
        assert [pauses(lost), pauses(full)] == expected
        assert act(jobs.claim, full, worker="host:1") is None
        with db.reading() as session:
            assert (full, "compress") not in jobs.due(session)
        wait_no_longer(lost)
        wait_no_longer(full)


def test_the_sweep_mends_only_what_lapsed() -> None:
    lost, cancelling = submit(), submit()
    lost_claim = claim(lost)
    claim(cancelling)
    act(jobs.cancel, cancelling)
    lapse_lease(lost)
    alive = submit()
    claim(alive)
    with db.reading() as session:
        assert jobs.has_lapsed(session)
    assert act(jobs.sweep) == 2
    assert act(jobs.sweep) == 0
    assert [job(one).state for one in (lost, cancelling, alive)] == ["queued", "cancelled", "running"]
    assert outcomes(lost) == ["worker_lost"]
    with db.reading() as session:
        detail = session.scalar(select(Attempt.detail).where(Attempt.job_id == lost))
    assert detail == f"The worker host:1 was silent for {settings().lease_seconds + 1:.0f} s."
    assert job(lost).failures == 1
    with db.reading() as session:
        assert (lost, "compress") in jobs.due(session)
        assert not jobs.has_lapsed(session)
    with pytest.raises(Fenced):
        act(jobs.finish, lost_claim, {})


def test_a_heartbeat_holds_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = submit()
    claimed = claim(job_id)
    lapse_lease(job_id)
    assert act(jobs.heartbeat, claimed) == "running"  # late, but nobody took the row away
    assert act(jobs.sweep) == 0
    assert job(job_id).lease_until == pytest.approx(
        act(lambda session: session.scalar(select(db.db_now()))) + settings().lease_seconds, abs=2
    )


def test_sweepers_that_race_release_each_row_once() -> None:
    ids = [submit() for _ in range(20)]
    for job_id in ids:
        claim(job_id)
    lapse_lease(ids[0])
    in_threads(*[lambda: act(jobs.sweep)] * 4)
    assert act(jobs.sweep) == 0
    assert [job(job_id).failures for job_id in ids] == [1] * 20


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_failed_or_cancelled_job_can_be_tried_again(end: str) -> None:
    job_id = submit()
    claimed = claim(job_id)
    if end == "failed":
        act(jobs.fail, claimed, Problem(500, "WORKER_LOST", "lost"))
    else:
        act(jobs.cancel, job_id)
        act(jobs.finish_cancel, claimed, {"best": 1})
    again = act(jobs.retry, job_id)
    assert (again.id, again.state, again.failures, again.error, again.result, again.finished_at) == (
        job_id,
        "queued",
        0,
        None,
        None,
        None,
    )
    assert claim(job_id).attempt == 2
    with pytest.raises(Fenced):
        act(jobs.heartbeat, claimed)


@pytest.mark.parametrize("state", ["queued", "running", "cancelling", "succeeded"])
def test_other_jobs_cannot_be_tried_again(state: str) -> None:
    job_id = submit()
    if state != "queued":
        claimed = claim(job_id)
        if state == "cancelling":
            act(jobs.cancel, job_id)
        if state == "succeeded":
            act(jobs.finish, claimed, {})
    assert job(job_id).state == state
    with pytest.raises(Problem) as refusal:
        act(jobs.retry, job_id)
    assert (refusal.value.status, refusal.value.code) == (409, "JOB_NOT_RETRYABLE")


# Idempotency


def test_the_same_key_and_body_is_the_same_job() -> None:
    first, replay = act_as_owner(jobs.submit, kind="compress", spec={"a": 1, "b": 2}, idempotency_key="k")
    assert not replay
    again, replay = act_as_owner(jobs.submit, kind="compress", spec={"b": 2, "a": 1}, idempotency_key="k")
    assert replay
    assert again.id == first.id
    assert len(events(first.id)) == 1


@pytest.mark.parametrize(
    "other", [{"spec": {"a": 2}}, {"kind": "inspect"}, {"name": "other"}, {"labels": {"a": "b"}}]
)
def test_the_same_key_with_another_body_is_refused(other: dict[str, Any]) -> None:
    body: dict[str, Any] = {"kind": "compress", "spec": {"a": 1}}
    submit(**body, idempotency_key="k")
    with pytest.raises(Problem) as refusal:
        submit(**body | other, idempotency_key="k")
    assert (refusal.value.status, refusal.value.code) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_submits_that_race_with_one_key_make_one_job() -> None:
    results: list[tuple[str, bool]] = []

    def race() -> None:
        made, replay = act_as_owner(jobs.submit, kind="compress", spec={"a": 1}, idempotency_key="k")
        results.append((made.id, replay))

    in_threads(*[race] * 8)
    assert len({job_id for job_id, _ in results}) == 1
    assert sorted(replay for _, replay in results) == [False] + [True] * 7


def test_the_fingerprint_is_the_sha256_of_sorted_compact_json() -> None:
    expected = hashlib.sha256(b'{"a":[1,2.5],"b":"\\u00e9"}').hexdigest()
    assert canonical.fingerprint({"b": "é", "a": [1, 2.5]}) == expected


# Events and metrics


def test_events_of_racing_writers_are_numbered_without_gaps() -> None:
    job_id = submit()
    claimed = claim(job_id)

    def write(name: str) -> Callable[[], None]:
        def run() -> None:
            for n in range(25):
                act(
                    jobs.record,
                    claimed,
                    events=[("log", {"by": name, "n": n}), ("log", {"by": name, "n": n})],
                )

        return run

    in_threads(write("a"), write("b"), lambda: act(jobs.cancel, job_id))
    stored = events(job_id)
    assert [event.seq for event in stored] == list(range(1, 2 + 100 + 1 + 1))
    assert job(job_id).last_seq == stored[-1].seq
    for name in "ab":
        assert [e.data["n"] for e in stored if e.data.get("by") == name] == [
            n for n in range(25) for _ in "12"
        ]
    assert [event.at for event in stored] == sorted(event.at for event in stored)


def metrics(job_id: str) -> dict[tuple[Any, ...], float]:
    with db.reading() as session:
        found = session.scalars(select(Metric).where(Metric.job_id == job_id))
        return {(m.step, m.epoch, m.split, m.name): m.value for m in found}


def test_the_same_metric_again_replaces_itself() -> None:
    job_id = submit()
    claimed = claim(job_id)
    loss = {"step": 1, "epoch": 3, "split": "train", "name": "loss"}
    act(
        jobs.record,
        claimed,
        metrics=[loss | {"value": 2.0}, {"step": 1, "name": "size", "value": 9, "unit": "B"}],
    )
    act(jobs.record, claimed, metrics=[loss | {"value": 1.5}, loss | {"value": 0.1 + 0.2}])
    assert metrics(job_id) == {(1, 3, "train", "loss"): 0.1 + 0.2, (1, -1, "", "size"): 9}


def test_a_metric_that_is_no_number_becomes_a_log_line() -> None:
    job_id = submit()
    claimed = claim(job_id)
    values = [math.nan, math.inf, -math.inf, 1.0]
    act(
        jobs.record,
        claimed,
        metrics=[{"step": 1, "epoch": n, "name": "loss", "value": v} for n, v in enumerate(values)],
    )
    assert metrics(job_id) == {(1, 3, "", "loss"): 1.0}
    logs = [event.data for event in events(job_id) if event.type == "log"]
    assert [log["level"] for log in logs] == ["warning"] * 3
    assert logs[0]["message"] == "metric loss is nan (step 1, epoch 0); not stored"


def test_numbers_and_text_that_json_cannot_hold_do_not_lose_the_result() -> None:
    job_id = submit()
    claimed = claim(job_id)
    act(
        jobs.record,
        claimed,
        events=[("log", {"message": "nul \x00 half \ud83d pair 🙂"})],
        progress={"eta": math.inf},
    )
    act(jobs.finish, claimed, {"accuracy": math.nan, "bytes": 2**60, "list": [1.5, -math.inf]})
    assert job(job_id).result == {"accuracy": None, "bytes": 2**60, "list": [1.5, None]}
    assert job(job_id).progress == {"eta": None}
    [message] = [event.data["message"] for event in events(job_id) if event.type == "log"]
    assert message == "nul \ufffd half \ufffd pair 🙂"


# Announcing


def test_due_rows_come_oldest_first_and_once() -> None:
    """However long ago it was announced: who is idle looks by itself."""
    ids = [submit() for _ in range(3)]
    with db.reading() as session:
        assert [job_id for job_id, _ in jobs.due(session)] == ids
        assert [job_id for job_id, _ in jobs.due(session, limit=2)] == ids[:2]
    act(jobs.mark_dispatched, ids[:2])
    act(lambda session: session.execute(update(Job).values(dispatched_at=Job.dispatched_at - 3600)))
    with db.reading() as session:
        assert [job_id for job_id, _ in jobs.due(session)] == ids[2:]


def test_marking_nothing_or_a_claimed_row_changes_nothing() -> None:
    job_id = submit()
    claim(job_id)
    before = everything(job_id)
    act(jobs.mark_dispatched, [])
    act(jobs.mark_dispatched, [job_id])
    assert everything(job_id) == before
