"""The whole way, as users go it: curl scripts against a running service, embedded and on PostgreSQL + Redis."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from models.architectures import create
from tests.photos import CLASSES, photos_zip
from tests.service import ROOT, RunningService, children_of, command_line, free_port

PREPROCESSING = {"resize": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def script(
    service: RunningService, name: str, *arguments: str | Path, check: bool = True, **environment: str
) -> str:
    done = subprocess.run(
        [ROOT / "examples" / name, *map(str, arguments)],
        env={**os.environ, "URL": service.url, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, (
        f"{name} failed:\n{done.stdout}\n{done.stderr}\n{service.tail()}"
    )
    return done.stdout


@pytest.fixture(scope="module", params=["embedded", "postgresql-redis"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    environment = {}
    if request.param == "postgresql-redis":
        environment = {
            "DATABASE_URL": request.getfixturevalue("empty_postgresql_url"),
            "BROKER_URL": request.getfixturevalue("redis_url"),
        }
    running = RunningService(tmp_path_factory.mktemp(request.param), environment)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos_zip(tmp_path_factory.mktemp("photos") / "photos.zip", unlabeled=30)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary checkpoint, saved as everybody saves one, and its card."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(create("cifar/resnet20", num_classes=3, image_size=32).state_dict(), path)
    card = {
        "architecture": "cifar/resnet20",
        "preprocessing": PREPROCESSING,
        "class_names": CLASSES,
        "declared_accuracy": 0.99,
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.fixture(scope="module")
def records(service: RunningService, photos: Path, teacher_file: Path) -> dict[str, str]:
    """Teacher and data set, registered."""
    client = service.client
    for path, name in ((photos, "photos.zip"), (teacher_file, "teacher.pt")):
        assert client.put(f"/v1/files/{name}", content=path.read_bytes()).status_code in (200, 201)
    dataset = client.post("/v1/datasets", json={"file": "photos.zip"})
    assert dataset.status_code == 201, dataset.text
    teacher = client.post(
        "/v1/teachers",
        json={"file": "teacher.pt", **json.loads(teacher_file.with_suffix(".json").read_text())},
    )
    assert teacher.status_code == 201, teacher.text
    return {"dataset": dataset.json()["id"], "teacher": teacher.json()["id"]}


def job_spec(records: dict[str, str], epochs: int = 3, **distill: Any) -> dict[str, Any]:
    student = {"architecture": "report/final", "image_size": 32}
    return {
        "teachers": [records["teacher"]],
        "dataset": records["dataset"],
        "steps": [
            {"method": "distill", "student": student, "epochs": epochs, "batch_size": 16, **distill},
            {"method": "quantize", "scheme": "minmax"},
        ],
        "num_threads": 1,
        "device": "cpu",
    }


def submit(service: RunningService, spec: dict[str, Any]) -> str:
    response = service.client.post("/v1/jobs", json=spec)
    assert response.status_code == 202, response.text
    return response.json()["id"]


def test_a_downloaded_file_scores_what_was_reported(
    service: RunningService, photos: Path, teacher_file: Path, tmp_path: Path
) -> None:
    """By curl alone: upload, submit, poll, download; then the reader alone gives the reported accuracy and size."""
    steps = tmp_path / "steps.json"
    spec = job_spec({"teacher": "tch_0", "dataset": "dst_0"}, transfer_splits=["train", "unlabeled"])
    steps.write_text(json.dumps({k: v for k, v in spec.items() if k not in ("teachers", "dataset")}))
    student = tmp_path / "out" / "student.pt"
    student.parent.mkdir()
    out = script(
        service, "submit_and_poll.sh", teacher_file, teacher_file.with_suffix(".json"), photos, steps, student
    )
    job_id = next(line for line in out.splitlines() if line.startswith("job ")).split()[1]
    job = service.job(job_id)

    assert [stage["method"] for stage in job["result"]["stages"]] == ["teacher", "distill", "quantize"]
    final = job["result"]["stages"][-1]
    assert final["size_bytes"] == student.stat().st_size
    assert any("declared" in warning for warning in job["result"]["warnings"]), (
        "an untrained teacher is not 99 % right"
    )

    # Alone in a folder: neither this project nor its working directory can be imported.
    for split in ("val", "test"):
        done = subprocess.run(
            [
                sys.executable,
                "-I",
                "load_artifact.py",
                "student.pt",
                "evaluate",
                str(photos),
                "--split",
                split,
                "--json",
            ],
            cwd=student.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["accuracy"] == final["splits"][split]["accuracy"]
        assert found["num_images"] == final["splits"][split]["num_images"]


def test_the_reader_imports_torch_and_pillow_only() -> None:
    """Whoever downloads load_artifact.py needs nothing of ours, nor numpy or torchvision."""
    tree = ast.parse((ROOT / "models" / "load_artifact.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
    }
    assert imported - set(sys.stdlib_module_names) <= {"torch", "PIL"}


def test_whatever_is_killed_the_artifact_is_the_same(
    service: RunningService, records: dict[str, str]
) -> None:
    """kill -9 of the trainer, the worker and the API, one after the other, in the middle of one job."""
    spec = job_spec(records, epochs=12)
    undisturbed = service.wait_job(submit(service, spec))
    assert undisturbed["state"] == "succeeded", undisturbed["error"]

    job_id = submit(service, spec)

    def trained_past(epochs: float) -> Any:
        return lambda job: (
            job["state"] == "running"
            and (job["progress"] or {}).get("unit") == "epoch"
            and job["progress"]["done"] >= epochs
        )

    service.wait_job(job_id, until=trained_past(2))
    trainers = [pid for pid in children_of(service.process.pid) if "worker.child" in command_line(pid)]
    assert trainers, "no trainer process was found"
    os.kill(trainers[0], signal.SIGKILL)

    service.wait_job(job_id, until=lambda job: trained_past(5)(job) and len(job["attempts"]) == 2)
    worker = service.pids()["worker"]
    os.kill(worker, signal.SIGKILL)

    service.wait_job(job_id, until=lambda job: trained_past(8)(job) and len(job["attempts"]) == 3)
    os.kill(service.pids()["api"], signal.SIGKILL)

    job = service.wait_job(job_id)
    assert job["state"] == "succeeded", job["error"]
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["trainer_lost", "worker_lost", "succeeded"]
    assert job["result"]["artifact"]["sha256"] == undisturbed["result"]["artifact"]["sha256"]


def test_redelivered_messages_change_nothing(service: RunningService, records: dict[str, str]) -> None:
    """Every doorbell rung five more times, during the job and after it."""
    job_id = submit(service, job_spec(records))
    ring = [
        sys.executable,
        "-c",
        f"from app.queue import send\nfor _ in range(5): send({job_id!r}, 'compress')",
    ]
    environment = {**service.environment, "BROKER_URL": service.broker_url()}
    subprocess.run(ring, cwd=ROOT, env=environment, check=True, timeout=60)
    job = service.wait_job(job_id)
    subprocess.run(ring, cwd=ROOT, env=environment, check=True, timeout=60)
    follow_up = service.wait_job(
        submit(service, job_spec(records, epochs=1))
    )  # the queue is drained when this one is done
    assert job["state"] == follow_up["state"] == "succeeded"
    after = service.job(job_id)
    assert after["version"] == job["version"]
    assert len(after["attempts"]) == 1


def test_a_cancelled_job_keeps_its_best_student(
    service: RunningService, records: dict[str, str], tmp_path: Path
) -> None:
    job_id = submit(service, job_spec(records, epochs=400))
    service.wait_job(
        job_id,
        until=lambda job: (job["progress"] or {}).get("unit") == "epoch" and job["progress"]["done"] >= 2,
    )
    started = time.monotonic()
    out = script(service, "cancel.sh", job_id, tmp_path / "best.pt")
    assert time.monotonic() - started < 32, "the grace is 30 s"
    assert "cancelled" in out
    network = models.load(tmp_path / "best.pt")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_events_stream_until_the_end_and_resume(service: RunningService, records: dict[str, str]) -> None:
    job_id = submit(service, job_spec(records, epochs=1))
    stream = script(service, "follow_events.sh", job_id)
    ids = [int(line.split(":")[1]) for line in stream.splitlines() if line.startswith("id:")]
    assert ids == list(range(1, len(ids) + 1))
    assert '"succeeded"' in stream.rstrip().splitlines()[-1]
    middle = ids[len(ids) // 2]
    rest = script(service, "follow_events.sh", job_id, str(middle))
    assert [int(line.split(":")[1]) for line in rest.splitlines() if line.startswith("id:")] == list(
        range(middle + 1, len(ids) + 1)
    )


def test_a_broken_upload_and_a_broken_download_go_on(
    service: RunningService, records: dict[str, str], tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(3_000_000))
    broken = subprocess.Popen(
        [ROOT / "examples" / "resume_upload.sh", big, "big.bin"],
        env={**os.environ, "URL": service.url, "RATE": "1M"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(1.5)
    os.killpg(broken.pid, signal.SIGKILL)
    broken.wait()
    out = script(service, "resume_upload.sh", big, "big.bin")
    offset = int(out.split(": ")[1].split(" of ")[0])
    assert 0 < offset < 3_000_000, "the second run starts where the first broke off"
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    assert service.client.get("/v1/files/big.bin").json()["sha256"] == digest

    job = service.wait_job(submit(service, job_spec(records, epochs=1)))
    artifact = job["result"]["artifact"]
    whole = service.client.get(f"/v1/artifacts/{artifact['id']}/content").content
    (tmp_path / "student.pt").write_bytes(whole[: len(whole) // 3])
    script(service, "resume_download.sh", artifact["id"], tmp_path / "student.pt")
    assert (tmp_path / "student.pt").read_bytes() == whole


def test_the_demo_runs_on_a_users_own_photos(tmp_path: Path) -> None:
    """`make demo DATA=photos.zip` less the installation, with the teacher made cheap by few photos."""
    photos = photos_zip(tmp_path / "photos.zip", train=20, val=6, test=8)
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "examples" / "demo.py", "--photos", photos),
            *("--data-dir", tmp_path / "demo", "--url", f"http://127.0.0.1:{free_port()}"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo" / "student.pt").stat().st_size < 200_000
    shutil.rmtree(tmp_path / "demo")
