"""The table of app.analysis over results as the pipeline really makes them."""

import statistics
from typing import Any

import pytest

from app.analysis.columns import NUMBERS
from app.analysis.table import Row, rows
from app.sweeps.reads import Child
from app.tables import Job
from tests.worker import jobs, tiny
from tests.worker.jobs import DISTILL, Ear
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress

TRAIN = {**DISTILL, "epochs": 6}
PRUNE = {"method": "prune", "criterion": "l2", "keep_rate": 0.8, "iterations": 2, "recover": "finetune"}
PRUNE |= {"training": {"epochs": 1, "batch_size": 16}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Child, dict[str, Any], Ear]:
    """A job that trained and pruned, its result, and what its trainer said."""
    folder = tmp_path_factory.mktemp("table")
    archive = tiny.write_photos(folder / "photos.zip", train=8, val=6, test=6)
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    checkpoint = tiny.write_teacher(folder / "teacher.pt").read_bytes()
    teacher = jobs.inspected_teacher(folder / "inspection", checkpoint, **spec)
    order = jobs.order(
        folder / "job", [teacher], jobs.dataset(folder / "data", archive), [TRAIN, PRUNE], seed=3
    )
    ear = Ear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measuring, "_run", lambda measuring, order, enough: measure(order))
        result = compress(order, ear, Stops())["result"]
    job = Job(id="job_1", spec=order["spec"], result=result, error=None)
    return Child(job, point=0, params={}, seed=3, state="succeeded"), result, ear


def table(finished: Any, kind: Any) -> list[Row]:
    child, _, ear = finished
    noted = {
        ("job_1", 0, message["step"]): message["value"]
        for message in ear.of("metric")
        if message["name"] == "best_k_mean_accuracy_optimistic"
    }
    return rows([child], kind, best_epochs=noted)


def test_every_number_of_an_answer_is_found_where_the_pipeline_puts_it(finished: Any) -> None:
    """None is null but the best epochs, which a prune step has none of."""
    [answer] = table(finished, "answers")
    assert {name for name in NUMBERS if answer[name] is None} == {"val_accuracy_best5"}
    last = finished[1]["stages"][-1]
    assert answer["test_accuracy"] == last["splits"]["test"]["num_correct"] / 12
    assert answer["compression_ratio"] == finished[1]["stages"][0]["size_bytes"] / last["size_bytes"]
    assert answer["epochs"] == 6 + 2
    assert answer["test_leaked"] is False


def test_the_best_epochs_are_the_mean_of_the_five_best(finished: Any) -> None:
    """Of the accuracies of all epochs, as they were noted one by one."""
    accuracies = [
        message["value"]
        for message in finished[2].of("metric")
        if (message["step"], message["name"], message["split"]) == (1, "accuracy", "val")
        and message["epoch"] > 0
    ]
    assert len(accuracies) == 6
    [_, trained, _] = table(finished, "stages")
    assert trained["val_accuracy_best5"] == pytest.approx(statistics.fmean(sorted(accuracies)[1:]))


def test_iterations_end_where_the_stage_does(finished: Any) -> None:
    """The last one is the network that was packed, at the cost of the whole."""
    found = table(finished, "iterations")
    [answer] = table(finished, "answers")
    [_, trained, _] = table(finished, "stages")
    assert [row["iteration"] for row in found] == [0, 1, 2]
    for name in ("parameters", "macs"):
        assert found[0][name] == trained[name]
        assert found[-1][name] == answer[name] < trained[name]
    for name in ("epochs", "train_macs"):
        assert found[0][name] == trained[name]
        assert found[-1][name] == answer[name]
    assert found[-1]["accuracy_after"] == pytest.approx(answer["val_accuracy"])
