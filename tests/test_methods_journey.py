"""Every kind of step through the service, as users chain them: over HTTP, on the embedded default."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service, wait_for
from tests.worker import tiny

STUDENT = {"architecture": "report/final", "image_size": tiny.SIDE}
SHORT = {"epochs": 1, "batch_size": 16}
LOOK = {"preprocessing": tiny.PREPROCESSING, "class_names": list(tiny.CLASSES)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("up") / "data", {})
    yield running
    assert running.stop() == 0


def registered(service: Service, kind: str, body: dict[str, Any]) -> str:
    made = service.post(f"/v1/{kind}", body)
    wait_for(lambda: service.get(f"/v1/{kind}/{made['id']}")["state"] != "inspecting", 120)
    found = service.get(f"/v1/{kind}/{made['id']}")
    assert found["state"] == "ready", found["error"]
    return str(made["id"])


def uploaded(service: Service, name: str, content: bytes) -> str:
    assert service.http.put(f"/v1/files/{name}", content=content).status_code in (200, 201)
    return name


@pytest.fixture(scope="module")
def ingredients(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("files")
    teacher = tiny.write_teacher(folder / "teacher.pt")
    photos = tiny.write_photos(folder / "photos.zip")
    for path in (teacher, photos):
        uploaded(service, path.name, path.read_bytes())
    body = {"file": teacher.name, "architecture": tiny.TEACHER, **LOOK}
    return {
        "teachers": [registered(service, "teachers", body)],
        "dataset": registered(service, "datasets", {"file": photos.name}),
        "device": "cpu",
    }


def finished(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = service.finished(service.post("/v1/jobs", job)["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


def download(service: Service, job_id: str, kind: str) -> bytes:
    items = service.get(f"/v1/jobs/{job_id}/artifacts")["items"]
    (found,) = [artifact for artifact in items if artifact["kind"] == kind]
    content: bytes = service.http.get(f"/v1/artifacts/{found['id']}/content").content
    assert len(content) == found["size_bytes"]
    return content


def test_steps_of_every_kind_follow_each_other(service: Service, ingredients: dict[str, Any]) -> None:
    """A student is trained, pruned with its early weights, redesigned, folded, factorised, distilled again, thinned out,
    trained at 4 bits; every stage is measured and is smaller where it says so."""
    steps: list[dict[str, Any]] = [
        {"method": "train", "student": STUDENT, **SHORT, "epochs": 2},
        {
            "method": "prune",
            "keep_rate": 0.7,
            "weights_from_epoch": 1,
            "schedule_from_epoch": 1,
            "training": SHORT | {"epochs": 2},
        },
        {"method": "redesign", "keep_first": 4},
        {"method": "fold"},
        {"method": "factorise", "ratio": 0.8},
        {"method": "distill", "student": "previous", **SHORT},
        {"method": "finetune", **SHORT},
        {"method": "sparsify", "sparsity": 0.5},
        {"method": "quantize", "bits": 8},
        {"method": "qat", "bits": 4, **SHORT},
    ]
    done = finished(service, {**ingredients, "steps": steps})
    stages = done["result"]["stages"]
    assert [stage["method"] for stage in stages[1:]] == [step["method"] for step in steps]
    parameters = [stage["parameters"] for stage in stages]
    assert parameters[1] > parameters[2] > parameters[3] > parameters[4] > parameters[5]
    assert stages[2]["details"]["iterations"][0]["epochs"] == stages[2]["cost"]["epochs"] == 1
    assert stages[8]["size_bytes"] < stages[7]["size_bytes"]
    assert stages[10]["size_bytes"] < stages[7]["size_bytes"] / 3


def test_a_course_file_goes_round(service: Service, ingredients: dict[str, Any]) -> None:
    """What is exported in the course's 8 bits is a teacher again, classifies the same photos right, and is exported again
    to the byte."""
    store = {"method": "quantize", "tensors": "all"}
    exports = {"exports": ["course_8bit"]}
    first = finished(
        service,
        {**ingredients, **exports, "steps": [{"method": "distill", "student": STUDENT, **SHORT}, store]},
    )
    content = download(service, first["id"], "export")
    body = {"file": uploaded(service, "8_bit_model.pkl", content), "architecture": "report/final", **LOOK}
    teacher = registered(service, "teachers", body)
    again = finished(service, {**ingredients, **exports, "teachers": [teacher], "steps": [store]})
    assert download(service, again["id"], "export") == content
    scores = [stage["splits"] for stage in (first["result"]["stages"][-1], again["result"]["stages"][0])]
    for split in ("train", "val", "test"):
        assert scores[0][split]["num_correct"] == scores[1][split]["num_correct"]


def test_seeds_are_repeated_and_summed_up(service: Service, ingredients: dict[str, Any]) -> None:
    """Mean, std, min and max of every stage; the first seed's numbers are those of a job with that seed alone."""
    train = {"method": "train", "student": STUDENT, **SHORT}
    done = finished(service, {**ingredients, "seed": 5, "seeds": 2, "steps": [train]})
    result = done["result"]
    accuracy = result["summary"][0]["splits"]["test"]["accuracy"]
    assert [entry["seed"] for entry in result["seeds"]] == [5, 6]
    assert accuracy["min"] <= accuracy["mean"] <= accuracy["max"]
    assert accuracy["values"] == [
        entry["stages"][0]["splits"]["test"]["accuracy"] for entry in result["seeds"]
    ]
    alone = finished(service, {**ingredients, "seed": 5, "steps": [train]})["result"]
    assert alone["stages"][1]["splits"] == result["seeds"][0]["stages"][0]["splits"]


