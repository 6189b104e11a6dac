"""Compress orders on the tiny task, for tests that run the pipeline itself."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.spec.job import JobSpec
from app.spec.resources import DatasetSpec
from tests.worker import tiny
from worker.datasets.build import build_dataset
from worker.inspections import uploads
from worker.messages import Line, Stops

QUIET = Line(os.open(os.devnull, os.O_WRONLY))
STUDENT = {"architecture": tiny.TEACHER, "image_size": tiny.SIDE}
DISTILL = {"method": "distill", "student": STUDENT, "epochs": 1, "batch_size": 16}


class Ear(Line):
    """A line that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.heard.append(json.loads(json.dumps(message, allow_nan=False)))

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        return (message for message in self.heard if message["type"] == kind)


def inspected_teacher(folder: Path, content: bytes, ident: str = "tch_1", **spec: Any) -> dict[str, Any]:
    """What an order says about a teacher that was uploaded and inspected."""
    folder.mkdir()
    upload = folder / "upload"
    upload.write_bytes(content)
    order = {
        "spec": {"file": "upload", **spec},
        "file": str(upload),
        "work_dir": str(folder),
        "num_threads": 1,
    }
    report = uploads.teacher(order, QUIET, Stops())["result"]["report"]
    return {
        "id": ident,
        "kind": "soft_labels" if "soft_labels" in report else "network",
        "path": str(folder / "teacher.pt"),
        "sha256": "ab" * 32,
        "file_sha256": hashlib.sha256(content).hexdigest(),
        "tensors_sha256": None,
        "size_bytes": len(content),
        "declared_accuracy": None,
    }


def dataset(folder: Path, archive: Path) -> dict[str, Any]:
    build_dataset(DatasetSpec(file="photos.zip"), archive, folder)
    digests = {
        f"{name.split('.')[0]}_sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("index.json", "pack")
    }
    paths = {"index": str(folder / "index.json"), "pack": str(folder / "pack"), "folder": None}
    return {"id": "dst_1", **digests, **paths}


def order(
    work_dir: Path, teachers: list[dict[str, Any]], data: dict[str, Any], steps: list[Any], **spec: Any
) -> dict[str, Any]:
    work_dir.mkdir(exist_ok=True)
    job = {
        "teachers": [t["id"] for t in teachers],
        "dataset": "dst_1",
        "steps": steps,
        "device": "cpu",
        **spec,
    }
    return {
        "spec": JobSpec.model_validate(job).model_dump(mode="json"),
        "device": "cpu",
        "num_threads": 1,
        "work_dir": str(work_dir),
        "cache_dir": data["index"].removesuffix("index.json"),
        "checkpoint_seconds": 10.0,
        "cancel_grace_seconds": 4.0,
        "teachers": teachers,
        "data": data,
    }
