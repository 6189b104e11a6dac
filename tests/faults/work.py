"""Jobs to do while things break, by a client that does not give up, and what each of them must give."""

import random
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from sqlalchemy import select

from app.db import reading
from app.tables import TERMINAL, Artifact, Job
from tests.faults.rig import Rig
from tests.worker import tiny

PATIENCE_SECONDS = 240.0
_STUDENT = {"architecture": tiny.TEACHER, "image_size": tiny.SIDE}


def steps(epochs: int) -> dict[str, list[dict[str, Any]]]:
    """Kinds of jobs: their steps. Some seconds of training, and one that is nearly all start and end."""
    distill = {"method": "distill", "student": _STUDENT, "epochs": epochs, "batch_size": 16}
    return {
        "distilled": [{**distill, "augmentation": "light"}, {"method": "quantize"}],
        "wider": [{**distill, "epochs": epochs // 2, "batch_size": 8}, {**distill, "epochs": epochs // 2}],
        "stored": [{"method": "quantize", "scheme": "fp16"}],
    }


@dataclass
class Client:
    """Asks again as long as there is no answer, as any client must; says the same key each time."""

    rig: Rig
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = self.rig.client()

    def send(self, method: str, path: str, **options: Any) -> Any:
        answer = until(lambda: self._answer(method, path, **options), PATIENCE_SECONDS, self.rig)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        try:
            answer = self.http.request(method, path, **options)
        except httpx.TransportError:
            return None
        return answer if answer.status_code < 500 else None


@dataclass
class Work:
    """The jobs of one campaign. `kinds`: the digest that a job of each kind must have."""

    rig: Rig
    chance: random.Random
    epochs: int = 60
    digests: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    """The kind of each job that was answered with 202."""

    def __post_init__(self) -> None:
        self.client = Client(self.rig)
        self._steps = steps(self.epochs)
        self._ingredients = self._register()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.http.close()

    def undisturbed(self) -> None:
        """Do one job of each kind while all is well: its digest is what the others must have."""
        references = {kind: self._submit(kind) for kind in self._steps}
        until(lambda: not self.unfinished(list(references.values())), PATIENCE_SECONDS, self.rig)
        for kind, job_id in references.items():
            digest = final_digest(job_id)
            assert digest is not None, f"{kind}: {self.client.send('GET', f'/v1/jobs/{job_id}')['error']}"
            self.digests[kind] = digest

    def submit(self, kind: str | None = None) -> str:
        """One more job, of any kind where none is named."""
        kind = kind or self.chance.choice(list(self._steps))
        job_id = self._submit(kind)
        self.jobs[job_id] = kind
        return job_id

    def keep(self, num_jobs: int) -> None:
        """Submit until so many are unfinished."""
        for _ in range(num_jobs - len(self.unfinished())):
            self.submit()

    def unfinished(self, of: list[str] | None = None) -> list[str]:
        with reading() as session:
            ids = select(Job.id).where(Job.id.in_(of or self.jobs), Job.state.not_in(TERMINAL))
            return list(session.scalars(ids))

    def expected(self) -> dict[str, str | None]:
        return {job_id: self.digests[kind] for job_id, kind in self.jobs.items()}

    def wait(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Whether all jobs ended in time."""
        give_up = time.monotonic() + seconds
        while self.unfinished():
            if time.monotonic() > give_up:
                return False
            self.rig.mend()
            time.sleep(0.1)
        return True

    def _submit(self, kind: str) -> str:
        body = {**self._ingredients, "steps": self._steps[kind], "seed": 3, "device": "cpu", "name": kind}
        key = {"Idempotency-Key": secrets.token_hex(8)}
        job_id: str = self.client.send("POST", "/v1/jobs", json=body, headers=key)["id"]
        return job_id

    def _register(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            teacher = tiny.write_teacher(Path(folder) / "teacher.pt")
            photos = tiny.write_photos(Path(folder) / "photos.zip")
            for file in (teacher, photos):
                self.client.send("PUT", f"/v1/files/{file.name}", content=file.read_bytes())
        look = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
        card = {"file": "teacher.pt", "class_names": list(tiny.CLASSES), **look}
        return {
            "teachers": [self._ready("/v1/teachers", card)],
            "dataset": self._ready("/v1/datasets", {"file": "photos.zip"}),
        }

    def _ready(self, path: str, body: dict[str, Any]) -> str:
        ident: str = self.client.send("POST", path, json=body)["id"]

        def settled() -> Any:
            found = self.client.send("GET", f"{path}/{ident}")
            return found if found["state"] != "inspecting" else None

        found = until(settled, 120, self.rig)
        assert found["state"] == "ready", found["error"]
        return ident


def final_digest(job_id: str) -> str | None:
    """Of the file that is the job's answer; None: it has none."""
    with reading() as session:
        return session.scalar(
            select(Artifact.sha256).where(Artifact.job_id == job_id, Artifact.kind == "final")
        )


def until(condition: Callable[[], Any], seconds: float, rig: Rig | None = None) -> Any:
    """Wait for something true and return it. Whoever runs the service goes on tending it."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, "it never happened"
        if rig is not None:
            rig.mend()
        time.sleep(0.02)
    return found
