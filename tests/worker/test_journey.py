"""The embedded service as a user has it: `fewbytes up`, HTTP, and processes that die on the way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import load_artifact
from tests.worker import tiny

GRACE_SECONDS = 5.0
STUDENT = {"architecture": "report/final", "image_size": tiny.SIDE}
# Long enough to be killed in the middle, on any machine: some seconds.
LONG = {"method": "distill", "student": STUDENT, "epochs": 60, "batch_size": 16, "augmentation": "light"}


class Service:
    """A running `fewbytes up` and a client of it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True)
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "BROKER_URL")},
            "FEWBYTES_LEASE_SECONDS": "4",
            "FEWBYTES_CHECKPOINT_SECONDS": "0.2",
            "FEWBYTES_CANCEL_GRACE_SECONDS": str(GRACE_SECONDS),
            "FEWBYTES_REDISPATCH_SECONDS": "3",
            "FEWBYTES_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "app.cli", "up", "--data-dir", str(data_dir), "--port", "0"]
        self.log = data_dir.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        wait_for(lambda: b"ready" in self.log.read_bytes() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()
        self.http = httpx.Client(base_url=self.card()["url"], timeout=120)

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.data_dir / "service.json").read_text())
        return card

    def pid(self, name: str) -> int:
        return int(self.card()["pids"][name])

    def trainer(self) -> int | None:
        """The process that trains, a child of the worker."""
        tasks = Path(f"/proc/{self.pid('worker')}/task").glob("*/children")
        children = [pid for task in tasks for pid in task.read_text().split()]
        return int(children[0]) if children else None

    def stop(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def get(self, path: str, **parameters: Any) -> Any:
        """As any client does, it asks again when the API was killed under its connection."""
        for _ in range(3):
            try:
                answer = self.http.get(path, params=parameters)
            except httpx.TransportError:
                continue
            assert answer.status_code == 200, answer.text
            return answer.json()
        raise AssertionError("the API does not come back")

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def finished(self, job_id: str, seconds: float = 240) -> dict[str, Any]:
        wait_for(
            lambda: self.get(f"/v1/jobs/{job_id}")["state"] in ("succeeded", "failed", "cancelled"), seconds
        )
        job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}")
        return job

    def epochs(self, job_id: str) -> int:
        """How many epochs of step 1 are behind it."""
        job = self.get(f"/v1/jobs/{job_id}")
        return int((job["progress"] or {}).get("done", 0))


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("up") / "data")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_photos(tmp_path_factory.mktemp("photos") / "photos.zip")


