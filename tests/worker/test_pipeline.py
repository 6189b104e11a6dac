"""A compress job in this process: seeds, exports, what a stage's record holds, tables of soft labels."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from app.errors import Problem
from app.spec.steps.base import StepSpec
from app.spec.steps.finetune import Finetune
from tests.course import course_decode_8bit, course_encode_8bit
from tests.worker import jobs, tiny
from tests.worker.jobs import DISTILL, Ear
from worker.chain import last_training_step, snapshot_epochs, without_tables
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress
from worker.run import Run, Stopped
from worker.steps import finetune, quantize
from worker.training.snapshots import load_snapshot

QUANTIZE = {"method": "quantize", "scheme": "minmax", "tensors": "all"}


def measure_here(measuring: Measuring, order: dict[str, Any], enough: Any) -> dict[str, Any]:
    return measure({**order, "latency": False})


@pytest.fixture
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a fresh one takes seconds to load torch."""
    monkeypatch.setattr(Measuring, "_run", measure_here)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Few photos, some of them without a label."""
    folder = tmp_path_factory.mktemp("photos")
    archive = tiny.write_photos(folder / "photos.zip", train=8, val=6, test=6)
    with zipfile.ZipFile(archive, "a") as more:
        for number in range(5):
            more.writestr(f"unlabeled/{number}.png", tiny.photo(number % 2, 900 + number))
    return jobs.dataset(folder / "data", archive)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt").read_bytes()


@pytest.fixture(scope="module")
def teacher(checkpoint: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    return jobs.inspected_teacher(tmp_path_factory.mktemp("t") / "inspection", checkpoint, **spec)


def done(order: dict[str, Any], ear: Ear | None = None) -> dict[str, Any]:
    last = compress(order, ear or Ear(), Stops())
    assert last["type"] == "result"
    return last


def content_of(order: dict[str, Any], last: dict[str, Any], name: str) -> bytes:
    (artifact,) = (each for each in last["artifacts"] if each["name"] == name)
    return (Path(order["work_dir"]) / artifact["file"]).read_bytes()


# ---- seeds


@pytest.fixture(scope="module")
def three_seeds(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any], Ear]:
    order = jobs.order(
        tmp_path_factory.mktemp("job") / "three", [teacher], photos, [DISTILL, QUANTIZE], seed=5, seeds=3
    )
    ear = Ear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measuring, "_run", measure_here)
        return order, done(order, ear), ear


def test_the_answer_is_the_seed_that_is_best_on_val(three_seeds: Any) -> None:
    _, last, _ = three_seeds
    result = last["result"]
    assert [entry["seed"] for entry in result["seeds"]] == [5, 6, 7]
    accuracies = [entry["stages"][-1]["splits"]["val"]["accuracy"] for entry in result["seeds"]]
    chosen = accuracies.index(max(accuracies))
    assert result["seed"] == 5 + chosen
    assert [without_tables(stage) for stage in result["stages"][1:]] == result["seeds"][chosen]["stages"]
    assert last["artifacts"][-1]["kind"] == "final"
    assert f"seed-{chosen}/" in last["artifacts"][-1]["file"]


def test_the_summary_is_that_of_numpy(three_seeds: Any) -> None:
    """mean, std of a sample, min, max over the seeds, for each step and split."""
    _, last, _ = three_seeds
    for index, step in enumerate(last["result"]["summary"]):
        stages = [entry["stages"][index] for entry in last["result"]["seeds"]]
        assert (step["step"], step["method"]) == (stages[0]["step"], stages[0]["method"])
        for split, found in step["splits"].items():
            values = [stage["splits"][split]["accuracy"] for stage in stages]
            assert found["accuracy"]["values"] == values
            for name, expected in (
                ("mean", np.mean(values)),
                ("std", np.std(values, ddof=1)),
                ("min", np.min(values)),
                ("max", np.max(values)),
            ):
                assert found["accuracy"][name] == pytest.approx(expected, abs=1e-12)
        assert step["size_bytes"]["values"] == [stage["size_bytes"] for stage in stages]


def test_the_metrics_of_seeds_do_not_overwrite_each_other(three_seeds: Any) -> None:
    """Those of each seed under its position; the job's own are the chosen seed's, and the spread."""
    _, last, ear = three_seeds
    own = {(m["step"], m["split"], m["name"]): m["value"] for m in ear.of("metric") if "seed" not in m}
    final = last["result"]["stages"][-1]
    assert own[(2, "val", "accuracy")] == final["splits"]["val"]["accuracy"]
    spread = last["result"]["summary"][-1]["splits"]["test"]["accuracy"]
    assert own[(2, "test", "accuracy_std")] == spread["std"]
    assert own[(2, "test", "accuracy_mean")] == spread["mean"]
    assert (1, "train", "train_loss") not in own, "curves belong to their seed"
    curves = [m["seed"] for m in ear.of("metric") if m["name"] == "train_loss"]
    assert sorted(curves) == [1, 2, 3]
    fractions = [m["fraction"] for m in ear.of("progress")]
    assert fractions == sorted(fractions)
    assert [m["seed"] for m in ear.of("stage") if m["step"] == 2] == [5, 6, 7]


@pytest.mark.usefixtures("_one_process")
def test_one_seed_of_several_is_that_seed_alone(
    three_seeds: Any, teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """The same artifact, to the bit; and a job with one seed says nothing of seeds."""
    order, last, _ = three_seeds
    seed = last["result"]["seed"]
    alone = jobs.order(tmp_path / "alone", [teacher], photos, [DISTILL, QUANTIZE], seed=seed)
    again = done(alone)
    assert content_of(alone, again, "final.pt") == content_of(order, last, "final.pt")
    assert not {"seeds", "summary"} & again["result"].keys()
    assert (tmp_path / "alone" / "step-1").is_dir()


@pytest.mark.usefixtures("_one_process")
def test_a_second_attempt_goes_on_at_the_seed_that_was_under_way(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second seed: the first is not done again, and the end is the same."""
    steps = [DISTILL, QUANTIZE]
    undisturbed = jobs.order(tmp_path / "undisturbed", [teacher], photos, steps, seeds=2)
    wanted = done(undisturbed)
    order = jobs.order(tmp_path / "killed", [teacher], photos, steps, seeds=2)
    honest, seeds = quantize.apply, []

    def dies_in_the_second(model: Any, spec: Any, run: Run) -> Any:
        seeds.append(run.seed)
        if run.seed == 1 and seeds.count(1) == 1:
            raise KeyboardInterrupt
        return honest(model, spec, run)

    monkeypatch.setattr(quantize, "apply", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        compress(order, Ear(), Stops())
    again = done(order)
    assert seeds == [0, 1, 1]
    assert content_of(order, again, "final.pt") == content_of(undisturbed, wanted, "final.pt")
    assert [e["seed"] for e in again["result"]["seeds"]] == [0, 1]


@pytest.mark.usefixtures("_one_process")
def test_a_cancel_keeps_the_best_finished_seed(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = quantize.apply

    def stops_in_the_second(model: Any, spec: Any, run: Run) -> Any:
        if run.seed == 1:
            raise Stopped("cancel", model)
        return honest(model, spec, run)

    monkeypatch.setattr(quantize, "apply", stops_in_the_second)
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE], seeds=3, exports=["course_8bit"])
    last = compress(order, Ear(), Stops())
    assert last["type"] == "stopped"
    assert [(a["kind"], a["file"]) for a in last["artifacts"]] == [("best_so_far", "seed-0/stages/1.pt")]
    assert [len(entry["stages"]) for entry in last["result"]["seeds"]] == [1, 0]
    assert last["result"]["summary"][0]["size_bytes"]["std"] is None


