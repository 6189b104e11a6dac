"""From a trainer's last word to the rows: gates judged, receipts that the reader verifies with the photos."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select

import models
from app import jobs as verbs
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.canonical import fingerprint
from app.db import transaction
from app.receipts import canonical
from app.storage.objects import storage
from app.tables import Artifact, Event, Job
from models import load_artifact
from tests.worker import jobs, tiny
from tests.worker.jobs import Ear
from worker import verdicts
from worker.measure import measure
from worker.measuring import Measuring
from worker.messages import Stops
from worker.pipeline import compress

STEPS = [jobs.DISTILL, {"method": "quantize"}]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_photos(tmp_path_factory.mktemp("photos") / "photos.zip", train=8, val=6, test=6)


@pytest.fixture(scope="module")
def photos(archive: Path) -> dict[str, Any]:
    return jobs.dataset(archive.parent / "data", archive)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its outputs mean the classes in the other order than the data has them."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    return tiny.write_teacher(path, class_names=("light", "dark"))


@pytest.fixture(scope="module")
def teacher(teacher_file: Path) -> dict[str, Any]:
    spec = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": ["light", "dark"],
    }
    return jobs.inspected_teacher(teacher_file.parent / "inspection", teacher_file.read_bytes(), **spec)


@dataclass
class Done:
    """A job that was finished as a worker does it."""

    order: dict[str, Any]
    job: Job
    artifacts: dict[str, Artifact]
    events: list[Event]


Trained = tuple[dict[str, Any], dict[str, Any]]


def train(
    work_dir: Path, teachers: list[dict[str, Any]], photos: dict[str, Any], steps: list[Any], **spec: Any
) -> Trained:
    """(order, the trainer's last word). Measured in this process: a fresh one takes seconds to load torch."""
    order = jobs.order(work_dir, teachers, photos, steps, **spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measuring, "_run", lambda measuring, order, enough: measure(order))
        return order, compress(order, Ear(), Stops())


def finish(trained: Trained) -> Done:
    order, last = trained
    with tenancy.transaction(DEFAULT) as session:
        job_id = verbs.submit(session, kind="compress", spec=order["spec"])[0].id
    with transaction() as session:
        claim = verbs.claim(session, job_id, worker="w")
    assert claim is not None
    verb = verdicts.finish(claim, order, last)
    with transaction() as session:
        verb(session)
    with transaction() as session:
        job = session.scalars(select(Job).where(Job.id == job_id)).one()
        artifacts = session.scalars(select(Artifact).where(Artifact.job_id == job_id))
        events = session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq))
        return Done(order, job, {artifact.name: artifact for artifact in artifacts}, list(events))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, teacher: dict[str, Any], photos: dict[str, Any]
) -> Trained:
    limits = {"max_bytes": 10**6, "max_accuracy_drop": 0.0, "max_latency_ms": 1e-6}
    folder = tmp_path_factory.mktemp("job") / "work"
    return train(folder, [teacher], photos, STEPS, exports=["course_8bit"], **limits)


@pytest.fixture
def done(data_dir: Path, database: str, trained: Trained) -> Done:
    return finish(trained)


@pytest.fixture
def sqlite_done(data_dir: Path, sqlite_database: str, trained: Trained) -> Done:
    return finish(trained)


def verify(done: Done, name: str, folder: Path, *arguments: str) -> int:
    """Download the file and its receipt, and let the reader compare them."""
    artifact = done.artifacts[name]
    (folder / "file.pt").write_bytes(storage().path(artifact.sha256).read_bytes())
    assert artifact.receipt is not None
    (folder / "receipt.json").write_bytes(canonical(artifact.receipt)[0])
    return load_artifact.main([str(folder / "file.pt"), "verify", str(folder / "receipt.json"), *arguments])


