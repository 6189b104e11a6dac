"""Which first steps are done once: trees drawn by hand, and a naive count of distinct beginnings."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.canonical import canonical_json
from app.spec.job import JobSpec
from app.spec.steps import STEPS
from app.sweeps.stages import Stage, Tree, tree

TRAIN = {"method": "train", "student": "student_net", "epochs": 8}
QUANTIZE = {"method": "quantize"}
FOLD = {"method": "fold"}


def prune(keep_rate: float, **more: Any) -> dict[str, Any]:
    return {"method": "prune", "keep_rate": keep_rate, **more}


def tune(epochs: int) -> dict[str, Any]:
    return {"method": "finetune", "epochs": epochs}


def job(*steps: dict[str, Any], **more: Any) -> JobSpec:
    body = {"teachers": ["tch_1"], "dataset": "dst_1", "steps": list(steps)}
    return JobSpec.model_validate(body | more)


def found(*jobs: JobSpec) -> Tree:
    return tree(jobs)


def test_one_training_and_what_follows_it() -> None:
    shared = found(job(TRAIN, prune(0.9)), job(TRAIN, prune(0.8)), job(TRAIN, QUANTIZE))
    assert shared == Tree([Stage(1, [0, 1, 2])], [0, 0, 0])
    assert (shared.num_served, shared.steps_saved) == (3, 2)


def test_stages_come_after_stages() -> None:
    """Named are 11 steps; done are train, prune, and five last ones."""
    shared = found(
        job(TRAIN, prune(0.9), QUANTIZE),
        job(TRAIN, prune(0.9), {**QUANTIZE, "bits": 4}),
        job(TRAIN, prune(0.8), QUANTIZE),
        job(TRAIN, QUANTIZE),
    )
    assert shared.stages == [Stage(1, [0, 1, 2, 3]), Stage(2, [0, 1], after=0, begun_steps=1)]
    assert shared.after == [1, 1, 0, 0]
    assert shared.steps_saved == 11 - (1 + 1 + 1 + 1 + 2 + 1)


def test_the_longest_beginning_is_one_stage() -> None:
    """Two jobs that part after three steps have one stage of three."""
    shared = found(
        job(TRAIN, prune(0.9), FOLD, QUANTIZE), job(TRAIN, prune(0.9), FOLD, {**QUANTIZE, "bits": 4})
    )
    assert shared == Tree([Stage(3, [0, 1])], [0, 0])


def test_a_job_that_others_go_on_from_takes_all_its_steps_over() -> None:
    """Its last step is theirs; without others the last step is its own, though another job is its double."""
    shared = found(job(TRAIN), job(TRAIN, QUANTIZE))
    assert shared == Tree([Stage(1, [0, 1])], [0, 0])
    assert shared.begun_steps(0) == 1
    assert found(job(TRAIN), job(TRAIN)) == Tree([], [None, None])
    assert found(job(TRAIN, QUANTIZE), job(TRAIN, QUANTIZE)) == Tree([Stage(1, [0, 1])], [0, 0])


def test_nothing_is_shared_by_one_alone_nor_where_anything_differs() -> None:
    first = job(TRAIN, QUANTIZE)
    for other in (
        job({**TRAIN, "epochs": 9}, QUANTIZE),
        job(TRAIN, QUANTIZE, seed=1),
        job(TRAIN, QUANTIZE, teachers=["tch_2"]),
        job(TRAIN, QUANTIZE, dataset="dst_2"),
        job(TRAIN, QUANTIZE, device="cpu"),
        job(TRAIN, QUANTIZE, num_threads=1),
    ):
        assert found(first, other) == Tree([], [None, None])
    same = job(TRAIN, prune(0.9), priority=3, name="b", labels={"a": "b"}, max_bytes=7, memory_bytes=9)
    assert found(first, same).num_served == 2


def test_steps_that_train_nothing_are_no_job() -> None:
    """They cost less than to wait for them. Behind a training they go with it."""
    assert found(job(FOLD, QUANTIZE), job(FOLD, {**QUANTIZE, "bits": 4})).stages == []
    quick = prune(0.9, recover="none")
    assert found(job(quick, QUANTIZE), job(quick, FOLD)).stages == []
    shared = found(
        job(TRAIN, FOLD, QUANTIZE), job(TRAIN, FOLD, {**QUANTIZE, "bits": 4}), job(TRAIN, prune(0.9))
    )
    assert shared == Tree([Stage(1, [0, 1, 2])], [0, 0, 0])


def test_a_step_that_depends_on_what_follows_is_not_shared() -> None:
    """A byte budget counts the description of all steps; what comes before it is shared."""
    budget = {**TRAIN, "student": {"architecture": "student_net", "budget": {"bytes": 100_000}}}
    assert found(job(budget, QUANTIZE), job(budget, prune(0.9))).stages == []
    to_bytes = {"method": "prune", "target": {"bytes": 100_000}}
    shared = found(job(TRAIN, to_bytes, QUANTIZE), job(TRAIN, to_bytes, {**QUANTIZE, "bits": 4}))
    assert shared.stages == [Stage(1, [0, 1])]
    to_parameters = {"method": "prune", "target": {"parameters": 100_000}}
    shared = found(job(TRAIN, to_parameters, QUANTIZE), job(TRAIN, to_parameters, {**QUANTIZE, "bits": 4}))
    assert shared.stages == [Stage(2, [0, 1])]


def test_every_step_says_whether_it_depends_on_later_ones() -> None:
    """Whatever is packed to be measured before the end must; a budget in a field of bytes is how it is asked for."""
    with_bytes = {name for name, kind in STEPS.items() if _mentions_bytes(kind.model_json_schema())}
    declared = {name for name, kind in STEPS.items() if "depends_on_later_steps" in vars(kind)}
    assert with_bytes == declared


def _mentions_bytes(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "bytes" in schema.get("properties", {}) or any(map(_mentions_bytes, schema.values()))
    return isinstance(schema, list) and any(map(_mentions_bytes, schema))


def test_a_training_keeps_the_weights_that_others_go_back_to() -> None:
    """Rewinding experiments share one training, each going back to epochs of its own."""

    def rewind(epoch: int, keep_rate: float = 0.9) -> dict[str, Any]:
        return prune(keep_rate, recover="weight_rewind", weights_from_epoch=epoch)

    shared = found(
        job(TRAIN, rewind(3)), job(TRAIN, rewind(0)), job(TRAIN, prune(0.9), rewind(5)), job(TRAIN, QUANTIZE)
    )
    assert shared == Tree([Stage(1, [0, 1, 2, 3], snapshot_epochs={"1": [0, 3, 5]})], [0, 0, 0, 0])
    shared = found(
        job(TRAIN, prune(0.9), rewind(2)),
        job(TRAIN, prune(0.9), rewind(4)),
        job(TRAIN, tune(3), rewind(1)),
        job(TRAIN, tune(3), QUANTIZE),
    )
    assert [(stage.num_steps, stage.snapshot_epochs) for stage in shared.stages] == [
        (1, {"1": [2, 4]}),
        (2, {"1": [2, 4]}),
        (2, {"2": [1]}),
    ]


steps = st.sampled_from([TRAIN, tune(1), tune(2)])
jobs = st.builds(
    lambda steps, seed: job(*steps, seed=seed), st.lists(steps, min_size=1, max_size=4), st.integers(0, 1)
)


@given(st.lists(jobs, max_size=8))
def test_each_distinct_beginning_is_done_once(jobs: Sequence[JobSpec]) -> None:
    """Against a count of the beginnings themselves: those of several jobs once, unless all end with it; others as often as
    they are named."""
    shared = tree(jobs)
    named: Counter[str] = Counter()
    goes_on: set[str] = set()
    for one in jobs:
        for number in range(1, len(one.steps) + 1):
            named[_beginning(one, number)] += 1
            goes_on |= {_beginning(one, number)} if number < len(one.steps) else set()
    done = sum(1 if times > 1 and key in goes_on else times for key, times in named.items())
    assert sum(len(one.steps) for one in jobs) - shared.steps_saved == done


@given(st.lists(jobs, max_size=8))
def test_whoever_goes_on_from_a_stage_begins_with_its_steps(jobs: Sequence[JobSpec]) -> None:
    shared = tree(jobs)
    for position, stage in enumerate(shared.stages):
        assert len(stage.members) > 1
        assert len({_beginning(jobs[member], stage.num_steps) for member in stage.members}) == 1
        if stage.after is not None:
            before = shared.stages[stage.after]
            assert stage.after < position
            assert before.num_steps == stage.begun_steps < stage.num_steps
            assert set(stage.members) < set(before.members)
    for at, after in enumerate(shared.after):
        assert (after is None) == all(at not in stage.members for stage in shared.stages)
        if after is not None:
            assert shared.stages[after].num_steps == max(
                stage.num_steps for stage in shared.stages if at in stage.members
            )


def _beginning(one: JobSpec, number: int) -> str:
    described = one.model_dump(mode="json")
    return canonical_json([described["seed"], described["steps"][:number]])
