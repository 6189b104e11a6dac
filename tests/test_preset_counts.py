"""The exact counts of the report come out of the presets at their full size."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app import presets
from app.spec.job import JobSpec
from app.spec.steps.prune import Prune
from app.sweeps.points import grid, jobs_at
from models import layer_table
from models.architectures import create_network
from tests.worker.fakes import PREPROCESSING, MemoryData, make_run
from worker.steps import prune

NUM_CLASSES = 11
COUNTS = {
    0.99: [251_796, 247_188, 244_031, 239_172, 236_066],
    0.95: [236_066, 217_850, 200_354, 185_091, 171_606],
    0.9: [216_518, 183_578, 156_084, 132_858, 114_810],
}
ARCHITECTURES = {
    "report/plain": 242_203,
    "report/separable": 161_819,
    "report/separable-matched": 239_899,
    "report/groups-half": 163_259,
    "report/groups-quarter": 166_139,
    "report/groups-eighth": 171_899,
    "report/groups-1": 243_323,
}


def jobs_of(name: str) -> list[JobSpec]:
    """At full size, one a point."""
    spec = presets.expand(name, ["tch_1"], "dst_1")
    return jobs_at(spec, grid(spec))


@pytest.fixture(scope="module")
def studentnet() -> nn.Module:
    """On small images, which changes no parameter; with norms as a training leaves them: all different."""
    network = create_network("course/studentnet", num_classes=NUM_CLASSES, image_size=16, seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5, generator=generator)
    network.preprocessing = {**PREPROCESSING, "resize": [16, 16]}
    return network.eval()


def parameters_after(network: nn.Module, step: Prune, folder: Path) -> list[int]:
    run = make_run(folder, data=MemoryData(NUM_CLASSES, train=11, val=11))
    prune.apply(network, step, run)
    return [row["parameters"] for row in run.details["iterations"]]


@pytest.mark.parametrize("keep_rate", COUNTS)
def test_pruning_rates_leave_what_the_report_says(
    studentnet: nn.Module, tmp_path: Path, keep_rate: float
) -> None:
    """F1, after each of five cuts."""
    (step,) = [
        job.steps[1]
        for job in jobs_of("pruning_rates")
        if job.steps[1].keep_rate == keep_rate and job.steps[1].recover == "none"
    ]
    assert parameters_after(studentnet, step, tmp_path) == COUNTS[keep_rate]


def test_recoveries_end_at_a_quarter(studentnet: nn.Module, tmp_path: Path) -> None:
    """F9: 62,619 of 256,779 by 19 cuts; by the short form's two the same."""
    (step,) = [job.steps[1] for job in jobs_of("recoveries") if job.steps[1].recover == "none"]
    short = presets.find("recoveries").SHORT
    quick = step.model_copy(update={"iterations": short["iterations"], "keep_rate": short["keep_rate"]})
    assert parameters_after(studentnet, step, tmp_path / "full")[-1] == 62_619
    assert parameters_after(studentnet, quick, tmp_path / "short")[-1] == 62_619


def test_the_architectures_are_those_of_the_table() -> None:
    """G: all seven, at the size that the preset leaves to them."""
    found = {}
    for job in jobs_of("architectures"):
        student = job.steps[0].student
        assert student.image_size is None
        network = create_network(student.architecture, num_classes=NUM_CLASSES, image_size=64, seed=0)
        found[student.architecture] = layer_table(network)["parameters"]
    assert found == ARCHITECTURES