def test_every_artifact_has_a_receipt_that_the_reader_verifies(
    done: Done, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers of each split and its digest come out of the zip that was uploaded, exactly."""
    assert set(done.artifacts) == {"step-1-distill.pt", "final.pt", "final.course-8bit.pkl"}
    for name in ("step-1-distill.pt", "final.pt"):
        assert verify(done, name, tmp_path, "--photos", str(archive), "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert {check["what"] for check in answer["checks"]} == {
            *("size_bytes", "sha256", "parameters", "macs"),
            *(
                f"{split} {what}"
                for split in ("train", "val", "test")
                for what in ("num_images", "num_correct", "digest")
            ),
        }
        assert answer["notes"] == []
    assert verify(done, "final.course-8bit.pkl", tmp_path) == 0


def test_a_receipt_names_what_the_file_was_made_of(
    done: Done, teacher: dict[str, Any], photos: dict[str, Any]
) -> None:
    final = done.artifacts["final.pt"]
    receipt = final.receipt
    assert receipt is not None
    assert receipt["format"] == "fewbytes/receipt/1"
    assert receipt["artifact"] == {
        "name": "final.pt",
        "kind": "final",
        "sha256": final.sha256,
        "size_bytes": final.size_bytes,
    }
    assert (receipt["job_id"], receipt["step"], receipt["seed"]) == (done.job.id, 2, 0)
    assert (receipt["spec"], receipt["fingerprint"]) == (done.job.spec, done.job.fingerprint)
    assert receipt["fingerprint"] == fingerprint(receipt["spec"])
    assert receipt["teachers"] == [
        {
            "id": "tch_1",
            "file_sha256": teacher["file_sha256"],
            "artifact_sha256": teacher["sha256"],
            "tensors_sha256": None,
        }
    ]
    assert {key: receipt["dataset"][key] for key in ("id", "index_sha256", "pack_sha256", "class_order")} == {
        "id": "dst_1",
        "index_sha256": photos["index_sha256"],
        "pack_sha256": photos["pack_sha256"],
        "class_order": [1, 0],
    }
    assert done.job.result is not None
    assert receipt["dataset"]["splits"] == done.job.result["splits"]
    last = done.job.result["stages"][-1]
    assert receipt["measured"] == {
        name: last[name] for name in ("splits", "parameters", "macs", "latency_ms")
    }
    environment = {"torch": torch.__version__, **receipt["environment"]}
    assert environment == receipt["environment"]
    assert all(environment[name] for name in ("fewbytes", "python", "cpu", "precision"))
    assert (receipt["num_threads"], receipt["created_at"][:2]) == (1, "20")


def test_the_file_itself_holds_nothing_of_a_receipt(sqlite_done: Done) -> None:
    """No time and no id: the same job gives the same bytes."""
    content = storage().path(sqlite_done.artifacts["final.pt"].sha256).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        inside = b"".join(file.read(name) for name in file.namelist())
    for text in (sqlite_done.job.id, "tch_1", "dst_1", "created_at", "receipt", "against_teacher"):
        assert text.encode() not in inside


def test_gates_are_judged_when_the_job_ends(done: Done) -> None:
    """It succeeds; the result, the job and a line of its log say what it is not."""
    result = done.job.result
    assert result is not None
    assert (done.job.state, done.job.passed, result["passed"]) == ("succeeded", False, False)
    size, drop, latency = result["gates"]
    assert size == {
        "gate": "max_bytes",
        "limit": 10**6,
        "value": done.artifacts["final.pt"].size_bytes,
        "passed": True,
    }
    assert (drop["split"], drop["num_images"]) == ("test", 12)
    assert latency["p10"] <= latency["value"] <= latency["p90"]
    assert latency["passed"] is False
    (warning,) = (text for text in result["warnings"] if "max_latency_ms" in text)
    assert [e.data["level"] for e in done.events if e.data.get("message") == warning] == ["warning"]
    assert done.events[-1].data["state"] == "succeeded"


def test_pairs_are_those_of_a_naive_count(
    sqlite_done: Done, teacher: dict[str, Any], archive: Path, tmp_path: Path
) -> None:
    """One photo at a time through both networks; and they are the difference of the reported accuracies."""
    result = sqlite_done.job.result
    assert result is not None
    (tmp_path / "final.pt").write_bytes(storage().path(sqlite_done.artifacts["final.pt"].sha256).read_bytes())
    networks = [models.load(Path(teacher["path"])), models.load(tmp_path / "final.pt")]
    for split in ("train", "val", "test"):
        counts = {"num_images": 0, "num_only_teacher": 0, "num_only_network": 0}
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if not name.startswith(f"{split}/"):
                    continue
                right = [_is_right(network, file.read(name), name.split("/")[1]) for network in networks]
                counts["num_images"] += 1
                counts["num_only_teacher"] += right[0] and not right[1]
                counts["num_only_network"] += right[1] and not right[0]
        assert result["stages"][-1]["against_teacher"][split] == counts
        before, after = (result["stages"][n]["splits"][split]["num_correct"] for n in (0, -1))
        assert before - after == counts["num_only_teacher"] - counts["num_only_network"]


def _is_right(network: models.Network, photo: bytes, class_name: str) -> bool:
    assert network.preprocessing is not None
    assert network.class_names is not None
    image = models.resize_and_crop(Image.open(io.BytesIO(photo)), network.preprocessing)
    with torch.no_grad():
        answer = int(network(models.normalise(image[None], network.preprocessing)).argmax())
    return network.class_names[answer] == class_name


def test_several_teachers_are_one_ensemble(
    tmp_path: Path, data_dir: Path, sqlite_database: str, teacher: dict[str, Any], photos: dict[str, Any]
) -> None:
    """The drop is that of the ensemble's accuracy, whatever the members' are."""
    other = jobs.inspected_teacher(
        tmp_path / "other",
        tiny.write_teacher(tmp_path / "other.pt", seed=5).read_bytes(),
        "tch_2",
        architecture=tiny.TEACHER,
        preprocessing=tiny.PREPROCESSING,
        class_names=list(tiny.CLASSES),
    )
    step = {**jobs.DISTILL, "combine": "mean_logit", "weights": [0.2, 0.8]}
    done = finish(train(tmp_path / "work", [teacher, other], photos, [step], max_accuracy_drop=1.0))
    result = done.job.result
    assert result is not None
    first, last = (result["stages"][n]["splits"]["test"] for n in (0, -1))
    (gate,) = result["gates"]
    assert gate["value"] == (first["num_correct"] - last["num_correct"]) / first["num_images"]
    assert done.job.passed is True
