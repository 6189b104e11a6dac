"""What a job asked of its answer, against what was measured; the errors are worked out by hand."""

import itertools
import statistics
from typing import Any

import pytest

from app import gates
from app.spec.job import GATES, JobSpec

LATENCY = {
    "median": 4.0,
    "p10": 3.5,
    "p90": 6.0,
    "n": 50,
    "device": "a CPU",
    "num_threads": 2,
    "batch_size": 1,
}


def result(*, n: int = 100, only_teacher: int = 6, only_network: int = 2, **splits: Any) -> dict[str, Any]:
    pair = {"num_images": n, "num_only_teacher": only_teacher, "num_only_network": only_network}
    answer = {"size_bytes": 1000, "latency_ms": LATENCY, "against_teacher": splits or {"test": pair}}
    return {"stages": [{"size_bytes": 9999}, answer], "warnings": ["early"]}


def test_the_gates_are_fields_of_a_job() -> None:
    assert set(GATES) <= set(JobSpec.model_fields)


def test_a_job_without_limits_has_neither_passed_nor_failed() -> None:
    judged = gates.judged({"max_bytes": None}, result())
    assert (judged["gates"], judged["passed"], judged["warnings"]) == ([], None, ["early"])


def test_every_limit_is_a_gate_and_a_value_at_its_limit_has_passed() -> None:
    judged = gates.judged({"max_bytes": 1000, "max_accuracy_drop": 0.04, "max_latency_ms": 4}, result())
    assert [(gate["gate"], gate["value"], gate["passed"]) for gate in judged["gates"]] == [
        ("max_bytes", 1000, True),
        ("max_accuracy_drop", 0.04, True),
        ("max_latency_ms", 4.0, True),
    ]
    assert judged["passed"] is True
    assert judged["warnings"] == ["early"]
    assert (judged["gates"][2]["p10"], judged["gates"][2]["p90"]) == (3.5, 6.0)


def test_one_missed_gate_is_enough_and_each_says_by_how_much() -> None:
    judged = gates.judged({"max_bytes": 990, "max_accuracy_drop": 0.01, "max_latency_ms": 3.0}, result())
    assert judged["passed"] is False
    early, size, drop, latency = judged["warnings"]
    assert early == "early"
    assert "1,000 bytes, and max_bytes is 990, 10 fewer" in size
    assert "On test (100 images) the answer loses 0.0400 ± 0.0280" in drop
    assert "max_accuracy_drop is 0.01, 0.0300 less." in drop
    assert "one standard error" not in drop
    assert "4 ms for one image (p10 3.5, p90 6; a CPU, 2 threads)" in latency
    assert "max_latency_ms is 3, 1 less" in latency
    assert gates.judged({"max_bytes": 990, "max_latency_ms": 9.0}, result())["passed"] is False


def test_a_drop_within_its_own_error_is_said_to_be() -> None:
    """0.04 ± 0.028 against 0.03: it is missed all the same."""
    judged = gates.judged({"max_accuracy_drop": 0.03}, result())
    assert judged["passed"] is False
    assert "less than one standard error" in judged["warnings"][-1]


def test_the_standard_error_by_hand() -> None:
    """6 and 2 of 100: variance (8 - 16/100) / 100² = 0.000784, so 0.028."""
    (gate,) = gates.judge({"max_accuracy_drop": 0.1}, result())
    assert gate["value"] == 0.04
    assert gate["standard_error"] == pytest.approx(0.028, rel=1e-12)
    assert (gate["split"], gate["num_images"]) == ("test", 100)


def test_the_standard_error_is_that_of_the_mean_of_the_differences() -> None:
    """Of n numbers 1 (only the teacher), -1 (only the answer) and 0, in every small mixture."""
    for only_teacher, only_network, same in itertools.product(range(5), range(5), range(1, 5)):
        n = only_teacher + only_network + same
        differences = [1.0] * only_teacher + [-1.0] * only_network + [0.0] * same
        measured = result(n=n, only_teacher=only_teacher, only_network=only_network)
        (gate,) = gates.judge({"max_accuracy_drop": 1.0}, measured)
        assert gate["value"] == pytest.approx(statistics.fmean(differences))
        assert gate["standard_error"] == pytest.approx(statistics.pstdev(differences) / n**0.5)


def test_test_is_asked_before_val_and_never_train() -> None:
    def pair(only_teacher: int) -> dict[str, int]:
        return {"num_images": 10, "num_only_teacher": only_teacher, "num_only_network": 0}

    limit = {"max_accuracy_drop": 0.5}
    both = result(train=pair(9), val=pair(3), test=pair(1))
    assert [(g["split"], g["value"]) for g in gates.judge(limit, both)] == [("test", 0.1)]
    no_test = result(train=pair(9), val=pair(3))
    assert [(g["split"], g["value"]) for g in gates.judge(limit, no_test)] == [("val", 0.3)]
    judged = gates.judged(limit, result(train=pair(0)))
    assert [(g["value"], g["passed"]) for g in judged["gates"]] == [(None, False)]
    assert "Name a teacher that does" in judged["warnings"][-1]


def test_a_network_that_gained_has_a_negative_drop() -> None:
    (gate,) = gates.judge({"max_accuracy_drop": 0.0}, result(only_teacher=0, only_network=3))
    assert (gate["value"], gate["passed"]) == (-0.03, True)
