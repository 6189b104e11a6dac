"""From results to rows: every number where it belongs, and nothing where there is none."""

from typing import Any

import pytest

from app.analysis.columns import NUMBERS, axis_columns, columns, number_column
from app.analysis.table import rows
from app.errors import Problem
from tests.app.analysis.made import TEACHER_BYTES, TEACHER_MACS, child, result, stage, teacher


def test_an_answer_is_the_last_stage() -> None:
    """Each column from its place in the result; what training took is summed over the steps."""
    first = stage(1, "distill", cost={"epochs": 30.0, "seconds": 50.0, "macs": 7_000_000}, seconds=60.0)
    last = stage(
        2, "quantize", size_bytes=250_000, cost={"epochs": 0.0, "seconds": 0.0, "macs": 0}, seconds=1.5
    )
    [found] = rows([child(1, {"alpha": 0.8}, result=result(first, last), point=4, seed=2)])
    assert found == {
        "job_id": "job_1",
        "point": 4,
        "alpha": 0.8,
        "seed": 2,
        "state": "succeeded",
        "code": None,
        "step": 2,
        "method": "quantize",
        "train_accuracy": 0.9,
        "val_accuracy": 0.8,
        "test_accuracy": 0.75,
        "val_loss": pytest.approx(0.2),
        "test_loss": 0.25,
        "val_agreement": 0.85,
        "test_agreement": 0.84,
        "val_accuracy_best5": None,
        "size_bytes": 250_000,
        "parameters": 240_000,
        "macs": 40_000_000,
        "latency_ms": 2.5,
        "compression_ratio": TEACHER_BYTES / 250_000,
        "speed_up": TEACHER_MACS / 40_000_000,
        "epochs": 30.0,
        "train_macs": 7_000_000,
        "seconds": 61.5,
        "teacher_val_accuracy": 0.8,
        "teacher_test_accuracy": 0.75,
        "val_leaked": False,
        "test_leaked": False,
    }


def test_stages_begin_with_the_teacher() -> None:
    """Step 0 is as large as itself, and nobody knows what its training took."""
    done = result(stage(1, "distill"), stage(2, "fold"))
    found = rows([child(1, {}, result=done)], "stages")
    assert [(row["step"], row["method"]) for row in found] == [(0, "teacher"), (1, "distill"), (2, "fold")]
    assert (found[0]["compression_ratio"], found[0]["speed_up"]) == (1, 1)
    assert [row["epochs"] for row in found] == [None, 10, 20]
    assert found[0]["val_agreement"] is None
    assert found[0]["size_bytes"] == TEACHER_BYTES


@pytest.mark.parametrize("kind", ["answers", "stages", "iterations"])
@pytest.mark.parametrize("state", ["queued", "running", "failed", "infeasible", "cancelled"])
def test_a_job_without_a_result_is_a_row_of_nulls(kind: Any, state: str) -> None:
    """With its state and why."""
    error = {"code": "TARGET_UNREACHABLE", "detail": "…"} if state == "infeasible" else None
    [found] = rows([child(3, {"alpha": 1}, state=state, point=2, seed=5, error=error)], kind)
    told = {"job_id": "job_3", "point": 2, "alpha": 1, "seed": 5, "state": state}
    told |= {"code": "TARGET_UNREACHABLE"} if error else {}
    assert {name: value for name, value in found.items() if value is not None} == told
    assert list(found) == [column.name for column in columns(["alpha"], kind)]


def test_what_a_cancelled_job_left_is_no_answer() -> None:
    """Its finished stages are stages all the same."""
    left = child(1, {}, result=result(stage(1, "distill")), state="cancelled")
    assert rows([left])[0]["test_accuracy"] is None
    assert [row["step"] for row in rows([left], "stages")] == [0, 1]


def test_iterations_are_the_prune_steps_own() -> None:
    """From the network before the first cut; costs count up over the step, and the steps before are in them."""
    noted = [
        {
            "iteration": n,
            "parameters": 200_000 - 10_000 * n,
            "macs": 30_000_000 - 1_000_000 * n,
            "accuracy_before": 0.5 + n / 10,
            "accuracy_after": 0.6 + n / 10,
            "epochs": 2.0,
            "seconds": 3.0,
            "trained_macs": 100,
            "removed": 5,
        }
        for n in (1, 2)
    ]
    start = {"parameters": 200_000, "macs": 30_000_000, "accuracy": 0.9, "bytes": 800_000}
    # One epoch of sparse training came before the first cut.
    prune = stage(2, "prune", details={"start": start, "iterations": noted, "widths": {}})
    prune |= {"cost": {"epochs": 5.0, "seconds": 7.0, "macs": 250}, "seconds": 20.0}
    done = result(stage(1, "train"), prune, stage(3, "quantize"))
    found = rows([child(1, {}, result=done)], "iterations")
    shown = (
        "step",
        "iteration",
        "parameters",
        "accuracy_before",
        "accuracy_after",
        "epochs",
        "train_macs",
        "seconds",
    )
    assert [tuple(row[name] for name in shown) for row in found] == [
        (2, 0, 200_000, 0.9, 0.9, 11.0, 5_000_050, 13.0),
        (2, 1, 190_000, 0.6, 0.7, 13.0, 5_000_150, 16.0),
        (2, 2, 180_000, 0.7, 0.8, 15.0, 5_000_250, 19.0),
    ]
    assert [row["size_bytes"] for row in found] == [800_000, None, None]
    assert found[0]["compression_ratio"] == TEACHER_BYTES / 800_000
    assert found[2]["speed_up"] == TEACHER_MACS / 28_000_000
    assert all(row["val_accuracy"] is None for row in found), "of no file that is there"


