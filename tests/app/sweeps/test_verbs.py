"""What happens to the jobs of a sweep, on both databases."""

import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select

from app import db, jobs, moves, sweeps
from app.access import tenancy, tenants
from app.access.tenants import DEFAULT
from app.errors import Problem
from app.scheduling import outbox, places
from app.spec.sweep import SweepSpec
from app.storage import removal
from app.sweeps import planning, reads, submitting, verbs
from app.tables import Artifact, Event, Job, Sweep, Teacher
from tests.app.sweeps.conftest import QUANTIZE, TRAIN, Ground, prune

RATES: dict[str, Any] = {"field": "/steps/1/keep_rate", "values": [0.9, 0.8, 0.7]}
EPOCHS: dict[str, Any] = {"field": "/steps/0/epochs", "values": [1, 2, 3]}


def states(ground: Ground, sweep_id: str) -> list[str]:
    return [child.state for child in ground.children(sweep_id)]


def pruned(ground: Ground, **changes: Any) -> SweepSpec:
    """One training, three prunings: a stage and three that come after it."""
    return ground.spec(TRAIN, prune(0.5), axes=[RATES], **changes)


# Made


def test_each_point_and_seed_is_a_job_in_the_order_of_the_grid(ground: Ground) -> None:
    sweep_id = ground.post(
        ground.spec(axes=[EPOCHS], seeds=2, name="e", labels={"team": "a"}, job={"seed": 5})
    )
    children = ground.children(sweep_id)
    assert [(c.point, c.params, c.seed) for c in children] == [
        (0, {"epochs": 1}, 5),
        (0, {"epochs": 1}, 6),
        (1, {"epochs": 2}, 5),
        (1, {"epochs": 2}, 6),
        (2, {"epochs": 3}, 5),
        (2, {"epochs": 3}, 6),
    ]
    assert [c.job.spec["steps"][0]["epochs"] for c in children] == [1, 1, 2, 2, 3, 3]
    assert children[3].job.name == "e: epochs=2, seed 6"
    assert children[3].job.spec["name"] == children[3].job.name
    assert all(c.job.labels == c.job.spec["labels"] == {"team": "a"} for c in children)
    assert ground.finish_all() == [c.job.id for c in children]
    assert ground.look(sweep_id).state == "succeeded"


def test_the_metric_is_that_of_the_test_images_where_there_are_some(ground: Ground) -> None:
    sweep_id = ground.post(ground.spec())
    assert ground.look(sweep_id).sweep.spec["metric"] == "test_accuracy"


def test_a_child_is_the_job_that_it_would_be_alone(ground: Ground) -> None:
    """Its key of equal results too."""
    sweep_id = ground.post(ground.spec(axes=[EPOCHS], seeds=2))
    child = ground.children(sweep_id)[3].job
    [planned] = ground.plan(SweepSpec.model_validate({"job": {**child.spec, "name": None}})).jobs
    assert planned.result_key == child.result_key
    assert child.queue == "compress"
    assert child.estimated_macs is not None


def test_the_same_key_and_body_is_the_same_sweep(ground: Ground) -> None:
    spec = ground.spec(axes=[EPOCHS])
    first = ground.post(spec, key="k")
    assert ground.post(spec, key="k") == first
    assert len(ground.jobs(first)) == 3
    with pytest.raises(Problem, match="IDEMPOTENCY_KEY_REUSED"):
        ground.post(ground.spec(), key="k")
    with db.reading() as session:
        assert len(session.scalars(select(Sweep.id)).all()) == 1


def test_a_sweep_that_is_too_large_names_both_numbers(ground: Ground) -> None:
    """Before its points are made: a product of axes grows fast."""
    huge = [{"field": f"/a{n}", "values": list(range(1000))} for n in range(6)]
    ground.max_jobs = 6
    for spec, number in (
        (ground.spec(axes=huge, seeds=3), "3000000000000000000"),
        (pruned(ground, seeds=3), "9"),
    ):
        with pytest.raises(Problem, match="SWEEP_TOO_LARGE") as refused:
            ground.plan(spec)
        assert number in refused.value.detail
        assert "6 here" in refused.value.detail


