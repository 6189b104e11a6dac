"""Report A6 and C3: so many bytes are asked for, and the file that is downloaded has no more."""

from pathlib import Path
from typing import Any

import pytest

import models
from app import gates
from tests.worker import jobs, tiny
from tests.worker.jobs import Ear
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress
from worker.quantization.file_size import packed_bytes
from worker.run import Run
from worker.steps import quantize

QUANTIZE = {"method": "quantize"}
TRAINING = {"epochs": 1, "batch_size": 16}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a fresh one takes seconds to load torch."""
    monkeypatch.setattr(
        Measuring, "_run", lambda measuring, order, enough: measure({**order, "latency": False})
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("photos")
    return jobs.dataset(folder / "data", tiny.write_photos(folder / "photos.zip", train=8, val=6, test=6))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("teacher")
    content = tiny.write_teacher(folder / "teacher.pt").read_bytes()
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    return jobs.inspected_teacher(folder / "inspection", content, **spec)


def distill(**student: Any) -> dict[str, Any]:
    return {"method": "distill", "student": {**jobs.STUDENT, **student}, **TRAINING}


def prune(wanted: int, **fields: Any) -> dict[str, Any]:
    target = {"bytes": wanted, "bits": 8}
    return {"method": "prune", "target": target, "max_removed": 0.1, "training": TRAINING, **fields}


def result_of(order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The result, and the file that is downloaded."""
    last = compress(order, Ear(), Stops())
    assert last["type"] == "result"
    answer = last["artifacts"][-1]
    assert answer["name"] == "final.pt"
    return last["result"], (Path(order["work_dir"]) / answer["file"]).read_bytes()


def test_distil_to_a_budget_then_8_bits_then_nothing_to_prune(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """The recommended order: what prune would do is skipped, and the 8-bit file stays one."""
    wanted = 60_000
    steps = [distill(budget={"bytes": wanted}), QUANTIZE, prune(wanted), QUANTIZE]
    result, final = result_of(jobs.order(tmp_path / "job", [teacher], photos, steps, max_bytes=wanted))
    distilled, quantized, pruned, stored = result["stages"][1:]
    said = distilled["details"]["student"]
    assert 0.8 * wanted < len(final) <= said["estimated_bytes"] <= wanted
    assert said["parameters"] == distilled["parameters"] == stored["parameters"] > 40_000
    assert pruned["details"]["iterations"] == []
    assert "is reached" in pruned["details"]["stopped"]["reason"]
    assert pruned["size_bytes"] == pytest.approx(
        quantized["size_bytes"], abs=1000
    )  # it describes one more step
    gate = {"gate": "max_bytes", "limit": wanted, "value": len(final), "passed": True}
    assert gates.judge({"max_bytes": wanted}, result) == [gate]


def test_a_network_that_is_slightly_too_large_loses_a_few_channels(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """Of the parameters at most a tenth, after the quantize step that showed it; the last one stores what was trained."""
    first = jobs.order(tmp_path / "first", [teacher], photos, [distill(width=0.5), QUANTIZE])
    _, too_large = result_of(first)
    wanted = round(0.96 * len(too_large))
    steps = [distill(width=0.5), QUANTIZE, prune(wanted), QUANTIZE]
    result, final = result_of(jobs.order(tmp_path / "job", [teacher], photos, steps, max_bytes=wanted))
    quantized, pruned = result["stages"][2:4]
    (row,) = pruned["details"]["iterations"]
    assert quantized["size_bytes"] > wanted
    assert 0.9 < row["parameters"] / quantized["parameters"] < 1
    assert row["epochs"] == 1
    assert 0.8 * wanted < len(final) <= wanted
    assert gates.judged({"max_bytes": wanted}, result)["passed"]


def test_what_the_pipeline_adds_to_the_file_is_counted(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, metrics and digests, before they are known: the answer's file has no byte more, and few less."""
    honest, runs = quantize.apply, []

    def listens(model: Any, spec: Any, run: Run) -> Any:
        runs.append(run)
        return honest(model, spec, run)

    monkeypatch.setattr(quantize, "apply", listens)
    steps = [QUANTIZE, {"method": "finetune", **TRAINING}, QUANTIZE]
    _, final = result_of(jobs.order(tmp_path / "job", [teacher], photos, steps))
    (tmp_path / "final.pt").write_bytes(final)
    network = models.load(tmp_path / "final.pt")
    assert network.preprocessing is not None
    for run in runs:
        assert 0 <= packed_bytes(network, 8, run) - len(final) <= 64
        with_nothing = Run(**{**vars(run), "packed_with": {}})
        assert len(final) - packed_bytes(network, 8, with_nothing) > 300
