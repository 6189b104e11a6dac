"""What a trainer may take: multiply-adds as they were estimated, memory, time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.planning.costs import Macs, step_macs
from app.settings import Settings, settings
from app.spec.job import JobSpec
from app.spec.steps.distill import Distill
from app.spec.steps.train import Train
from models import layer_table
from tests.worker.fakes import MemoryData, make_run
from tests.worker.inspections.test_teachers import child
from tests.worker.steps.test_distill import make_teacher
from worker import orders, verdicts
from worker.steps import distill, train

FIELDS = {"student": {"architecture": "report/final", "image_size": 32}, "epochs": 2, "batch_size": 8}


def spec(**changes: Any) -> JobSpec:
    steps = [{"method": "distill", "student": "report/final"}]
    return JobSpec.model_validate({"teachers": ["tch_1"], "dataset": "dst_1", "steps": steps, **changes})


def test_the_estimate_is_what_a_trainer_counts(tmp_path: Path) -> None:
    """On train alone, so that the estimate's looks at val are none; its measurement of 24 images is taken off."""
    teacher = make_teacher()
    asked = layer_table(teacher.network)["macs"]
    for step, module in (
        (Train(method="train", **FIELDS), train),
        (Distill(method="distill", **FIELDS), distill),
    ):
        run = make_run(tmp_path / step.method, data=MemoryData(train=24), teachers=[teacher])
        student = layer_table(module.apply(None, step, run))["macs"]
        estimate = step_macs(step, Macs(student, student), asked, {"train": 24})
        assert estimate.about is not None
        assert estimate.about - 24 * student == run.cost.macs


@pytest.mark.parametrize(
    ("device", "gpu", "limited"),
    [("cpu", True, True), ("auto", False, True), ("auto", True, False), ("cuda", True, False)],
)
def test_the_memory_limit_is_for_trainers_on_the_cpu(
    device: str, gpu: bool, limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBYTES_TRAINER_MEMORY_BYTES", str(2 << 30))
    settings.cache_clear()
    monkeypatch.setattr(orders.gpu, "present", lambda: gpu)
    assert orders._trainer_limits(spec(device=device))["memory_bytes"] == (2 << 30) * limited
    settings.cache_clear()


def test_a_trainer_stands_back_for_whoever_answers_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process, and as a session where Linux shares the CPU between those."""
    monkeypatch.setenv("FEWBYTES_TRAINER_NICE", "7")
    settings.cache_clear()
    asked = orders._trainer_limits(spec(device="cpu"))["nice"]
    settings.cache_clear()
    code = f"""
import os, pathlib
from worker.limits import limit
os.setsid()
limit({{"nice": {asked}}})
grouped = pathlib.Path("/proc/sys/kernel/sched_autogroup_enabled")
on = grouped.exists() and grouped.read_text().strip() == "1"
print(os.nice(0), pathlib.Path("/proc/self/autogroup").read_text().split()[-1] if on else {asked})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual = os.nice(0)
    assert done.stdout.split() == [str(min(19, usual + 7)), "7"]


def test_without_a_setting_the_machine_keeps_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWBYTES_TRAINER_MEMORY_BYTES", raising=False)
    settings.cache_clear()
    limit = orders._trainer_limits(spec(device="cpu"))["memory_bytes"]
    assert limit == 9 * orders.machine_bytes() // 10
    assert 1 << 30 < orders.machine_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    settings.cache_clear()


def test_a_limit_in_which_torch_cannot_start_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1073741824"):
        Settings(trainer_memory_bytes=500 << 20)


@pytest.mark.parametrize("megabytes", [300, 600])
def test_a_trainer_without_memory_is_told_so_and_not_tried_again(tmp_path: Path, megabytes: int) -> None:
    """Torch needs about 0.9 GB: it fails in Python, or takes the process with it."""
    order = {"do": "compress", "limits": {"memory_bytes": megabytes << 20}, "work_dir": str(tmp_path)}
    said, code = child(order)
    last = json.loads(said.splitlines()[-1]) if said else {}
    starved = verdicts.starved(code, order)
    assert last.get("code", starved and starved.code) == "OUT_OF_MEMORY"


def test_other_ends_are_no_want_of_memory() -> None:
    limited = {"do": "compress", "limits": {"memory_bytes": 1 << 30}}
    assert verdicts.starved(-9, limited) is None
    assert verdicts.starved(1, limited) is None
    assert verdicts.starved(-6, {"do": "compress", "limits": {"memory_bytes": 0}}) is None


@pytest.mark.parametrize(("asked", "seconds"), [(None, 3600), (60, 60), (7200, 3600)])
def test_every_job_has_a_deadline(
    asked: float | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that were queued when the limit was higher, too."""
    monkeypatch.setenv("FEWBYTES_MAX_JOB_SECONDS", "3600")
    settings.cache_clear()
    assert orders._deadline(spec(deadline_seconds=asked)) == seconds
    settings.cache_clear()
