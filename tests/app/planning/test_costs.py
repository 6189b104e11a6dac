"""What a job is said to cost, and the bounds on cost and time."""

from typing import Any

import pytest

from app.errors import Problem
from app.planning.costs import Macs, check_job, step_macs
from app.settings import Settings, settings
from app.spec.job import JobSpec
from tests.app.conftest import Service

IMAGES = {"train": 100, "val": 10, "test": 5}
NETWORK = Macs(1000.0, 1000.0)
STUDENT = {"architecture": "student_net"}
RESNET50 = Macs(4.1e9, 4.1e9)
IMAGENET = {"train": 1_280_000, "val": 50_000}


def job(*steps: dict[str, Any], **spec: Any) -> JobSpec:
    return JobSpec.model_validate({"teachers": ["tch_1"], "dataset": "dst_1", "steps": list(steps), **spec})


def cost(step: dict[str, Any], teacher_macs: float = 0, network: Macs = NETWORK) -> Macs:
    return step_macs(job({"method": "finetune"}, step).steps[1], network, teacher_macs, IMAGES)


@pytest.mark.parametrize(
    ("step", "teacher_macs", "passes"),
    [
        # All 115 images are measured; each epoch: three passes of 100 images, one of 10.
        ({"method": "train", "student": STUDENT, "epochs": 3}, 0, 115 + 3 * 310),
        ({"method": "train", "student": STUDENT, "epochs": 3}, 9, 115 + 3 * 310),
        ({"method": "train", "student": STUDENT, "epochs": 3, "splits": ["train", "val"]}, 0, 115 + 3 * 340),
        ({"method": "train", "student": STUDENT, "epochs": 2, "train_fraction": 0.5}, 0, 115 + 2 * 160),
        ({"method": "distill", "student": STUDENT, "epochs": 3}, 5000, 115 + 3 * 310 + 3 * 500),
        ({"method": "distill", "student": STUDENT, "epochs": 3, "alpha": 0}, 5000, 115 + 3 * 310),
        (
            {"method": "distill", "student": STUDENT, "epochs": 3, "soft_labels": {"views": 1}},
            5000,
            115 + 3 * 310 + 500,
        ),
        ({"method": "fold"}, 5000, 115),
        ({"method": "quantize"}, 0, 115),
        ({"method": "quantize", "rounding": "adaround", "calibration_images": 64}, 0, 115 + 64),
        ({"method": "sparsify"}, 0, 115),
        ({"method": "sparsify", "training": {"epochs": 2}}, 0, 115 + 2 * 310),
        (
            {"method": "prune", "keep_rate": 0.5, "iterations": 4, "training": {"epochs": 2}},
            0,
            115 + 4 * 2 * 310 + 4 * 20,
        ),
        (
            {
                "method": "prune",
                "keep_rate": 0.5,
                "iterations": 4,
                "recover": "scratch_e",
                "training": {"epochs": 2},
            },
            0,
            115 + 2 * 310 + 4 * 20,
        ),
        ({"method": "prune", "keep_rate": 0.5, "iterations": 4, "recover": "none"}, 0, 115 + 4 * 20),
        # Gradients of a million batches of 64, and batch norms of 9 batches, after each of 2 cuts.
        (
            {
                "method": "prune",
                "keep_rate": 0.5,
                "iterations": 2,
                "recover": "none",
                "criterion": "taylor",
                "score_batches": 1_000_000,
                "bn_reestimation_batches": 9,
            },
            0,
            115 + 2 * (3 * 64_000_000 + 9 * 64 + 20),
        ),
        (
            {
                "method": "prune",
                "keep_rate": 0.5,
                "recover": "none",
                "sparsity": {"kind": "slimming", "epochs": 5},
            },
            0,
            115 + 5 * 310 + 20,
        ),
    ],
)
def test_passes_are_counted(step: dict[str, Any], teacher_macs: float, passes: float) -> None:
    """By hand: images times epochs times passes, all of a network of 1,000 multiply-adds."""
    assert cost(step, teacher_macs) == Macs(1000.0 * passes, 1000.0 * passes)


def test_of_an_unknown_network_only_the_teachers_part_is_known() -> None:
    step = {"method": "distill", "student": STUDENT, "epochs": 3}
    assert cost(step, 5000, Macs(None, None)) == Macs(None, 3 * 100 * 5000)
    assert cost({"method": "fold"}, 5000, Macs(None, None)) == Macs(None, None)
    assert cost({"method": "fold"}, 0, Macs(None, 1000.0)) == Macs(None, 115_000.0)