# ---- what a stage's record holds


@pytest.mark.usefixtures("_one_process")
def test_a_stage_tells_its_cost_details_and_attachments(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered for download as well when the stage is found finished by a second attempt."""
    honest, calls = quantize.apply, []

    def thorough(model: Any, spec: Any, run: Run) -> Any:
        calls.append(run)
        run.cost.add(epochs=2.5, seconds=1.0, macs=10**12)
        run.details["rows"] = [{"layer": "a", "error": 0.5}]
        run.attachment("table.csv", "table").write_text("a,b\n")
        return honest(model, spec, run)

    monkeypatch.setattr(quantize, "apply", thorough)
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE])
    ear = Ear()
    for _ in range(2):
        last = done(order, ear)
        record = last["result"]["stages"][1]
        assert record["cost"] == {"epochs": 2.5, "seconds": 1.0, "macs": 10**12}
        assert record["details"]["rows"] == [{"layer": "a", "error": 0.5}]
        assert record["attachments"] == {"table.csv": "table"}
        assert [(a["kind"], a["name"]) for a in last["artifacts"]] == [
            ("table", "step-1-table.csv"),
            ("final", "final.pt"),
        ]
        assert content_of(order, last, "step-1-table.csv") == b"a,b\n"
    assert len(calls) == 1
    assert calls[0].rewind_dir is None


@pytest.mark.usefixtures("_one_process")
def test_agreement_counts_on_images_without_labels_too(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """The share of equal answers, worked out from the two networks again."""
    order = jobs.order(tmp_path / "job", [teacher], photos, [DISTILL])
    last = done(order)
    shares = last["result"]["stages"][1]["agreement"]
    assert set(shares) == {"train", "val", "test", "unlabeled"}
    (tmp_path / "final.pt").write_bytes(content_of(order, last, "final.pt"))
    images_NCHW = torch.stack([tiny._pixels(n % 2, 900 + n) for n in range(5)])
    answers = []
    for path in (tmp_path / "final.pt", teacher["path"]):
        network = models.load(path)
        with torch.no_grad():
            answers.append(network(models.normalise(images_NCHW, tiny.PREPROCESSING)).argmax(1))
    assert shares["unlabeled"] == pytest.approx((answers[0] == answers[1]).double().mean().item())
    assert "unlabeled" not in last["result"]["stages"][1]["splits"]


class Trains(StepSpec):
    @property
    def trains(self) -> bool:
        return True


class Rewinds(StepSpec):
    epochs: list[int]

    @property
    def rewind_epochs(self) -> list[int]:
        return self.epochs


def test_each_step_keeps_the_epochs_that_later_steps_go_back_to() -> None:
    """A rewind goes to the last training before it, over steps that do not train."""
    plain = StepSpec(method="x")
    steps = [
        Trains(method="x"),
        plain,
        Rewinds(method="x", epochs=[0, 3]),
        Rewinds(method="x", epochs=[5]),
        Trains(method="x"),
        Rewinds(method="x", epochs=[1]),
    ]
    assert [last_training_step(steps, number) for number in range(1, 7)] == [None, 1, 1, 1, 1, 5]
    assert [sorted(snapshot_epochs(steps, number)) for number in range(1, 7)] == [
        [0, 3, 5],
        [],
        [],
        [],
        [1],
        [],
    ]


@pytest.mark.usefixtures("_one_process")
def test_a_later_step_finds_the_weights_of_an_epoch(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept by the step that trained, also when that step was done by an earlier attempt."""
    found: list[dict[str, torch.Tensor]] = []

    def goes_back(model: Any, spec: Any, run: Run) -> Any:
        assert run.rewind_dir is not None
        found.extend(load_snapshot(run.rewind_dir, epoch) for epoch in (0, 2))
        if len(found) == 2:
            raise KeyboardInterrupt
        return model

    monkeypatch.setattr(finetune, "apply", goes_back)
    monkeypatch.setattr(Finetune, "rewind_epochs", property(lambda self: [0, 2]))
    steps = [
        {"method": "train", "student": jobs.STUDENT, "epochs": 2, "batch_size": 16, "select": "last"},
        QUANTIZE,
        {"method": "finetune", "epochs": 1},
    ]
    order = jobs.order(tmp_path / "job", [teacher], photos, steps)
    with pytest.raises(KeyboardInterrupt):
        compress(order, Ear(), Stops())
    done(order)
    trained = models.load(tmp_path / "job" / "stages" / "1.pt").state_dict()
    for before, after in (found[:2], found[2:]):
        assert all(torch.equal(after[name], trained[name]) for name in trained)
        assert not torch.equal(before["head.fc.weight"], trained["head.fc.weight"])


# ---- exports


def test_the_course_file_goes_in_and_comes_out_the_same(
    checkpoint: bytes, photos: dict[str, Any], tmp_path: Path
) -> None:
    """Imported, stored again by minmax, exported: equal arrays, minima and maxima. The export is measured by a fresh
    process, from its own bytes."""
    state = torch.load(jobs_file(tmp_path, checkpoint), weights_only=True)
    content = course_encode_8bit(state)
    uploaded = pickle.dumps(content, protocol=3)
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    teacher = jobs.inspected_teacher(tmp_path / "inspection", uploaded, **spec)
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE], exports=["course_8bit"])
    last = done(order)

    exported = content_of(order, last, "final.course-8bit.pkl")
    loaded = pickle.loads(exported)
    assert list(loaded) == list(content)
    for name, wanted in content.items():
        if isinstance(wanted, tuple):
            assert loaded[name][:2] == wanted[:2]
            assert np.array_equal(loaded[name][2], wanted[2])
        else:
            assert loaded[name] == wanted
    assert [artifact["kind"] for artifact in last["artifacts"]] == ["export", "final"]
    (metrics,) = last["result"]["exports"]
    assert (metrics["format"], metrics["size_bytes"]) == ("course_8bit", len(exported))
    final = last["result"]["stages"][-1]["splits"]
    assert {split: score["num_correct"] for split, score in metrics["splits"].items()} == {
        split: score["num_correct"] for split, score in final.items()
    }