@pytest.fixture(scope="module")
def ingredients(service: Service, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A registered teacher and data set, as the beginning of a job."""
    teacher = tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt")
    for file in (teacher, photos):
        assert service.http.put(f"/v1/files/{file.name}", content=file.read_bytes()).status_code == 201
    ids = {}
    for path, body in (
        (
            "/v1/teachers",
            {
                "file": "teacher.pt",
                "architecture": tiny.TEACHER,
                "preprocessing": tiny.PREPROCESSING,
                "class_names": list(tiny.CLASSES),
            },
        ),
        ("/v1/datasets", {"file": "photos.zip"}),
    ):
        made = service.post(path, body)
        wait_for(
            lambda path=path, made=made: service.get(f"{path}/{made['id']}")["state"] != "inspecting", 120
        )
        found = service.get(f"{path}/{made['id']}")
        assert found["state"] == "ready", found["error"]
        ids[path] = made["id"]
    return {"teachers": [ids["/v1/teachers"]], "dataset": ids["/v1/datasets"], "seed": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def undisturbed(service: Service, ingredients: dict[str, Any]) -> dict[str, Any]:
    """A job that ran from beginning to end."""
    job = service.post("/v1/jobs", {**ingredients, "steps": [LONG, {"method": "quantize"}]})
    done = service.finished(job["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


def artifacts(service: Service, job_id: str) -> dict[str, dict[str, Any]]:
    return {artifact["kind"]: artifact for artifact in service.get(f"/v1/jobs/{job_id}/artifacts")["items"]}


def test_what_is_downloaded_is_what_was_measured(
    service: Service, undisturbed: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    """The file has the reported size and digest, and the reader alone counts the reported accuracy on the
    same photos.
    """
    result = undisturbed["result"]
    final = artifacts(service, undisturbed["id"])["final"]
    content = service.http.get(f"/v1/artifacts/{final['id']}/content").content
    assert (
        len(content)
        == final["size_bytes"]
        == result["artifact"]["size_bytes"]
        == result["stages"][-1]["size_bytes"]
    )
    assert hashlib.sha256(content).hexdigest() == final["sha256"] == result["artifact"]["sha256"]
    (tmp_path / "final.pt").write_bytes(content)
    zipfile.ZipFile(photos).extractall(tmp_path / "photos")
    for split in ("val", "test"):
        command = [load_artifact.__file__, "final.pt", "evaluate", "photos", "--split", split, "--json"]
        out = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        counted, reported = json.loads(out.stdout), result["stages"][-1]["splits"][split]
        assert (counted["num_correct"], counted["accuracy"]) == (
            reported["num_correct"],
            reported["accuracy"],
        )


def test_the_ledger_tells_every_stage(undisturbed: dict[str, Any]) -> None:
    stages = undisturbed["result"]["stages"]
    assert [stage["method"] for stage in stages] == ["teacher", "distill", "quantize"]
    assert stages[2]["size_bytes"] < stages[1]["size_bytes"] < stages[0]["size_bytes"]
    assert stages[1]["parameters"] == stages[2]["parameters"]
    assert stages[0]["splits"]["val"]["num_images"] == 24
    assert stages[1]["splits"]["train"]["leaked"]
    assert not stages[1]["splits"]["val"]["leaked"]
    assert stages[0]["splits"]["val"]["accuracy"] > 0.7, "a teacher that learnt something"
    for stage in stages:
        assert stage["latency_ms"]["p10"] <= stage["latency_ms"]["median"] <= stage["latency_ms"]["p90"]


def test_whatever_is_killed_the_artifact_is_the_same(
    service: Service, ingredients: dict[str, Any], undisturbed: dict[str, Any]
) -> None:
    """kill -9 of the trainer, of the API and of the worker in one job, and a worker that is told to go: the
    same bytes.
    """
    job_id = service.post("/v1/jobs", {**ingredients, "steps": [LONG, {"method": "quantize"}]})["id"]

    def kill(name: str, number: signal.Signals, after_epochs: int) -> None:
        attempts = len(service.get(f"/v1/jobs/{job_id}")["attempts"])
        wait_for(lambda: service.epochs(job_id) >= after_epochs and service.trainer(), 120)
        pid = service.trainer() if name == "trainer" else service.pid(name)
        assert pid is not None
        os.kill(pid, number)
        if name != "api":
            wait_for(lambda: len(service.get(f"/v1/jobs/{job_id}")["attempts"]) > attempts, 60)

    kill("trainer", signal.SIGKILL, 5)
    kill("api", signal.SIGKILL, 10)
    kill("worker", signal.SIGTERM, 20)
    kill("worker", signal.SIGKILL, 30)
    done = service.finished(job_id)
    assert done["state"] == "succeeded", done["error"]
    assert [attempt["outcome"] for attempt in done["attempts"]] == [
        "trainer_lost",
        "preempted",
        "worker_lost",
        "succeeded",
    ]
    assert done["result"]["artifact"] == undisturbed["result"]["artifact"]


def test_cancel_keeps_the_best_student(service: Service, ingredients: dict[str, Any], tmp_path: Path) -> None:
    job_id = service.post("/v1/jobs", {**ingredients, "steps": [{**LONG, "epochs": 10_000}]})["id"]
    wait_for(lambda: service.epochs(job_id) >= 2, 120)
    asked_at = time.monotonic()
    service.post(f"/v1/jobs/{job_id}/cancel")
    done = service.finished(job_id)
    assert time.monotonic() - asked_at < GRACE_SECONDS + 2
    assert done["state"] == "cancelled"
    best = artifacts(service, job_id)["best_so_far"]
    (tmp_path / "best.pt").write_bytes(service.http.get(f"/v1/artifacts/{best['id']}/content").content)
    assert load_artifact.load(tmp_path / "best.pt").class_names == list(tiny.CLASSES)


def test_a_teacher_that_is_none_is_rejected_with_the_reason(
    service: Service, ingredients: dict[str, Any]
) -> None:
    body = {"file": "teacher.pt", "architecture": "cifar/resnet20", "preprocessing": tiny.PREPROCESSING}
    answer = service.http.post("/v1/teachers", json=body, timeout=120)
    if answer.is_success:
        ident = answer.json()["id"]
        wait_for(lambda: service.get(f"/v1/teachers/{ident}")["state"] == "rejected", 60)
        error = service.get(f"/v1/teachers/{ident}")["error"]
    else:
        error = answer.json()
    assert (error["status"], error["code"]) == (422, "KEYS_MISMATCH")
    assert tiny.TEACHER in error["detail"]


def test_teachers_in_an_ensemble_are_scored_alone_and_together(
    service: Service, ingredients: dict[str, Any], tmp_path: Path
) -> None:
    """Two teachers, the second with its classes the other way round; the first's order is the student's."""
    second = tiny.write_teacher(tmp_path / "second.pt", seed=1, class_names=tiny.CLASSES[::-1])
    service.http.put("/v1/files/second.pt", content=second.read_bytes())
    body = {
        "file": "second.pt",
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES[::-1]),
        "declared_accuracy": 0.1,
    }
    ident = service.post("/v1/teachers", body)["id"]
    wait_for(lambda: service.get(f"/v1/teachers/{ident}")["state"] == "ready", 60)
    step = {**LONG, "epochs": 1, "transfer_splits": ["train", "test"], "weights": [1, 3]}
    body = {**ingredients, "teachers": [*ingredients["teachers"], ident], "steps": [step]}
    done = service.finished(service.post("/v1/jobs", body)["id"])
    assert done["state"] == "succeeded", done["error"]
    teacher = done["result"]["stages"][0]
    assert [member["id"] for member in teacher["teachers"]] == [*ingredients["teachers"], ident]
    assert all(member["splits"]["val"]["accuracy"] > 0.7 for member in [*teacher["teachers"], teacher])
    assert teacher["size_bytes"] == sum(member["size_bytes"] for member in teacher["teachers"])
    warnings = " ".join(done["result"]["warnings"])
    assert "declared with an accuracy of 0.1000" in warnings
    assert "trained on test" in warnings
    assert done["result"]["stages"][1]["splits"]["test"]["leaked"]


def test_a_teacher_may_be_stored_smaller_without_training(
    service: Service, ingredients: dict[str, Any]
) -> None:
    done = service.finished(
        service.post("/v1/jobs", {**ingredients, "steps": [{"method": "quantize", "scheme": "fp16"}]})["id"]
    )
    teacher, stored = done["result"]["stages"]
    assert stored["parameters"] == teacher["parameters"]
    assert stored["size_bytes"] < 0.55 * teacher["size_bytes"]
    assert stored["agreement"]["val"] > 0.95


def test_no_process_but_the_trainer_holds_torch(service: Service) -> None:
    for name, pid in service.card()["pids"].items():
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text(), name
