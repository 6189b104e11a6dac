"""Every checkpoint of the corpus: the hostile ones get the answer that stands beside them, the good ones are taken whole."""

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from app.errors import Problem
from tests.corpus import checkpoints, good_checkpoints
from tests.corpus.case import Case
from worker.admission import admitted
from worker.inspections import teachers, uploads
from worker.messages import Line, Stops

LINE = Line(2)


def verdict(case: Case, folder: Path) -> Problem | None:
    """The gate's, or for files that only the network shows to be wrong that of the whole inspection."""
    file = folder / "upload"
    file.write_bytes(case.content)
    try:
        if not case.name.startswith("meaning"):
            admitted(file, folder / "canonical")
            return None
        order: dict[str, Any] = {
            "spec": {"file": "upload", **case.request},
            "file": str(file),
            "work_dir": str(folder),
            "num_threads": 1,
        }
        uploads.teacher(order, LINE, Stops())
    except Problem as problem:
        return problem
    return None


@pytest.mark.filterwarnings("ignore")  # PyTorch's, about old formats that the corpus writes
def test_every_hostile_checkpoint_gets_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is let in, none leaves a file behind, and a small one takes no time."""
    monkeypatch.setattr(teachers, "_SEARCH_SECONDS", 0.0)  # for the architecture that was meant
    wrong, names, small = [], set(), []
    for case in checkpoints.cases():
        began = time.perf_counter()
        problem = verdict(case, tmp_path)
        names.add(case.name)
        if problem is None or (problem.status, problem.code) != (case.status, case.code):
            wrong.append(f"{case.name}: {problem}, not {case.code}")
        elif case.rule is not None and problem.errors[0]["code"] != case.rule:
            wrong.append(f"{case.name}: {problem.errors[0]}, not {case.rule}")
        elif not case.name.startswith("meaning"):
            assert problem.errors[0]["hint"]
            assert not (tmp_path / "canonical").exists()
            if len(case.content) <= 1_000_000:
                small.append(time.perf_counter() - began)
    assert wrong == []
    assert len(names) >= 300
    # Writing the file is in it; benchmarks/gate.py measures from the start of a process.
    assert statistics.quantiles(small, n=20)[-1] < 0.1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_good_checkpoint_is_taken_whole(tmp_path: Path) -> None:
    count = 0
    for case in good_checkpoints.cases():
        (tmp_path / "upload").write_bytes(case.content)
        admitted(tmp_path / "upload", tmp_path / "canonical")
        assert good_checkpoints.same(load_file(tmp_path / "canonical"), case.tensors()), case.name
        count += 1
    assert count == 100


def test_a_good_checkpoint_of_every_form_becomes_a_teacher(tmp_path: Path) -> None:
    """Through the whole inspection; half precision is read as float32."""
    for case in good_checkpoints.cases():
        if "report/final" in case.name:
            problem = verdict(Case("meaning", case.make, 201, "", request=case.request), tmp_path)
            assert problem is None, (case.name, problem)