def jobs_file(folder: Path, content: bytes) -> Path:
    (folder / "state.pt").write_bytes(content)
    return folder / "state.pt"


@pytest.mark.usefixtures("_one_process")
def test_an_export_in_fewer_bits_has_its_own_accuracy(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """The 8-bit file of a half-precision answer is scored as the course decodes it, not as the answer."""
    steps = [{"method": "quantize", "scheme": "fp16"}]
    order = jobs.order(
        tmp_path / "job", [teacher], photos, steps, exports=["course_8bit", "course_16bit", "course_8bit"]
    )
    last = done(order)
    assert [e["name"] for e in last["result"]["exports"]] == [
        "final.course-8bit.pkl",
        "final.course-16bit.pkl",
    ]
    decoded = course_decode_8bit(content_of(order, last, "final.course-8bit.pkl"))
    (tmp_path / "final.pt").write_bytes(content_of(order, last, "final.pt"))
    network = models.load(tmp_path / "final.pt")
    network.load_state_dict(decoded)
    images_NCHW = torch.stack([tiny._pixels(label, 300 + n) for label in (0, 1) for n in range(6)])
    with torch.no_grad():
        answers_N = network(models.normalise(images_NCHW, tiny.PREPROCESSING)).argmax(1)
    num_correct = int((answers_N == torch.arange(12) // 6).sum())
    assert last["result"]["exports"][0]["splits"]["val"]["num_correct"] == num_correct
    sizes = [e["size_bytes"] for e in last["result"]["exports"]]
    assert sizes[0] < 0.6 * sizes[1]


# ---- a teacher that is only a table


def soft_label_csv(photos: dict[str, Any], splits: tuple[str, ...]) -> bytes:
    """Sure of the right class for each labelled image of `splits`, but for the first of each."""
    index = json.loads(Path(photos["index"]).read_text())
    lines = ["path,light,dark"]
    for split in splits:
        rows = [row for row in index["images"] if row["split"] == split]
        for number, row in enumerate(rows):
            name = index["class_names"][row["label"]] if row["label"] is not None else "dark"
            is_light = (name == "light") != (number == 0)
            lines.append(f"{row['path']},{0.9 if is_light else 0.1},{0.1 if is_light else 0.9}")
    return "\n".join(lines).encode()


def student_step(**changes: Any) -> dict[str, Any]:
    student = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    return {**DISTILL, "student": student, "alpha": 0.0, **changes}


@pytest.mark.usefixtures("_one_process")
def test_a_table_of_soft_labels_is_scored_on_what_it_covers(photos: dict[str, Any], tmp_path: Path) -> None:
    """Its classes are in an order of its own; agreement counts where it says something."""
    table = jobs.inspected_teacher(tmp_path / "table", soft_label_csv(photos, ("val", "unlabeled")))
    assert table["kind"] == "soft_labels"
    order = jobs.order(tmp_path / "job", [table], photos, [student_step()])
    ear = Ear()
    result = done(order, ear)["result"]
    teacher = result["stages"][0]
    assert teacher["splits"].keys() == {"val"}
    assert teacher["splits"]["val"] == {
        "accuracy": 11 / 12,
        "num_correct": 11,
        "num_images": 12,
        "loss": pytest.approx(-(11 * np.log(0.9) + np.log(0.1)) / 12, abs=1e-6),
        "num_missing": 0,
    }
    assert (teacher["parameters"], teacher["macs"], teacher["latency_ms"]) == (0, 0, None)
    assert result["stages"][1]["agreement"].keys() == {"val", "unlabeled"}
    assert any("no soft label for any image of train" in warning for warning in result["warnings"])


@pytest.mark.usefixtures("_one_process")
def test_a_table_and_a_network_make_an_ensemble(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """Scored together where both answer."""
    csv = b"\n".join(soft_label_csv(photos, ("val",)).split(b"\n")[:8])  # seven of the twelve
    table = jobs.inspected_teacher(tmp_path / "table", csv, "tch_2")
    order = jobs.order(tmp_path / "job", [teacher, table], photos, [student_step()])
    stage = done(order)["result"]["stages"][0]
    assert stage["splits"].keys() == {"val"}
    assert stage["splits"]["val"]["num_images"] == 7
    assert [member["splits"]["val"]["num_images"] for member in stage["teachers"]] == [12, 7]


@pytest.mark.usefixtures("_one_process")
def test_steps_that_edit_the_teacher_answer_in_the_datas_order(
    photos: dict[str, Any], tmp_path: Path
) -> None:
    """A teacher whose classes are the other way round sets the order of the job; the artifact names them so."""
    reversed_names = list(tiny.CLASSES[::-1])
    path = tiny.write_teacher(tmp_path / "reversed.pt", class_names=tiny.CLASSES[::-1])
    spec = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING, "class_names": reversed_names}
    teacher = jobs.inspected_teacher(tmp_path / "inspection", path.read_bytes(), **spec)
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE])
    last = done(order)
    stages = last["result"]["stages"]
    assert stages[0]["splits"]["val"]["accuracy"] > 0.7
    assert stages[1]["splits"]["val"]["accuracy"] > 0.7
    (tmp_path / "final.pt").write_bytes(content_of(order, last, "final.pt"))
    assert models.load(tmp_path / "final.pt").class_names == reversed_names


@pytest.mark.usefixtures("_one_process")
def test_nothing_can_be_exported_that_is_not_finite(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measuring, "_run", measure_here)

    def breaks(model: Any, spec: Any, run: Run) -> Any:
        broken = models.load(teacher["path"])
        broken.get_buffer("features.bn1.running_var")[0] = float("inf")
        broken.encoded = {}
        return broken

    monkeypatch.setattr(quantize, "apply", breaks)
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE], exports=["course_8bit"])
    with pytest.raises(Problem) as refused:
        compress(order, Ear(), Stops())
    assert refused.value.code == "NOT_EXPORTABLE"
    assert "features.bn1.running_var" in refused.value.detail


