"""A real server in a thread, and a worker that knows the answers."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import select

from app import jobs, resources
from app.access import keys, tenants
from app.api import server
from app.db import reading, transaction
from app.errors import Problem
from app.main import create_app
from app.planning import architectures
from app.settings import Settings
from app.storage.objects import Storage
from app.tables import Job

CATALOGUE = [
    {
        "name": "report/final",
        "family": "report",
        "source": "the report",
        "image_size": 64,
        "minimum_image_size": 16,
        "image_size_multiple": 1,
        "num_classes": 15,
        "options": {},
        "parameters": 120_859,
        "macs": 1_000_000,
    },
    {
        "name": "student_net",
        "family": "course",
        "source": "the course",
        "image_size": 64,
        "minimum_image_size": 16,
        "image_size_multiple": 1,
        "num_classes": 2,
        "options": {"width_mult": {"type": "number", "default": 1.0, "minimum": 0.25, "maximum": 4.0}},
        "parameters": 256_779,
        "macs": 2_000_000,
    },
]

PREPROCESSING = {
    "resize": 256,
    "crop": 224,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def teacher_report(class_names: list[str] | None, num_classes: int = 2) -> dict[str, Any]:
    return {
        "architecture": "resnet18",
        "parameters": 11_000_000,
        "macs": 1_800_000_000,
        "layers": [
            {"name": "conv1", "type": "Conv2d", "output": [64, 112, 112], "parameters": 9408, "macs": 9}
        ],
        "input_shape": [3, 224, 224],
        "num_classes": num_classes,
        "class_names": class_names,
        "preprocessing": PREPROCESSING,
        "size_bytes": 44_000_000,
        "warnings": [],
    }


def dataset_report(
    class_names: list[str], splits: tuple[str, ...] = ("train", "val", "test")
) -> dict[str, Any]:
    return {
        "class_names": class_names,
        "splits": {s: {"num_images": 4, "digest": "0" * 64, "per_class": {}} for s in splits},
        "bad_images": [],
        "layout": "class_folders",
        "warnings": [],
    }


@dataclass
class FakeWorker:
    """Claims what is queued, in a thread, and ends it as `answers` says; the verbs are the real ones."""

    storage: Storage
    answers: dict[str, Callable[[dict[str, Any]], dict[str, Any] | Problem]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            with reading() as session:
                waiting = session.execute(select(Job.id, Job.spec).where(Job.state == "queued")).all()
            for job_id, spec in waiting:
                if spec.get("inspect") in self.answers:
                    self.inspect(job_id)

    def inspect(self, job_id: str) -> None:
        claim = self.claim(job_id)
        outcome = self.answers[claim.spec["inspect"]](claim.spec)
        with transaction() as session:
            if isinstance(outcome, Problem):
                jobs.fail(session, claim, outcome)
            else:
                jobs.finish(session, claim, outcome)
            resources.settle(session, claim.spec, outcome)

    def claim(self, job_id: str) -> jobs.Claim:
        with transaction() as session:
            claim = jobs.claim(session, job_id, worker="fake:1", device="cpu")
        assert claim is not None
        return claim

    def put(self, content: bytes) -> str:
        with self.storage.writer() as writer:
            writer.write(content)
            return writer.commit()[0]

    def artifact(self, content: bytes, kind: str = "final", step: int = 1) -> jobs.NewArtifact:
        return jobs.NewArtifact(step, kind, f"{kind}.pt", self.put(content), len(content), {"accuracy": 0.5})

    def finish(self, job_id: str, content: bytes = b"student") -> None:
        claim = self.claim(job_id)
        with transaction() as session:
            jobs.finish(session, claim, {"metrics": {}}, [self.artifact(content)])

    def know(self, *, names: list[str], splits: tuple[str, ...] = ("train", "val", "test")) -> None:
        """Accept every teacher and data set, with these classes."""
        index = self.put(json.dumps({"class_names": names, "images": INDEX_IMAGES}).encode())
        self.answers = {
            "teacher": lambda spec: {
                "artifact_sha256": "a" * 64,
                "report": teacher_report(names, len(names)),
            },
            "dataset": lambda spec: {
                "index_sha256": index,
                "pack_sha256": "c" * 64,
                "report": dataset_report(names, splits),
            },
        }


INDEX_IMAGES = [
    {"path": f"{split}/{n}.jpg", "split": split, "label": n % 2, "offset": 0, "nbytes": 9, "sha256": "d" * 64}
    for split in ("test", "train")
    for n in range(3)
]


@dataclass
class Service:
    client: httpx.Client
    worker: FakeWorker
    settings: Settings
    port: int
    clients: list[httpx.Client] = field(default_factory=list)

    def key_of(self, tenant: str, scope: keys.Scope = "admin", days: float | None = None) -> str:
        """A new key for the tenant of this name, who is made if need be. From now on every request needs one."""
        with transaction() as session:
            found = tenants.named(session, tenant) or tenants.make(session, tenant)
            return keys.make(session, tenant_id=found.id, name=f"{tenant} {scope}", scope=scope, days=days)[1]

    def with_key(self, key: str) -> httpx.Client:
        """A client that sends this key. The fixture closes it."""
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx.Client(base_url=self.client.base_url, headers=headers, timeout=20)
        self.clients.append(client)
        return client

    def as_tenant(self, tenant: str, scope: keys.Scope = "admin") -> "Service":
        """This service as somebody else sees it."""
        return replace(self, client=self.with_key(self.key_of(tenant, scope)))

    def upload(self, name: str = "file.bin", content: bytes = b"bytes") -> None:
        assert self.client.put(f"/v1/files/{name}", content=content).status_code in (200, 201)

    def teacher(self, **spec: Any) -> str:
        self.upload("teacher.pt")
        answer = self.client.post("/v1/teachers", json={"file": "teacher.pt", **spec})
        assert answer.status_code == 201, answer.text
        ident: str = answer.json()["id"]
        return ident

    def dataset(self, **spec: Any) -> str:
        self.upload("photos.zip")
        answer = self.client.post("/v1/datasets", json={"file": "photos.zip", **spec})
        assert answer.status_code == 201, answer.text
        ident: str = answer.json()["id"]
        return ident

    def job_spec(self, **changes: Any) -> dict[str, Any]:
        return {
            "teachers": [self.teacher()],
            "dataset": self.dataset(),
            "steps": [{"method": "distill", "student": "student_net"}],
        } | changes

    def job(self, **changes: Any) -> str:
        answer = self.client.post("/v1/jobs", json=self.job_spec(**changes))
        assert answer.status_code == 202, answer.text
        ident: str = answer.json()["id"]
        return ident


@pytest.fixture(autouse=True)
def _small_catalogue(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path_factory.mktemp("catalogue") / "architectures.json"
    path.write_text(json.dumps(CATALOGUE))
    monkeypatch.setattr(architectures, "PATH", path)


@pytest.fixture
def service_settings(tmp_path: Path) -> Settings:
    """Small limits, so that a test reaches them. A test may ask for this fixture and change it first."""
    return Settings(
        data_dir=tmp_path / "data",
        BROKER_URL="",
        max_file_bytes=1 << 20,
        max_body_bytes=16 << 10,
        inspect_wait_seconds=5.0,
    )


@pytest.fixture
def service(database: str, service_settings: Settings) -> Iterator[Service]:
    """The API on both databases, with a worker that accepts everything with the classes cat and dog."""
    yield from serve(service_settings)


@pytest.fixture
def sqlite_service(sqlite_database: str, service_settings: Settings) -> Iterator[Service]:
    """The same on SQLite alone, for what no database can change."""
    yield from serve(service_settings)


def serve(settings: Settings) -> Iterator[Service]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = server.config(create_app(settings), settings, timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        while not running.started:
            time.sleep(0.005)
        worker = FakeWorker(Storage(settings.resolved_data_dir))
        worker.know(names=["cat", "dog"])
        worker.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                served = Service(client, worker, settings, port)
                yield served
                for other in served.clients:
                    other.close()
        finally:
            worker.stop()
            running.should_exit = True
            thread.join()
