"""What one tenant's job leaves behind is found by no other: not in artifacts, tensors, logs, events, errors or lists.

Tenant A trains with a network, photos and names full of a pattern that occurs nowhere else. Tenant B then sends what made
`torch.load` hand out memory that was not the file's own, and an honest job; everything that B can read is searched.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from models.architectures import create
from tests.service import Service, wait_for
from tests.worker import tiny

# 16 bytes as four equal float32 numbers: 0.0451… as a weight, and as the colour of A's photos.
NUMBER = b"\x9d\xc3\x38\x3d"
PATTERN = 4 * NUMBER
WORD = "quokkasentinel"
SHORT = {"epochs": 1, "batch_size": 16}


class Tenant:
    """One tenant's side of the service."""

    def __init__(self, service: Service, name: str) -> None:
        command = [sys.executable, "-m", "app.cli", "keys", "create", "--tenant", name, "--name", "test"]
        made = subprocess.run(
            [*command, "--scope", "admin", "--data-dir", str(service.data_dir)],
            env={
                key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "BROKER_URL")
            },
            capture_output=True,
            text=True,
            check=True,
        )
        key = made.stdout.strip()
        self.http = httpx.Client(
            base_url=service.card()["url"], headers={"Authorization": f"Bearer {key}"}, timeout=120
        )

    def __enter__(self) -> "Tenant":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def send(self, kind: str, content: bytes, file: str, **body: Any) -> httpx.Response:
        assert self.http.put(f"/v1/files/{file}", content=content).is_success
        return self.http.post(f"/v1/{kind}", json={"file": file, **body})

    def ready(self, kind: str, content: bytes, file: str, **body: Any) -> str:
        answer = self.send(kind, content, file, **body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, teacher: str, dataset: str, **more: Any) -> dict[str, Any]:
        """A finished one: a student is trained and stored in 8 bits."""
        student = {"architecture": "report/final", "image_size": tiny.SIDE}
        steps = [{"method": "distill", "student": student, **SHORT}, {"method": "quantize", "bits": 8}]
        body = {"teachers": [teacher], "dataset": dataset, "steps": steps, "device": "cpu", **more}
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        path = f"/v1/jobs/{answer.json()['id']}"
        wait_for(lambda: self.http.get(path).json()["state"] in ("succeeded", "failed"), 120)
        job: dict[str, Any] = self.http.get(path).json()
        assert job["state"] == "succeeded", job["error"]
        return job

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All that this tenant can read, packed files also unpacked."""
        paths = [
            "/v1/files",
            "/v1/teachers",
            "/v1/datasets",
            "/v1/jobs",
            "/v1/audit",
            "/v1/keys",
            "/v1/usage",
        ]
        paths += ["/v1/workers", "/v1/queues"]
        for kind in ("teachers", "datasets", "jobs"):
            for item in self.http.get(f"/v1/{kind}").json()["items"]:
                own = f"/v1/{kind}/{item['id']}"
                paths += [own, f"{own}/tensors"] if kind == "teachers" else [own]
                inspection = item["links"].get("inspection")
                job = own if kind == "jobs" else inspection
                paths += [job, f"{job}/events", f"{job}/logs", f"{job}/metrics", f"{job}/artifacts"]
                for artifact in self.http.get(f"{job}/artifacts").json()["items"]:
                    paths.append(f"/v1/artifacts/{artifact['id']}/content")
        for path in paths:
            content = self.http.get(path).content
            yield path, content
            if content[:2] == b"PK":
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    for name in archive.namelist():
                        yield f"{path} {name}", archive.read(name)


def found_in(tenant: Tenant) -> tuple[list[str], int]:
    """Where the sentinel is, and how many places were searched."""
    everything = list(tenant.everything())
    found = [path for path, content in everything if PATTERN in content or WORD.encode() in content.lower()]
    return found, len(everything)


def sentinel_teacher() -> bytes:
    network = create(tiny.TEACHER, num_classes=2, image_size=tiny.SIDE)
    state = network.state_dict()
    (value,) = struct.unpack("<f", NUMBER)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            tensor.fill_(value)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def sentinel_photos() -> bytes:
    buffer, picture = io.BytesIO(), io.BytesIO()
    Image.frombytes("RGB", (48, 48), NUMBER * (48 * 48 * 3 // 4)).save(picture, "BMP")
    with zipfile.ZipFile(buffer, "w") as archive:
        for split, count in (("train", 12), ("val", 4), ("test", 4)):
            for label in ("a", "b"):
                for number in range(count):
                    photo = picture.getvalue() + f"{split}{label}{number}".encode()
                    archive.writestr(f"{split}/{WORD}-{label}/{WORD}{number}.bmp", photo)
    return buffer.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def strange_uploads() -> dict[str, bytes]:
    """What showed another's memory, or would."""
    weights = {"w": torch.rand(64, 64)}
    legacy = saved(weights, _use_new_zipfile_serialization=False)
    zipped = saved(weights)
    count = struct.pack("<q", 64 * 64)
    assert count in legacy
    uninitialised = b"\x80\x02}X\x01\x00\x00\x00wctorch\nFloatTensor\nJ\x00\x00\x10\x00\x85Rs."
    return {
        "cut.bin": legacy[:-8000],
        "cut.pt": zipped[: len(zipped) // 2],
        "longer.bin": legacy.replace(b"M\x00\x10", b"M\x00\x40").replace(count, struct.pack("<q", 1 << 14)),
        "uninitialised.pt": _with_pickle(zipped, uninitialised),
        "uninitialised.pkl": uninitialised,
        "expanded.pt": saved({"w": torch.rand(1).expand(1 << 20)}),
        "beyond.pt": _with_pickle(zipped, _pickle_of(zipped).replace(b"M\x00\x10", b"M\x00\x20")),
        "plain.pkl": pickle.dumps(weights),
    }


def _pickle_of(zipped: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        return archive.read("archive/data.pkl")


def _with_pickle(zipped: bytes, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive, zipfile.ZipFile(buffer, "w") as other:
        for info in archive.infolist():
            other.writestr(
                info.filename, content if info.filename.endswith("data.pkl") else archive.read(info)
            )
    return buffer.getvalue()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "data", {})
    yield running
    assert running.stop() == 0


def test_no_tenant_finds_what_anothers_job_left(service: Service, tmp_path: Path) -> None:
    with Tenant(service, "a") as a, Tenant(service, "b") as b:
        _find_nothing(service, a, b, tmp_path)


def _find_nothing(service: Service, a: Tenant, b: Tenant, tmp_path: Path) -> None:
    look = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    teacher = a.ready("teachers", sentinel_teacher(), f"{WORD}.pt", name=WORD, **look)
    dataset = a.ready("datasets", sentinel_photos(), f"{WORD}.zip", name=WORD)
    a.job(teacher, dataset, name=WORD, labels={WORD: WORD})

    codes = {}
    for name, content in strange_uploads().items():
        answer = b.send("teachers", content, name, **look)
        codes[name] = (answer.status_code, answer.json()["code"])
    assert {status for status, _ in codes.values()} == {422}, codes
    photos = tiny.write_photos(tmp_path / "photos.zip").read_bytes()
    own = b.ready("teachers", tiny.write_teacher(tmp_path / "teacher.pt").read_bytes(), "teacher.pt", **look)
    b.job(own, b.ready("datasets", photos, "photos.zip"))
    for path in (f"/v1/teachers/{teacher}", f"/v1/teachers/{teacher}/tensors", f"/v1/datasets/{dataset}"):
        answer = b.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")

    leaked, searched = found_in(b)
    assert leaked == []
    assert searched > 60
    # The same search finds it where it belongs: in A's tensors, A's names, A's log.
    mine, _ = found_in(a)
    assert f"/v1/teachers/{teacher}/tensors" in mine
    assert len(mine) > 10
    assert json.dumps(service.card()).find(WORD) < 0
