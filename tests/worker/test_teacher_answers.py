"""A teacher is measured once for all jobs of a tenant, and no job can tell but by its latency."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker import jobs, tiny
from tests.worker.jobs import Ear
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress
from worker.shared_files import SharedFiles

QUANTIZE = [{"method": "quantize"}]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("photos")
    return jobs.dataset(folder / "data", tiny.write_photos(folder / "photos.zip", train=6, val=6, test=6))


def make_teacher(
    folder: Path, *, seed: int = 0, class_names: tuple[str, ...] = tiny.CLASSES
) -> dict[str, Any]:
    content = tiny.write_teacher(folder.with_suffix(".pt"), seed=seed, class_names=class_names).read_bytes()
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(class_names),
    }
    return jobs.inspected_teacher(folder, content, **spec)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "t")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of measuring processes, in this process; latency included."""
    asked: list[dict[str, Any]] = []

    def run(measuring: Measuring, order: dict[str, Any], enough: Any) -> dict[str, Any]:
        asked.append(order)
        return measure(order)

    monkeypatch.setattr(Measuring, "_run", run)
    return asked


def done(
    work_dir: Path, teacher: dict[str, Any], photos: dict[str, Any], shared: Path | None, **order: Any
) -> tuple[dict[str, Any], Ear]:
    made = jobs.order(work_dir, [teacher], photos, QUANTIZE) | order
    ear = Ear()
    last = compress(made | ({"shared_dir": str(shared)} if shared else {}), ear, Stops())
    assert last["type"] == "result"
    return last, ear


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    stages = []
    for stage in result["stages"]:
        kept = {key: value for key, value in stage.items() if key not in ("seconds", "latency_ms", "cost")}
        members = kept.get("teachers", [])
        kept["teachers"] = [{k: v for k, v in member.items() if k != "latency_ms"} for member in members]
        stages.append(kept)
    return result | {"stages": stages}


def test_the_second_job_measures_only_the_latency(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    """All else is the same as without sharing: numbers, agreement, and what a later attempt finds."""
    alone, _ = done(tmp_path / "alone", teacher, photos, None)
    first, _ = done(tmp_path / "first", teacher, photos, tmp_path / "shared")
    measured.clear()
    second, ear = done(tmp_path / "second", teacher, photos, tmp_path / "shared")
    assert [order["splits"] for order in measured] == [[], ["train", "val", "test"]]
    assert without_times(first["result"]) == without_times(alone["result"]) == without_times(second["result"])
    latencies = [last["result"]["stages"][0]["latency_ms"] for last in (first, second)]
    assert latencies[0]["n"] == latencies[1]["n"] > 0
    assert latencies[0] != latencies[1]
    assert "only its latency is measured again" in " ".join(m["message"] for m in ear.of("log"))
    logits = [
        torch.load(tmp_path / name / "stages" / "0-0.logits", weights_only=True)
        for name in ("first", "second")
    ]
    assert all(torch.equal(logits[0][split], logits[1][split]) for split in ("train", "val", "test"))
    measured.clear()
    again, _ = done(tmp_path / "second", teacher, photos, tmp_path / "shared")
    assert measured == []
    assert again["result"]["stages"][0] == second["result"]["stages"][0]


def test_what_is_told_of_a_teacher_is_its_own(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    """The same bytes uploaded again under another name, and declared to be better than they are."""
    done(tmp_path / "first", teacher, photos, tmp_path / "shared")
    measured.clear()
    other = {**teacher, "id": "tch_2", "declared_accuracy": 0.2, "size_bytes": 7}
    last, _ = done(tmp_path / "second", other, photos, tmp_path / "shared")
    assert measured[0]["splits"] == []
    (member,) = last["result"]["stages"][0]["teachers"]
    assert (member["id"], member["size_bytes"]) == ("tch_2", 7)
    assert "tch_2 was declared with an accuracy of 0.2" in last["result"]["warnings"][0]


@pytest.mark.parametrize("other", ["teacher", "classes", "photos", "threads"])
def test_what_decides_an_answer_is_asked_anew(
    teacher: dict[str, Any],
    photos: dict[str, Any],
    tmp_path: Path,
    measured: list[dict[str, Any]],
    other: str,
) -> None:
    done(tmp_path / "first", teacher, photos, tmp_path / "shared")
    measured.clear()
    order: dict[str, Any] = {}
    if other == "teacher":
        teacher = make_teacher(tmp_path / "other", seed=3)
    elif other == "classes":
        teacher = make_teacher(tmp_path / "other", class_names=("light", "dark"))
    elif other == "photos":
        photos = jobs.dataset(
            tmp_path / "data", tiny.write_photos(tmp_path / "more.zip", train=6, val=6, test=7)
        )
    else:
        order["num_threads"] = 2
    try:
        done(tmp_path / "second", teacher, photos, tmp_path / "shared", **order)
    finally:
        torch.set_num_threads(1)
    assert measured[0]["splits"] == ["train", "val", "test"]


@pytest.mark.parametrize("harm", ["damaged", "no answers", "of other images"])
def test_what_cannot_be_used_is_measured_again(
    teacher: dict[str, Any],
    photos: dict[str, Any],
    tmp_path: Path,
    measured: list[dict[str, Any]],
    harm: str,
) -> None:
    first, _ = done(tmp_path / "first", teacher, photos, tmp_path / "shared")
    (path,) = (tmp_path / "shared").iterdir()
    whole = path.read_bytes()
    if harm == "damaged":
        path.write_bytes(whole[:-1])
    elif harm == "no answers":
        SharedFiles(tmp_path / "shared").keep(path.name, b"not what torch.load reads")
    else:
        record = {"record": "{}", "logits": {split: torch.zeros(1, 2) for split in ("train", "val", "test")}}
        torch.save(record, tmp_path / "record")
        SharedFiles(tmp_path / "shared").keep_file(path.name, tmp_path / "record")
    measured.clear()
    second, _ = done(tmp_path / "second", teacher, photos, tmp_path / "shared")
    assert measured[0]["splits"] == ["train", "val", "test"]
    stages = [without_times(last["result"])["stages"] for last in (first, second)]
    assert stages[0] == stages[1]
    assert bool(second["result"]["warnings"]) == (harm != "damaged")
    assert path.read_bytes() == whole


def test_latency_is_that_of_a_network_that_answers(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of one in training, whose batch norms count again: also behind the counting of its accuracy."""
    modes: list[bool] = []

    def latency(network: torch.nn.Module, *rest: Any) -> dict[str, Any]:
        modes.extend(module.training for module in network.modules())
        return {"median": 1.0}

    monkeypatch.setattr("worker.measure.latency", latency)
    monkeypatch.setattr(Measuring, "_run", lambda measuring, order, enough: measure(order))
    done(tmp_path / "work", teacher, photos, None)
    assert set(modes) == {False}
