"""The corpus: every hostile file gets its verdict, every good one is taken with exactly its tensors."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import models
from app.errors import Problem
from tests.corpus import good
from tests.corpus.case import Case
from tests.corpus.checkpoints import cases
from tests.worker import tiny
from worker.admission import admitted
from worker.gate import admit
from worker.inspections import teachers, uploads

MOST_SECONDS = 6.0
"""CPU time of the gate for one file of a megabyte; larger ones get it for each. A quiet machine needs a third."""
P95_SECONDS = 0.1
"""The same of files up to a megabyte, for 19 of 20."""


def order_of(file: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What a worker's child is told to inspect this file."""
    look = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    spec = {"file": "upload", **look, **request}
    return {"spec": spec, "num_threads": 1, "file": str(file), "work_dir": str(file.parent)}


class Verdict:
    """What the whole inspection of a case says, and how long the gate took."""

    def __init__(self, case: Case, folder: Path) -> None:
        file, self.canonical = folder / "upload", folder / "canonical"
        file.write_bytes(case.make())
        self.size_bytes = file.stat().st_size
        order = order_of(file, case.request)
        began = time.process_time()
        self.gate_seconds = 0.0
        try:
            try:
                said = None if uploads._is_table(file) else admitted(file, self.canonical)
            finally:
                self.gate_seconds = time.process_time() - began
            teachers.inspect(order, said, self.canonical)
            self.found = (200, "", None)
        except Problem as problem:
            rule = problem.errors[0]["code"] if problem.errors else None
            self.found = (problem.status, problem.code, rule)
            self.detail = problem.detail


def fault_of(case: Case, verdict: Verdict) -> str | None:
    """What is wrong with a verdict; None when it is the case's."""
    status, code, rule = verdict.found
    if (status, code) != (case.status, case.code) or case.rule not in (None, rule):
        return f"{case.name}: {verdict.found}, not {(case.status, case.code, case.rule)}"
    if len(verdict.detail) > 2000 or not verdict.detail.isprintable():
        return f"{case.name}: says {verdict.detail[:300]!r}"
    if code.startswith("CHECKPOINT_") and rule is not None and verdict.canonical.exists():
        return f"{case.name}: was refused and left a file"
    if verdict.gate_seconds > MOST_SECONDS * max(1, verdict.size_bytes / 1e6):
        return f"{case.name}: took {verdict.gate_seconds:.2f} s for {verdict.size_bytes} bytes"
    return None


def test_every_hostile_file_gets_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a file names has run, nothing is left behind, and none takes long."""
    monkeypatch.chdir(tmp_path)
    names, faults, seconds = [], [], []
    for case in cases():
        folder = tmp_path / "case"
        folder.mkdir()
        verdict = Verdict(case, folder)
        names.append(case.name)
        faults += [fault] if (fault := fault_of(case, verdict)) else []
        if verdict.size_bytes <= 1_000_000:
            seconds.append(verdict.gate_seconds)
        shutil.rmtree(folder)
    assert faults == []
    assert len(names) == len(set(names)) >= 150
    assert list(tmp_path.iterdir()) == []  # the sentinel of calls.py would lie here
    p95 = sorted(seconds)[int(0.95 * (len(seconds) - 1))]
    assert p95 < P95_SECONDS, f"{1000 * p95:.0f} ms; python -m benchmarks.gate has more figures"


@pytest.mark.parametrize("architecture", ["by hand", *good.ARCHITECTURES])
def test_every_good_file_is_taken_with_its_tensors(architecture: str, tmp_path: Path) -> None:
    """Names, types, shapes and bits are those that were saved; no warning is given where nothing is odd."""
    found = good.by_hand() if architecture == "by hand" else good.of_architecture(architecture)
    for case in found:
        file, canonical = tmp_path / "upload", tmp_path / "canonical"
        file.write_bytes(case.content)
        assert admit(file, canonical).warnings == [], case.name
        read = load_file(canonical)
        assert read.keys() == case.tensors.keys(), case.name
        for name, wanted in case.tensors.items():
            assert (read[name].dtype, read[name].shape) == (wanted.dtype, wanted.shape), (case.name, name)
            assert torch.equal(raw(read[name]), raw(wanted)), (case.name, name)


@pytest.mark.parametrize("form", good.FORMS)
def test_every_form_of_a_teacher_passes_its_inspection(form: str, tmp_path: Path) -> None:
    """The network that jobs will use has the tensors that were saved, in single precision."""
    file, canonical = tmp_path / "upload", tmp_path / "canonical"
    case = next(case for case in good.of_architecture(tiny.TEACHER) if case.name.endswith(form))
    file.write_bytes(case.content)
    order = order_of(file, {})
    report = teachers.inspect(order, admitted(file, canonical), canonical)["result"]["report"]
    assert (report["num_classes"], report["warnings"]) == (2, [])
    found = models.load(tmp_path / "teacher.pt").state_dict()
    assert found.keys() == case.tensors.keys()
    for name, wanted in case.tensors.items():
        assert torch.equal(found[name], wanted.float() if wanted.is_floating_point() else wanted), name


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes: NaN equals itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
