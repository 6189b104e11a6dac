"""From axes to points, against grids counted by hand and a naive loop; errors lie where the caller wrote them."""

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Problem
from app.spec.sweep import SweepSpec
from app.sweeps.points import grid, jobs_at

DISTILL = {"method": "distill", "student": "student_net", "epochs": 4}
JOB: dict[str, Any] = {"teachers": ["tch_1"], "dataset": "dst_1", "steps": [DISTILL]}


def spec(*axes: Any, job: dict[str, Any] = JOB, **more: Any) -> SweepSpec:
    return SweepSpec.model_validate({"job": job, "axes": list(axes), **more})


def params(made: SweepSpec) -> list[dict[str, Any]]:
    return [point.params for point in grid(made)]


def jobs(made: SweepSpec) -> list[Any]:
    return jobs_at(made, grid(made))


def test_no_axes_are_one_point() -> None:
    assert params(spec()) == [{}]
    assert [job.steps[0].epochs for job in jobs(spec())] == [4]


def test_the_last_axis_is_the_fastest() -> None:
    made = spec(
        {"field": "/steps/0/alpha", "values": [0, 0.5]}, {"field": "/steps/0/epochs", "values": [1, 2, 3]}
    )
    assert params(made) == [
        {"alpha": 0, "epochs": 1},
        {"alpha": 0, "epochs": 2},
        {"alpha": 0, "epochs": 3},
        {"alpha": 0.5, "epochs": 1},
        {"alpha": 0.5, "epochs": 2},
        {"alpha": 0.5, "epochs": 3},
    ]
    assert [(job.steps[0].alpha, job.steps[0].epochs) for job in jobs(made)] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (0.5, 1),
        (0.5, 2),
        (0.5, 3),
    ]


def test_zipped_fields_go_in_step_and_a_list_of_fields_together() -> None:
    made = spec(
        {
            "zip": [
                {"field": "/steps/0/epochs", "values": [2, 3]},
                {"name": "rate", "field": "/steps/0/learning_rate", "values": [0.1, 0.2]},
            ]
        },
        {"field": ["/seed", "/priority"], "values": [7]},
    )
    assert params(made) == [{"epochs": 2, "rate": 0.1, "seed": 7}, {"epochs": 3, "rate": 0.2, "seed": 7}]
    assert [
        (job.steps[0].epochs, job.steps[0].learning_rate, job.seed, job.priority) for job in jobs(made)
    ] == [
        (2, 0.1, 7, 7),
        (3, 0.2, 7, 7),
    ]


def test_named_points_set_whole_plans_and_what_is_in_them() -> None:
    """A field before what is in it, in whatever order they came: a database keeps none."""
    pruned = {
        "/steps/0/keep_rate": 0.5,
        "/steps": [{"method": "prune", "keep_rate": 0.9}],
        "/teachers": ["tch_2"],
    }
    made = spec(
        {
            "name": "plan",
            "points": [{"name": "as it is", "set": {}}, {"name": "pruned", "set": pruned}],
        },
        {"name": "step", "points": [{"name": "one", "set": {"/steps/-": {"method": "quantize"}}}]},
    )
    first, second = jobs(made)
    assert [step.method for step in first.steps] == ["distill", "quantize"]
    assert [step.method for step in second.steps] == ["prune", "quantize"]
    assert (second.steps[0].keep_rate, second.teachers, first.teachers) == (0.5, ["tch_2"], ["tch_1"])
    assert [point.title for point in grid(made)] == ["plan=as it is, step=one", "plan=pruned, step=one"]


def test_the_base_may_lack_what_every_point_sets() -> None:
    made = spec({"field": "/dataset", "values": ["dst_1", "dst_2"]}, job={**JOB, "dataset": None})
    assert [job.dataset for job in jobs(made)] == ["dst_1", "dst_2"]


