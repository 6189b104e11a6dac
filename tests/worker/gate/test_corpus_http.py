"""A sample of the corpus as strangers send it: over HTTP, to a running service. `make fuzz` sends all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.corpus.checkpoints import cases
from tests.fuzz.http_corpus import fault_of
from tests.service import Service
from tests.worker import tiny

# One for each way to be refused; those that need PyTorch take seconds each.
SAMPLE = (
    "call of os.system",
    "torch.save of a whole module",
    "a call of torch.FloatTensor(2**20): memory that nobody has filled",
    "a key that is a tuple, a million deep",
    "a billion laughs in an artifact's graph",
    "weights of 64 MB in 64 KB",
    "tensor: stride 0 over 100 GB",
    "weights in complex64",
    "zip: a member with a path upwards",
    "zip: only 5 tenths of it",
    "legacy: a storage claims more than is there, twice",
    "safetensors: rank 1000",
    "TorchScript",
    "torch.export, of today",
    "foreign: nothing",
    "a table that is no UTF-8",
    "artifact: a layer of 2**60 weights",
    "meaning: a negative running_var",
    "meaning: no preprocessing",
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "data", {})
    yield running
    assert running.stop() == 0


def test_hostile_uploads_are_refused_and_the_service_lives(service: Service, tmp_path: Path) -> None:
    """The verdict is the answer to the POST; the worker is the same process afterwards, and takes a good file."""
    corpus = {case.name: case for case in cases() if case.name in SAMPLE}
    assert len(corpus) == len(SAMPLE)
    worker = service.pid("worker")
    answers = [fault_of(service, case, f"{number}.pt") for number, case in enumerate(corpus.values())]
    assert [fault for fault, _ in answers if fault] == []
    assert service.pid("worker") == worker
    teachers = service.get("/v1/teachers", page_size=200)["items"]
    assert {teacher["state"] for teacher in teachers} == {"rejected"}
    jobs = [service.get(teacher["links"]["inspection"]) for teacher in teachers]
    assert {(job["state"], len(job["attempts"])) for job in jobs} == {("failed", 1)}
    good = tiny.write_teacher(tmp_path / "good.pt").read_bytes()
    service.http.put("/v1/files/good.pt", content=good)
    look = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    taken = service.http.post("/v1/teachers", json={"file": "good.pt", **look})
    assert taken.status_code == 201, taken.text
    read = safetensors.torch.load(service.http.get(f"/v1/teachers/{taken.json()['id']}/tensors").content)
    saved = torch.load(tmp_path / "good.pt", weights_only=True)
    assert read.keys() == saved.keys()
    assert all(torch.equal(read[name], saved[name]) for name in saved)