@pytest.mark.parametrize(("epochs", "seeds", "fits"), [(300, 3, True), (9600, 1, True), (10_000, 100, False)])
def test_the_default_limit_lets_real_work_through(epochs: int, seeds: int, fits: bool) -> None:
    """ResNet-50 on ImageNet: 300 epochs thrice, 9,600 epochs of function matching; not 10,000 a hundred times."""
    spec = job({"method": "distill", "student": STUDENT, "epochs": epochs}, seeds=seeds)
    costs = [step_macs(spec.steps[0], RESNET50, 4.1e9, IMAGENET)]
    limit = Settings.model_fields["max_job_macs"].default
    if fits:
        check_job(spec, costs, limit)
        return
    with pytest.raises(Problem) as problem:
        check_job(spec, costs, limit)
    assert (problem.value.status, problem.value.code) == (422, "JOB_TOO_LARGE")
    for said in ("2.1e+22", "1.0e+21", "epochs", "seeds"):
        assert said in problem.value.detail
    assert problem.value.errors[0]["pointer"] == "/steps/0"


def test_no_limit() -> None:
    check_job(job({"method": "fold"}, seeds=100), [Macs(1e30, 1e30)], 0)


STEPS = [
    {"method": "distill", "student": {"architecture": "student_net", "image_size": 64}, "epochs": 3},
    {"method": "quantize"},
]


def test_a_plan_tells_what_its_steps_cost(service: Service) -> None:
    """4 images a split, a student of 2 million, a teacher of 1.8 billion multiply-adds."""
    plan = service.client.post("/v1/jobs?validate_only=true", json=service.job_spec(steps=STEPS)).json()
    distilled, quantized = plan["estimates"]
    passes = 12 + 3 * (3 * 4 + 4)
    assert distilled["job_macs"] == pytest.approx(passes * 2e6 + 3 * 4 * 1.8e9, rel=0.01)
    assert quantized["job_macs"] == pytest.approx(12 * 2e6, rel=0.01)
    assert plan["limits"] == {"macs": 1e21, "seconds": 30 * 86400}


def test_unknown_sizes_are_bounded_by_what_they_came_from(service: Service) -> None:
    """A pruned network is no larger than it was; a narrow copy of a teacher no larger than the teacher."""
    steps = [
        {"method": "prune", "keep_rate": 0.5, "training": {"epochs": 1}},
        {"method": "finetune", "epochs": 1},
        {"method": "train", "student": {"teacher": 0, "width": 0.5}, "epochs": 1},
        {"method": "train", "student": {"architecture": "student_net", "image_size": 128}, "epochs": 1},
    ]
    plan = service.client.post("/v1/jobs?validate_only=true", json=service.job_spec(steps=steps)).json()
    passes = 12 + 3 * 4 + 4
    pruned, tuned, narrow, scaled = plan["estimates"]
    for step, looks in ((pruned, 2 * 4), (tuned, 0), (narrow, 0)):
        assert step["job_macs"] is None
        assert step["job_macs_at_most"] == pytest.approx((passes + looks) * 1.8e9, rel=0.01)
    assert scaled["job_macs_at_most"] == pytest.approx(passes * 2e6 * 4, rel=0.01)


@pytest.fixture
def tight_limits(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FEWBYTES_MAX_JOB_MACS", "1e10")
    monkeypatch.setenv("FEWBYTES_MAX_JOB_SECONDS", "3600")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("tight_limits")
def test_a_job_beyond_the_limits_is_refused_and_not_stored(sqlite_service: Service) -> None:
    client, spec = sqlite_service.client, sqlite_service.job_spec(steps=STEPS)
    for query in ("", "?validate_only=true"):
        answer = client.post(f"/v1/jobs{query}", json=spec)
        assert (answer.status_code, answer.json()["code"]) == (422, "JOB_TOO_LARGE")
        assert answer.json()["errors"][0]["pointer"] == "/steps/0"
    small = [{**STEPS[0], "epochs": 1, "alpha": 0}]
    late = client.post("/v1/jobs", json={**spec, "steps": small, "deadline_seconds": 3601})
    assert (late.status_code, late.json()["code"]) == (422, "INVALID_SPEC")
    assert late.json()["errors"][0] | {"hint": ""} == {
        "pointer": "/deadline_seconds",
        "code": "DEADLINE_TOO_LONG",
        "detail": "A job may run 3600 seconds here, and this asks for 3601.",
        "hint": "",
    }
    assert client.get("/v1/jobs").json()["items"] == []
    taken = client.post("/v1/jobs", json={**spec, "steps": small, "deadline_seconds": 3600})
    assert taken.status_code == 202