def test_a_deleted_teacher_is_noticed_between_plan_and_rows(ground: Ground) -> None:
    planned = ground.plan(ground.spec())
    with db.transaction() as session:
        session.delete(session.get_one(Teacher, "tch_1"))
    with pytest.raises(Problem, match="deleted just now"), tenancy.transaction(DEFAULT) as session:
        submitting.submit(session, planned, ground.storage, request={})
    with db.reading() as session:
        assert session.scalars(select(Sweep.id)).all() == []


def test_waiting_jobs_count_for_the_tenants_limit(ground: Ground) -> None:
    """All of them or none."""
    with db.transaction() as session:
        tenants.change(session, DEFAULT, {"max_queued_jobs": 3})
    with pytest.raises(Problem, match="TOO_MANY_JOBS"):
        ground.post(pruned(ground))
    sweep_id = ground.post(ground.spec(axes=[EPOCHS]))
    assert len(ground.jobs(sweep_id)) == 3
    with db.reading() as session:
        assert len(session.scalars(select(Sweep.id)).all()) == 1


# What several have in common


def test_a_shared_stage_is_done_once_and_then_its_followers_go(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    [stage] = ground.stages(sweep_id)
    assert (stage.point, stage.name, len(stage.spec["steps"])) == (None, "shared step 1, seed 0", 1)
    assert ground.waits(sweep_id) == ["stage"] * 3
    assert [(c.job.after_job_id, c.job.begun_steps) for c in ground.children(sweep_id)] == [(stage.id, 1)] * 3
    claim = ground.claim()
    assert claim is not None
    assert claim.job_id == stage.id
    assert ground.claim() is None
    ground.finish(claim)
    assert ground.waits(sweep_id) == [None] * 3
    assert ground.finish_all() == [c.job.id for c in ground.children(sweep_id)]
    found = ground.look(sweep_id)
    assert found.sweep.shared == {"stage_jobs": 1, "children_served": 3, "steps_saved": 2}
    assert (found.state, found.tally.counts["succeeded"]) == ("succeeded", 3)


def test_what_is_shared_counts_once_in_the_estimate(ground: Ground) -> None:
    planned = ground.plan(pruned(ground))
    alone = ground.plan(ground.spec(TRAIN, prune(0.9)))
    train, pruning = alone.jobs[0].step_macs
    assert train is not None
    assert pruning is None  # only doing it tells
    assert planned.stage_macs() == [train]
    quantized = ground.plan(ground.spec(TRAIN, QUANTIZE, axes=[{"field": "/steps/1/bits", "values": [8, 4]}]))
    train, quantizing = ground.plan(ground.spec(TRAIN, QUANTIZE)).jobs[0].step_macs
    assert train is not None
    assert quantizing is not None
    assert quantized.estimated_macs == train + 2 * quantizing


def test_weights_to_go_back_to_are_asked_of_the_stage(ground: Ground) -> None:
    axis = {"field": "/steps/1/weights_from_epoch", "values": [0, 3]}
    sweep_id = ground.post(ground.spec(TRAIN, prune(0.9), axes=[axis]))
    [stage] = ground.stages(sweep_id)
    assert stage.snapshot_epochs == {"1": [0, 3]}


def test_children_of_a_failed_stage_fail_with_its_reason(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    stage = ground.fail(ground.claim())
    assert states(ground, sweep_id) == ["failed"] * 3
    error = ground.children(sweep_id)[0].job.error
    assert error is not None
    assert (error["code"], stage in error["detail"]) == ("SHARED_STAGE_FAILED", True)
    assert "TRAINING_DIVERGED: It is not possible." in error["detail"]
    assert (ground.look(sweep_id).state, ground.look(sweep_id).tally.counts["failed"]) == ("failed", 3)


def test_what_is_infeasible_for_the_stage_is_so_for_its_children(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    ground.fail(ground.claim(), "STUDENT_IMPOSSIBLE")
    assert states(ground, sweep_id) == ["infeasible"] * 3


def test_children_of_a_cancelled_stage_are_cancelled(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    [stage] = ground.stages(sweep_id)
    ground.act(jobs.cancel, stage.id)
    assert states(ground, sweep_id) == ["cancelled"] * 3
    assert ground.look(sweep_id).state == "cancelled"


def nested(ground: Ground) -> SweepSpec:
    bits = {"field": "/steps/2/bits", "values": [8, 4]}
    return ground.spec(TRAIN, prune(0.5), QUANTIZE, axes=[{**RATES, "values": [0.9, 0.8]}, bits])


def test_stages_wait_for_stages(ground: Ground) -> None:
    """A training, two prunings of it, two quantizations of each."""
    sweep_id = ground.post(nested(ground))
    train, first, second = ground.stages(sweep_id)
    assert (
        (first.after_job_id, first.begun_steps) == (second.after_job_id, second.begun_steps) == (train.id, 1)
    )
    assert [job.waits_for for job in (train, first, second)] == [None, "stage", "stage"]
    children = ground.children(sweep_id)
    assert [c.job.after_job_id for c in children] == [first.id, first.id, second.id, second.id]
    done = ground.finish_all()
    assert done == [train.id, first.id, second.id, *(c.job.id for c in children)]


def test_a_failure_goes_through_all_stages_after_it(ground: Ground) -> None:
    """One retry of any of them tries all again."""
    sweep_id = ground.post(nested(ground))
    ground.fail(ground.claim())
    assert {job.state for job in ground.jobs(sweep_id)} == {"failed"}
    ground.act(jobs.retry, ground.children(sweep_id)[3].job.id)
    assert {job.state for job in ground.jobs(sweep_id)} == {"queued"}
    assert len(ground.finish_all()) == 7
    assert ground.look(sweep_id).state == "succeeded"


def test_a_child_is_tried_again_together_with_the_stages_it_needs(ground: Ground) -> None:
    """Not with what failed by itself, nor with what is done."""
    sweep_id = ground.post(nested(ground))
    train, first, second = ground.stages(sweep_id)
    ground.finish(ground.claim(train.id))
    ground.finish(ground.claim(first.id))
    ground.fail(ground.claim(second.id))
    a, b, c, d = (child.job.id for child in ground.children(sweep_id))
    ground.fail(ground.claim(a))
    ground.finish(ground.claim(b))
    ground.act(jobs.retry, d)
    assert [ground.job(ident).state for ident in (train.id, second.id, a, b, c, d)] == [
        "succeeded",
        "queued",
        "failed",
        "succeeded",
        "queued",
        "queued",
    ]
    assert ground.waits(sweep_id) == [None, None, "stage", "stage"]
    assert ground.finish_all() == [second.id, c, d]


def test_a_child_whose_stage_was_deleted_does_it_all_itself(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    [stage] = ground.stages(sweep_id)
    ground.fail(ground.claim())
    ground.act(removal.remove, stage.id)
    ground.act(verbs.retry, sweep_id)
    assert ground.waits(sweep_id) == [None] * 3
    assert len(ground.finish_all()) == 3


def test_a_result_that_is_there_is_used_again_and_nothing_trained_for_it(ground: Ground) -> None:
    """Where the jobs ask for that; what is new among them shares as ever, and what lost its files is done anew."""
    first = ground.post(pruned(ground))
    ground.finish_all()
    rates = {**RATES, "values": [0.9, 0.8, 0.6, 0.5]}
    asking = {"job": {"reuse_result": True}}
    again = ground.post(ground.spec(TRAIN, prune(0.5), axes=[rates], **asking))
    assert states(ground, again) == ["succeeded", "succeeded", "queued", "queued"]
    before, after = (ground.job(ground.children(ident)[1].job.id) for ident in (first, again))
    assert after.result is not None
    assert (after.result["reused_from"], after.attempt) == (before.id, 0)
    assert len(ground.stages(again)) == 1
    assert ground.look(again).sweep.shared == {"stage_jobs": 1, "children_served": 2, "steps_saved": 1}
    with db.reading() as session:
        digest = session.scalars(select(Artifact.sha256).where(Artifact.job_id == before.id)).one()
    ground.storage.delete(digest)
    ground.finish_all()
    third = ground.post(ground.spec(TRAIN, prune(0.5), axes=[RATES], **asking))
    assert states(ground, third) == ["succeeded", "queued", "succeeded"]
    assert ground.stages(third) == []
    assert ground.look(again).state == "succeeded"


# What cannot be


def with_an_impossible_one(ground: Ground) -> SweepSpec:
    sizes = {"field": "/steps/0/student/image_size", "values": [8, 64]}
    student = {"architecture": "student_net"}
    return ground.spec({**TRAIN, "student": student}, axes=[sizes])


def test_a_point_that_cannot_be_is_infeasible_and_the_others_run(ground: Ground) -> None:
    """It says why, no worker sees it, and the sweep succeeds."""
    sweep_id = ground.post(with_an_impossible_one(ground))
    assert states(ground, sweep_id) == ["infeasible", "queued"]
    first = ground.children(sweep_id)[0].job
    assert first.error is not None
    assert (first.state, first.error["code"], first.attempt) == ("failed", "INVALID_IMAGE_SIZE", 0)
    assert "from 16 pixels on" in first.error["detail"]
    assert ground.look(sweep_id).state == "queued"
    assert len(ground.finish_all()) == 1
    found = ground.look(sweep_id)
    assert found.state == "succeeded"
    assert {name: number for name, number in found.tally.counts.items() if number} == {
        "succeeded": 1,
        "infeasible": 1,
    }


def test_what_a_worker_finds_infeasible_counts_so_too(ground: Ground) -> None:
    sweep_id = ground.post(ground.spec(axes=[EPOCHS]))
    ground.fail(ground.claim(), "TARGET_UNREACHABLE")
    ground.fail(ground.claim(), "TRAINING_DIVERGED")
    ground.finish(ground.claim())
    assert states(ground, sweep_id) == ["infeasible", "failed", "succeeded"]
    counts = ground.look(sweep_id).tally.counts
    assert (counts["infeasible"], counts["failed"], counts["succeeded"]) == (1, 1, 1)
    ground.act(verbs.retry, sweep_id)
    assert states(ground, sweep_id) == ["infeasible", "queued", "succeeded"]


def test_when_nothing_can_be_the_sweep_has_failed(ground: Ground) -> None:
    sizes = {"field": "/steps/0/student/image_size", "values": [8]}
    spec = ground.spec({**TRAIN, "student": {"architecture": "student_net"}}, axes=[sizes])
    found = ground.look(ground.post(spec))
    assert (found.state, found.sweep.finished_at is not None) == ("failed", True)


def test_an_error_of_the_spec_refuses_the_whole_sweep(ground: Ground) -> None:
    """With the axis, the point, and the rule."""
    names = {"field": "/steps/0/student", "values": ["student_net", "studnet_net"]}
    with pytest.raises(Problem) as refused:
        ground.plan(ground.spec(axes=[names]))
    [error] = refused.value.errors
    assert (error["pointer"], error["code"]) == ("/axes/0/values/1/architecture", "UNKNOWN_ARCHITECTURE")
    assert error["detail"].startswith("At point 1 (student=studnet_net): ")
    assert "student_net?" in error["hint"]


# Not too many at once


def test_no_more_than_may_are_free(ground: Ground) -> None:
    """Stages count, and come first; each end frees one."""
    sweep_id = ground.post(pruned(ground, max_concurrent=2, seeds=2))
    first, second = ground.stages(sweep_id)
    assert [first.waits_for, second.waits_for] == [None, None]
    ground.finish(ground.claim(first.id))
    assert ground.waits(sweep_id) == [None, "stage", "room", "stage", "room", "stage"]
    ground.finish(ground.claim(second.id))
    assert ground.waits(sweep_id) == [None, None, "room", "room", "room", "room"]
    held = ground.claim()
    assert ground.waits(sweep_id).count(None) == 2  # what runs counts
    ground.finish(held)
    assert ground.waits(sweep_id) == [None, None, None, "room", "room", "room"]
    assert len(ground.finish_all()) == 5


def test_two_of_different_sweeps_do_not_count_for_each_other(ground: Ground) -> None:
    one, other = (ground.post(ground.spec(axes=[EPOCHS], max_concurrent=1)) for _ in range(2))
    assert ground.waits(one) == ground.waits(other) == [None, "room", "room"]


def test_a_waiting_job_is_told_what_for_and_delays_nobody(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    later, _ = ground.act(lambda session: jobs.submit(session, kind="compress", spec={"steps": []}))
    with tenancy.reading(DEFAULT) as session:
        child = session.get_one(Job, ground.children(sweep_id)[0].job.id)
        found = places.place(session, child)
        assert (found.reason, found.position) == ("shared_stage", None)
        assert ground.stages(sweep_id)[0].id in found.detail
        assert places.place(session, session.get_one(Job, later.id)).position == 2
    limited = ground.post(ground.spec(axes=[EPOCHS], max_concurrent=1))
    with tenancy.reading(DEFAULT) as session:
        found = places.place(session, session.get_one(Job, ground.children(limited)[1].job.id))
    assert (found.reason, "max_concurrent 1" in found.detail) == ("sweep_limit", True)


# Verbs


def test_cancel_ends_what_waits_and_asks_what_runs(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground, max_concurrent=2))
    ground.finish(ground.claim())
    held = ground.claim()
    assert held is not None
    ground.act(verbs.cancel, sweep_id)
    assert states(ground, sweep_id) == ["cancelling", "cancelled", "cancelled"]
    assert ground.look(sweep_id).state == "cancelling"
    assert ground.look(sweep_id).tally.counts["running"] == 1
    with db.transaction() as session:
        jobs.finish_cancel(session, held, None)
    found = ground.look(sweep_id)
    assert (found.state, found.sweep.finished_at is not None) == ("cancelled", True)
    with pytest.raises(Problem, match="SWEEP_FINISHED"):
        ground.act(verbs.cancel, sweep_id)


def test_a_cancelled_sweep_is_tried_again_from_where_it_was(ground: Ground) -> None:
    """What is done stays done."""
    sweep_id = ground.post(pruned(ground, max_concurrent=2))
    stage = ground.finish(ground.claim())
    first = ground.finish(ground.claim())
    ground.act(verbs.cancel, sweep_id)
    assert states(ground, sweep_id) == ["succeeded", "cancelled", "cancelled"]
    ground.act(verbs.retry, sweep_id)
    assert states(ground, sweep_id) == ["succeeded", "queued", "queued"]
    assert ground.look(sweep_id).sweep.finished_at is None
    done = ground.finish_all()
    assert len(done) == 2
    assert not {stage, first} & set(done)
    assert ground.look(sweep_id).state == "succeeded"
    with pytest.raises(Problem, match="NOTHING_TO_RETRY"):
        ground.act(verbs.retry, sweep_id)


def test_pause_holds_everything_and_resume_lets_it_go(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    held = ground.claim()
    assert held is not None
    ground.act(verbs.pause, sweep_id)
    assert ground.look(sweep_id).state == "running"
    with db.transaction() as session:
        assert jobs.heartbeat(session, held) == "pausing"
        jobs.release(session, held, outcome="paused")
    assert ground.look(sweep_id).state == "paused"
    assert ground.claim() is None
    version = ground.look(sweep_id).version
    ground.act(verbs.pause, sweep_id)  # again: changes nothing
    assert ground.look(sweep_id).version == version
    ground.act(verbs.resume, sweep_id)
    assert ground.look(sweep_id).version > version
    assert len(ground.finish_all()) == 4


def test_children_of_a_stage_that_ends_while_paused_are_held(ground: Ground) -> None:
    """Whatever becomes free meanwhile; what is added or tried again too."""
    sweep_id = ground.post(pruned(ground))
    held = ground.claim()
    ground.act(verbs.pause, sweep_id)
    ground.finish(held)
    assert ground.waits(sweep_id) == [None] * 3
    assert ground.claim() is None
    ground.act(jobs.cancel, ground.children(sweep_id)[0].job.id)
    ground.act(verbs.retry, sweep_id)
    extend(ground, sweep_id, 2)
    assert ground.claim() is None
    assert ground.look(sweep_id).state == "paused"
    ground.act(verbs.resume, sweep_id)
    assert len(ground.finish_all()) == 3 + 4


def extend(ground: Ground, sweep_id: str, seeds: int) -> None:
    with tenancy.reading(DEFAULT) as session:
        sweep = reads.find(session, sweep_id)
        spec = SweepSpec.model_validate(sweep.spec)
        longer = spec.model_copy(update={"seeds": seeds})
        planned = planning.plan(session, longer, max_jobs=ground.max_jobs, first_seed=spec.seeds)
    with tenancy.transaction(DEFAULT) as session:
        submitting.extend(session, sweep, planned, ground.storage)


def test_more_seeds_are_the_same_points_again(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground, seeds=2, job={"seed": 7}))
    ground.finish_all()
    before = ground.look(sweep_id)
    assert before.state == "succeeded"
    extend(ground, sweep_id, 4)
    found = ground.look(sweep_id)
    assert (found.state, found.sweep.spec["seeds"]) == ("running", 4)
    assert found.version > before.version
    assert found.sweep.shared == {"stage_jobs": 4, "children_served": 12, "steps_saved": 8}
    assert Counter(child.seed for child in ground.children(sweep_id)) == {7: 3, 8: 3, 9: 3, 10: 3}
    assert len({child.job.spec["steps"][1]["keep_rate"] for child in ground.children(sweep_id)}) == 3
    assert len(ground.finish_all()) == 2 + 6


def test_who_extends_a_sweep_that_was_changed_looks_again(ground: Ground) -> None:
    sweep_id = ground.post(ground.spec())
    with tenancy.reading(DEFAULT) as session:
        sweep = reads.find(session, sweep_id)
    extend(ground, sweep_id, 2)
    with pytest.raises(Problem, match="SWEEP_CHANGED"), tenancy.transaction(DEFAULT) as session:
        submitting.extend(session, sweep, ground.plan(ground.spec(seeds=2)), ground.storage)


def test_a_sweep_is_deleted_with_all_its_jobs_once_it_is_over(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    with pytest.raises(Problem, match="SWEEP_NOT_FINISHED"):
        ground.act(verbs.delete, sweep_id)
    ground.finish_all()
    other = ground.post(ground.spec())
    ground.act(verbs.delete, sweep_id)
    assert ground.jobs(sweep_id) == []
    assert len(ground.jobs(other)) == 1
    with pytest.raises(Problem, match="NOT_FOUND"):
        ground.act(verbs.cancel, sweep_id)


def test_a_single_child_can_be_deleted_and_no_version_grows_smaller(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    ground.finish_all()
    before = ground.look(sweep_id)
    ground.act(removal.remove, ground.children(sweep_id)[1].job.id)
    found = ground.look(sweep_id)
    assert found.version > before.version
    assert [child.point for child in ground.children(sweep_id)] == [0, 2]
    assert found.tally.counts["succeeded"] == 2


def test_old_jobs_of_a_sweep_go_with_it_and_not_before(ground: Ground) -> None:
    """A stage that ended long ago stays while others may still go on from it."""
    sweep_id = ground.post(pruned(ground))
    ground.finish(ground.claim())
    time.sleep(0.01)
    with db.transaction() as session:
        assert removal.old_jobs(session, 0.0) == []
        removal.remove_old(session, 0.0)
    assert len(ground.jobs(sweep_id)) == 4
    ground.finish_all()
    time.sleep(0.01)
    with db.transaction() as session:
        assert len(removal.remove_old(session, 0.0)) >= 4
    assert ground.jobs(sweep_id) == []
    with db.reading() as session:
        assert session.scalars(select(Sweep.id)).all() == []


def test_every_change_is_an_event_of_the_job(ground: Ground) -> None:
    sweep_id = ground.post(pruned(ground))
    child = ground.children(sweep_id)[0].job.id
    ground.act(verbs.pause, sweep_id)
    ground.act(verbs.resume, sweep_id)
    ground.fail(ground.claim())
    ground.act(verbs.retry, sweep_id)
    ground.act(verbs.cancel, sweep_id)
    with db.reading() as session:
        found = select(Event).where(Event.job_id == child).order_by(Event.seq)
        told = [(event.type, event.data.get("reason")) for event in session.scalars(found)]
    assert told == [
        ("state", "submitted"),
        ("paused", None),
        ("resumed", None),
        ("state", "shared_stage"),
        ("state", "retry"),
        ("state", "cancel_requested"),
    ]


# Many at once


def test_the_sweeper_mends_a_sweep_whose_last_job_ended_unnoticed(ground: Ground) -> None:
    """As a process of the version before would end it, which knows no sweeps."""
    sweep_id = ground.post(pruned(ground))
    [stage] = ground.stages(sweep_id)
    with db.transaction() as session:
        moves.move_all(session, "cancelled", "test", Job.id == stage.id)
    with db.reading() as session:
        assert sweeps.stuck(session) == [sweep_id]
    assert outbox.sweep("somebody") == 1
    assert states(ground, sweep_id) == ["cancelled"] * 3
    with db.reading() as session:
        assert sweeps.stuck(session) == []


ADVANCES = """
import sys
import time
from app import db, jobs
from app.scheduling import schedule
from app.scheduling.schedule import Offer

db.configure(sys.argv[1])
empty = 0
while empty < 40:
    with db.transaction() as session:
        claim = schedule.claim_next(session, Offer(sys.argv[2], ("compress",)))
    if claim is None:
        empty += 1
        time.sleep(0.01)
        continue
    empty = 0
    with db.transaction() as session:
        jobs.finish(session, claim, {"stages": []})
    print(claim.job_id)
"""


def test_processes_that_end_jobs_at_once_free_each_follower_once(ground: Ground, database: str) -> None:
    """Neither a job lost nor done twice, nor more free than may be, nor a deadlock."""
    ids = [ground.post(pruned(ground, seeds=5, max_concurrent=most)) for most in (3, None)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ADVANCES, database, f"w{n}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    seen = []
    while any(worker.poll() is None for worker in workers):
        with db.reading() as session:
            free = select(Job.id).where(Job.sweep_id == ids[0], Job.state.in_(("queued", "running")))
            seen.append(len(session.scalars(free.where(Job.waits_for.is_(None))).all()))
        time.sleep(0.02)
    done = []
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
        done += out.split()
    assert len(done) == len(set(done)) == 2 * (5 + 15)
    assert max(seen) <= 3
    assert [ground.look(ident).state for ident in ids] == ["succeeded"] * 2
