"""The whole way, as users go it: HTTP and curl scripts against `fewbytes up`, and processes that die on the way.

Everything runs twice: on the embedded default, and on PostgreSQL and Redis (Valkey over TCP) by settings alone.
"""

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models import load_artifact
from tests.servers import Broker, Postgres
from tests.service import GRACE_SECONDS, ROOT, Service, wait_for
from tests.worker import tiny

STUDENT = {"architecture": "report/final", "image_size": tiny.SIDE}
# Long enough to be killed in the middle, on any machine: some seconds.
LONG = {"method": "distill", "student": STUDENT, "epochs": 60, "batch_size": 16, "augmentation": "light"}


@pytest.fixture(scope="module", params=["embedded", "postgresql-redis"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("up") / "data"
    if request.param == "embedded":
        running = Service(folder, {})
        yield running
        assert running.stop() == 0
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.new_database()
    with tempfile.TemporaryDirectory(prefix="fewbytes-") as broker_folder:
        broker = Broker(Path(broker_folder))
        running = Service(folder, {"DATABASE_URL": postgres.url_of(name), "BROKER_URL": broker.url})
        yield running
        assert running.stop() == 0
        broker.kill()
    postgres.drop(name)


def script(service: Service, name: str, *arguments: str | Path) -> str:
    """Run a curl script of `examples/`; what it printed."""
    done = subprocess.run(
        [ROOT / "examples" / name, *map(str, arguments)],
        env={**os.environ, "URL": service.card()["url"], "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout}\n{done.stderr}\n{service.log.read_text()[-3000:]}"
    return done.stdout


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


def test_curl_alone_uploads_submits_polls_and_downloads(
    service: Service, photos: Path, ingredients: dict[str, Any], tmp_path: Path
) -> None:
    teacher = tiny.write_teacher(tmp_path / "teacher.pt")
    card = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    (tmp_path / "teacher.json").write_text(json.dumps(card))
    steps = {"steps": [{**LONG, "epochs": 2}, {"method": "quantize"}]}
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    out = script(
        service,
        "submit_and_poll.sh",
        *(teacher, tmp_path / "teacher.json", photos, tmp_path / "steps.json", tmp_path / "student.pt"),
    )
    job_id = next(line for line in out.splitlines() if line.startswith("job ")).split()[1]
    job = service.get(f"/v1/jobs/{job_id}")
    assert (tmp_path / "student.pt").stat().st_size == job["result"]["artifact"]["size_bytes"]
    # -I: neither this project nor the working folder can be imported, only what is installed.
    reader = [
        sys.executable,
        "-I",
        "load_artifact.py",
        "student.pt",
        "evaluate",
        photos,
        "--split",
        "test",
        "--json",
    ]
    counted = json.loads(
        subprocess.run(reader, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )
    assert counted["num_correct"] == job["result"]["stages"][-1]["splits"]["test"]["num_correct"]


def test_the_verify_script_counts_everything_again(
    service: Service, undisturbed: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    """From the receipt and the zip that was uploaded; and the same job again is served, with the same receipt."""
    said = script(service, "verify.sh", undisturbed["id"], tmp_path / "first", photos)
    checked = [line for line in said.splitlines() if line.endswith(" ok")]
    assert len(checked) == 4 + 3 * 3, said
    assert said.splitlines()[-1] == "verified"

    body = {key: value for key, value in undisturbed["spec"].items() if value is not None}
    again = service.post("/v1/jobs", {**body, "reuse_result": True, "max_bytes": 1, "name": "again"})
    assert (again["state"], again["passed"], again["attempts"]) == ("succeeded", False, [])
    # Other tests did the same work: it may be the result of any of them, and is of the same bytes.
    script(service, "verify.sh", again["result"]["reused_from"], tmp_path / "source")
    script(service, "verify.sh", again["id"], tmp_path / "again")
    for name in ("student.pt", "receipt.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    assert (tmp_path / "again" / "student.pt").read_bytes() == (
        tmp_path / "first" / "student.pt"
    ).read_bytes()


def test_the_reader_imports_torch_and_pillow_only() -> None:
    """Whoever downloads load_artifact.py needs nothing of ours, nor numpy or torchvision."""
    tree = ast.parse((ROOT / "models" / "load_artifact.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or ".").split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    assert imported - set(sys.stdlib_module_names) <= {"torch", "PIL"}


def test_redelivered_messages_change_nothing(service: Service, ingredients: dict[str, Any]) -> None:
    """The doorbell rung five more times, during the job and after it."""
    body = {**ingredients, "steps": [{**LONG, "epochs": 2}]}
    job_id = service.post("/v1/jobs", body)["id"]
    code = f"from app.scheduling.queue import send\nfor _ in range(5): send({job_id!r}, 'compress')"
    environment = {**os.environ, "BROKER_URL": service.broker_url()}
    ring = [sys.executable, "-c", code]
    subprocess.run(ring, cwd=ROOT, env=environment, check=True, timeout=60)
    job = service.finished(job_id)
    subprocess.run(ring, cwd=ROOT, env=environment, check=True, timeout=60)
    # The queue is first in, first out: when this one is done, the messages before it were looked at.
    assert service.finished(service.post("/v1/jobs", body)["id"])["state"] == job["state"] == "succeeded"
    after = service.get(f"/v1/jobs/{job_id}")
    assert (after["version"], len(after["attempts"])) == (job["version"], 1)


def test_the_cancel_script_fetches_the_best_student(
    service: Service, ingredients: dict[str, Any], tmp_path: Path
) -> None:
    job_id = service.post("/v1/jobs", {**ingredients, "steps": [{**LONG, "epochs": 10_000}]})["id"]
    wait_for(lambda: service.epochs(job_id) >= 2, 120)
    assert "cancelled" in script(service, "cancel.sh", job_id, tmp_path / "best.pt")
    assert load_artifact.load(tmp_path / "best.pt").class_names == list(tiny.CLASSES)


def test_events_stream_until_the_end_and_resume(service: Service, ingredients: dict[str, Any]) -> None:
    job_id = service.post("/v1/jobs", {**ingredients, "steps": [{**LONG, "epochs": 1}]})["id"]

    def ids(text: str) -> list[int]:
        return [int(line.split(":")[1]) for line in text.splitlines() if line.startswith("id:")]

    stream = script(service, "follow_events.sh", job_id)
    seen = ids(stream)
    assert seen == list(range(1, len(seen) + 1))
    assert '"succeeded"' in [line for line in stream.splitlines() if line.startswith("data:")][-1]
    middle = seen[len(seen) // 2]
    assert ids(script(service, "follow_events.sh", job_id, str(middle))) == seen[middle:]


def test_a_broken_upload_and_a_broken_download_go_on(
    service: Service, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(3_000_000))
    broken = subprocess.Popen(
        [ROOT / "examples" / "resume_upload.sh", big, "big.bin"],
        env={**os.environ, "URL": service.card()["url"], "RATE": "500k"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(3)
    os.killpg(broken.pid, signal.SIGKILL)
    broken.wait()
    out = script(service, "resume_upload.sh", big, "big.bin")
    offset = int(out.split(": ")[1].split(" of ")[0])
    assert 0 < offset < 3_000_000, "the second run starts where the first broke off"
    assert service.get("/v1/files/big.bin")["sha256"] == hashlib.sha256(big.read_bytes()).hexdigest()

    final = artifacts(service, undisturbed["id"])["final"]
    whole = service.http.get(f"/v1/artifacts/{final['id']}/content").content
    (tmp_path / "student.pt").write_bytes(whole[: len(whole) // 3])
    script(service, "resume_download.sh", final["id"], tmp_path / "student.pt")
    assert (tmp_path / "student.pt").read_bytes() == whole