def test_a_table_of_soft_labels_teaches(
    service: Service, ingredients: dict[str, Any], tmp_path: Path
) -> None:
    """Soft labels kept by one job are uploaded as the only teacher of another."""
    keep = {
        "method": "distill",
        "student": STUDENT,
        "alpha": 1,
        "soft_labels": {"keep": True},
        "augmentation": "none",
        **SHORT,
    }
    first = finished(service, {**ingredients, "steps": [keep]})
    labels = download(service, first["id"], "soft_labels")
    table = registered(service, "teachers", {"file": uploaded(service, "soft-labels.pt", labels)})
    student = {**STUDENT, "preprocessing": tiny.PREPROCESSING}
    del student["image_size"]
    step = {"method": "distill", "student": student, "alpha": 1, "augmentation": "none", **SHORT}
    done = finished(service, {**ingredients, "teachers": [table], "steps": [step]})
    assert (
        done["result"]["stages"][1]["splits"]["val"]["num_correct"]
        == first["result"]["stages"][1]["splits"]["val"]["num_correct"]
    )


def test_jobs_of_a_sweep_begin_with_what_one_of_them_did(
    service: Service, ingredients: dict[str, Any]
) -> None:
    """Trained once, in a folder that is gone by then; and each ends with the bytes that it would have made alone."""
    training = {"epochs": 2, "batch_size": 16}
    steps = [
        {"method": "train", "student": STUDENT, **training, "warmup_epochs": 0},
        {
            "method": "prune",
            "keep_rate": 0.8,
            "weights_from_epoch": 1,
            "schedule_from_epoch": 1,
            "training": training,
        },
    ]
    axis = {"name": "rate", "field": "/steps/1/keep_rate", "values": [0.8, 0.6]}
    sweep = service.post("/v1/sweeps", {"job": {**ingredients, "steps": steps}, "axes": [axis]})
    wait_for(lambda: service.get(f"/v1/sweeps/{sweep['id']}")["finished_at"], 240)
    jobs = service.get("/v1/jobs", sweep=sweep["id"])["items"]
    done = [service.finished(job["id"]) for job in jobs]
    assert [job["error"] for job in done] == [None] * 3
    (stage,) = [job for job in done if job["point"] is None]
    children = [job for job in done if job["point"] is not None]
    assert not (service.data_dir / "jobs" / stage["id"]).exists()
    for child in children:
        assert child["result"]["stages"][1]["shared_from"] == stage["id"]
        assert child["result"]["warnings"] == []
    alone = finished(service, children[1]["spec"])
    assert "taken_over" not in alone["result"]
    assert alone["result"]["artifact"] == children[1]["result"]["artifact"]