# ---- classes, layers, sensitivity


@pytest.mark.usefixtures("_one_process")
def test_stages_tell_classes_and_layers_and_their_copies_do_not(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    """Counts that agree with the accuracies, and a layer table that agrees with the totals."""
    last = done(jobs.order(tmp_path / "job", [teacher], photos, [DISTILL, QUANTIZE]))
    stages = last["result"]["stages"]
    assert stages[0]["class_names"] == list(tiny.CLASSES)
    for stage in stages:
        for split, score in stage["splits"].items():
            counted = stage["confusion"][split]
            assert sum(counted["num_correct"]) == score["num_correct"]
            assert sum(counted["num_images"]) == score["num_images"]
            assert sum(map(sum, counted["counts"])) == score["num_images"]
    for stage in stages[1:]:
        assert sum(row["parameters"] for row in stage["layers"]) == stage["parameters"]
        assert sum(row["macs"] for row in stage["layers"]) == stage["macs"]
    stored = [sum(row["size_bytes"] for row in stage["layers"]) for stage in stages[1:]]
    assert stored[1] < 0.3 * stored[0]
    for artifact in last["artifacts"]:
        assert not {"confusion", "layers"} & artifact["metrics"].keys()


@pytest.mark.usefixtures("_one_process")
def test_sensitivity_changes_no_file(teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path) -> None:
    """Asked for, it is in the result and its progress is told; the answer is the same to the bit."""
    plain = jobs.order(tmp_path / "plain", [teacher], photos, [QUANTIZE])
    asked = jobs.order(tmp_path / "asked", [teacher], photos, [QUANTIZE], sensitivity=True)
    ear = Ear()
    without, with_it = done(plain), done(asked, ear)
    assert "sensitivity" not in without["result"]
    found = with_it["result"]["sensitivity"]
    assert found["split"] == "val"
    assert found["accuracy"] == with_it["result"]["stages"][-1]["splits"]["val"]["accuracy"]
    assert content_of(plain, without, "final.pt").count(b"sensitivity") == 0
    assert content_of(asked, with_it, "final.pt") == content_of(plain, without, "final.pt")
    told = [m for m in ear.of("progress") if m["unit"] == "layer"]
    assert [m["done"] for m in told] == [*range(1, len(found["layers"]) + 1)]
    fractions = [m["fraction"] for m in ear.of("progress")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


@pytest.mark.usefixtures("_one_process")
def test_a_cancel_during_sensitivity_keeps_the_answer(
    teacher: dict[str, Any], photos: dict[str, Any], tmp_path: Path
) -> None:
    order = jobs.order(tmp_path / "job", [teacher], photos, [QUANTIZE], sensitivity=True)
    stops = Stops()

    class Cancels(Ear):
        def send(self, message: dict[str, Any]) -> None:
            super().send(message)
            if message["type"] == "progress" and message["unit"] == "layer":
                stops.ask("cancel")

    last = compress(order, Cancels(), stops)
    assert (last["type"], last["stop"]) == ("stopped", "cancel")
    assert [artifact["kind"] for artifact in last["artifacts"]] == ["best_so_far"]
    assert len(last["result"]["stages"]) == 2
    assert "sensitivity" not in last["result"]