def test_points_do_not_see_each_others_changes() -> None:
    """Nor does the spec: what is set is a copy."""
    plan = [{"method": "quantize"}]
    made = spec(
        {"name": "plan", "points": [{"name": "a", "set": {"/steps": plan}}]},
        {"field": "/steps/0/bits", "values": [2, 3]},
    )
    before = copy.deepcopy(made.model_dump())
    assert [job.steps[0].bits for job in jobs(made)] == [2, 3]
    assert made.model_dump() == before
    assert plan == [{"method": "quantize"}]


@pytest.mark.parametrize(
    ("axes", "pointer", "code", "says"),
    [
        (
            [{"field": "/steps/0/alpha", "values": [0, 0.5, 2]}],
            "/axes/0/values/2",
            "LESS_THAN_EQUAL",
            "At point 2 (alpha=2)",
        ),
        (
            [{"field": "/steps/3/alpha", "values": [0]}],
            "/axes/0/values/0",
            "NO_SUCH_PARENT",
            "nothing at /steps/3",
        ),
        (
            [{"field": "/steps/2", "name": "s", "values": [{}]}],
            "/axes/0/values/0",
            "NO_SUCH_PARENT",
            "/steps has 1 entries",
        ),
        (
            [{"field": "/dataset/a", "values": [0]}],
            "/axes/0/values/0",
            "NO_SUCH_PARENT",
            "neither an object nor a list",
        ),
        (
            [{"field": "/steps/0/alhpa", "values": [0]}],
            "/axes/0/values/0",
            "EXTRA_FORBIDDEN",
            "At point 0 (alhpa=0)",
        ),
        (
            [
                {
                    "name": "p",
                    "points": [{"name": "a", "set": {"/steps": [{"method": "quantize", "bits": 99}]}}],
                }
            ],
            "/axes/0/points/0/set/~1steps/0/bits",
            "LESS_THAN_EQUAL",
            "At point 0 (p=a)",
        ),
        (
            [
                {
                    "zip": [
                        {"field": "/steps/0/epochs", "values": [1, 0]},
                        {"field": "/seed", "values": [1, 2]},
                    ]
                }
            ],
            "/axes/0/zip/0/values/1",
            "GREATER_THAN_EQUAL",
            "At point 1 (epochs=0, seed=2)",
        ),
        ([{"field": "/seeds", "values": [2]}], "/axes/0/values/0", "SEEDS_OF_A_JOB", "has one seed"),
    ],
)
def test_an_error_lies_where_the_caller_wrote_it(axes: list[Any], pointer: str, code: str, says: str) -> None:
    with pytest.raises(Problem) as refused:
        jobs(spec(*axes))
    assert (refused.value.status, refused.value.code) == (422, "INVALID_SPEC")
    [error] = refused.value.errors
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert says in error["detail"]
    assert pointer in refused.value.detail


def test_what_is_wrong_everywhere_is_told_once() -> None:
    """With the first point that has it, under the job's own pointer."""
    made = spec({"field": "/seed", "values": list(range(50))}, job={**JOB, "dataset": 7})
    with pytest.raises(Problem) as refused:
        jobs(made)
    [error] = refused.value.errors
    assert error["pointer"] == "/job/dataset"
    assert error["detail"].startswith("At point 0 (seed=0): ")


def test_the_last_seed_must_be_one_too() -> None:
    with pytest.raises(Problem, match="beyond 2\\^53"):
        jobs(spec(job={**JOB, "seed": 2**53 - 2}, seeds=3))
    assert len(jobs(spec(job={**JOB, "seed": 2**53 - 2}, seeds=2))) == 1


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4, unique=True), max_size=4))
def test_any_grid_is_the_product_of_its_axes(values: list[list[int]]) -> None:
    """Each point once, in the order of nested loops."""
    made = spec(*({"field": f"/axis{n}", "values": axis} for n, axis in enumerate(values)))
    found = grid(made)
    assert [tuple(point.params.values()) for point in found] == list(itertools.product(*values))
    assert [point.number for point in found] == list(range(made.num_points))