def test_every_seed_of_a_job_is_a_row() -> None:
    """The result's own stages are those of one of them."""
    seeds = [
        {"seed": 5 + n, "stages": [stage(1, "distill", size_bytes=size)]}
        for n, size in enumerate((10, 20, 30))
    ]
    done = result(seeds[1]["stages"][0], seeds=seeds, seed=6)
    found = rows([child(1, {}, result=done, seed=5)], best_epochs={("job_1", 3, 1): 0.7})
    assert [(row["seed"], row["size_bytes"]) for row in found] == [(5, 10), (6, 20), (7, 30)]
    assert all(row["compression_ratio"] for row in found)


def test_a_table_of_soft_labels_is_not_compressed() -> None:
    """A file of labels has bytes, and no network to be larger than."""
    done = result(stage(1, "distill"))
    done["stages"][0] = teacher(parameters=0, macs=0, size_bytes=5_000_000)
    [found] = rows([child(1, {}, result=done)])
    assert (found["compression_ratio"], found["speed_up"]) == (None, None)
    assert found["size_bytes"] == 1_000_000


def test_splits_that_are_not_there_are_null() -> None:
    """So is a latency that was not taken."""
    bare = stage(1, "distill", splits={"val": {"accuracy": 0.5, "loss": 1.0}}, agreement={}, latency_ms=None)
    [found] = rows([child(1, {}, result=result(bare))])
    assert (found["val_accuracy"], found["test_accuracy"], found["train_accuracy"]) == (0.5, None, None)
    assert (found["latency_ms"], found["val_agreement"], found["test_leaked"]) == (None, None, None)


# ---- the five best epochs


@pytest.mark.parametrize(
    ("method", "epochs", "best_k", "is_told"),
    [
        ("distill", 5.0, 5, True),
        ("distill", 4.0, 5, False),
        ("distill", 9.0, 3, False),
        ("prune", 9.0, 5, False),
    ],
)
def test_best_epochs_are_five_or_none(method: str, epochs: float, best_k: int, is_told: bool) -> None:
    """Not the mean of fewer, nor of another k, nor of epochs of several networks."""
    trained = stage(1, method, cost={"epochs": epochs, "seconds": 1.0, "macs": 1})
    one = child(1, {}, result=result(trained), steps=[{"method": method, "best_k": best_k}])
    [found] = rows([one], best_epochs={("job_1", 0, 1): 0.77})
    assert found["val_accuracy_best5"] == (0.77 if is_told else None)


def test_best_epochs_of_a_stage_that_was_taken_over() -> None:
    """They are among the metrics of the job that trained it."""
    trained = stage(1, "train", shared_from="job_9")
    steps = [{"method": "train", "best_k": 5}, {"method": "fold"}]
    one = child(1, {}, result=result(trained, stage(2, "fold")), steps=steps)
    noted = {("job_9", 0, 1): 0.7, ("job_1", 0, 1): 0.1}
    assert [row["val_accuracy_best5"] for row in rows([one], "stages", best_epochs=noted)] == [
        None,
        0.7,
        None,
    ]
    again = child(2, {}, result=result(stage(1, "train"), reused_from="job_9"), steps=steps)
    assert rows([again], best_epochs=noted)[0]["val_accuracy_best5"] == 0.7


# ---- columns


def test_an_axis_gives_way_to_a_column_of_its_name() -> None:
    """Also where that name is taken as well."""
    assert axis_columns(["lr", "epochs", "axis_epochs", "seed", "iteration"]) == {
        "lr": "lr",
        "epochs": "axis_epochs",
        "axis_epochs": "axis_axis_epochs",
        "seed": "axis_seed",
        "iteration": "axis_iteration",
    }
    [found] = rows([child(1, {"epochs": 7}, result=result(stage(1, "train")))])
    assert (found["axis_epochs"], found["epochs"]) == (7, 10)


def test_every_column_says_what_it_is() -> None:
    """Unit and sentence; numbers say which way is better."""
    for kind in ("answers", "stages", "iterations"):
        names = [column.name for column in columns(["alpha"], kind)]
        assert len(names) == len(set(names))
        assert names[:4] == ["job_id", "point", "alpha", "seed"]
    for column in columns([], "iterations"):
        assert column.description.endswith(".")
        assert (column.unit is None) == (column.better is None and column.type != "number")


def test_a_column_that_is_none_is_named_with_those_that_are() -> None:
    with pytest.raises(Problem) as refused:
        number_column("accuracy", "x")
    assert refused.value.code == "UNKNOWN_COLUMN"
    assert all(name in refused.value.detail for name in NUMBERS)
    for name in ("seed", "step", "state", "val_leaked", "iteration"):
        with pytest.raises(Problem):
            number_column(name, "x")
