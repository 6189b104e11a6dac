"""What the gallery says of a run is what its summary says."""

from typing import Any

from benchmarks import gallery_page, solar_cells


def point(name: str, mean: float, n: int = 3) -> dict[str, Any]:
    return {
        "name": f"alpha={name}",
        "params": {"alpha": float(name)},
        "metrics": {"test_accuracy": {"mean": mean, "n": n}},
    }


def summary(points: list[dict[str, Any]], apart: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"metric": "test_accuracy", "points": points, "apart": apart or [], "verdict": "No winner."}


def test_few_points_are_named_one_by_one() -> None:
    """With the teacher beside them, and the verdict last."""
    rows = [{"teacher_test_accuracy": 0.812}, {"teacher_test_accuracy": 0.812}]
    said = gallery_page.said(summary([point("0", 0.7), point("0.8", 0.731)]), rows)
    assert (
        said
        == "test accuracy, mean of 3 seeds: alpha=0: 70.0 %, alpha=0.8: 73.1 %. Teacher: 81.2 %. No winner."
    )


def test_of_many_points_only_the_ends_are_named() -> None:
    """Best first."""
    said = gallery_page.said(summary([point(str(n / 10), n / 10) for n in range(10)]), [])
    assert said.startswith(
        "test accuracy, mean of 3 seeds: alpha=0.9: 90.0 %, alpha=0.0: 0.0 % (best and worst of 10 points)."
    )


def test_points_without_an_answer_are_told_with_the_reason() -> None:
    """Each once, however many seeds it has."""
    job = {"state": "infeasible", "code": "TARGET_UNREACHABLE", "name": "way=pruned"}
    said = gallery_page.said(summary([], [job, job]), [])
    assert said == "Infeasible (TARGET_UNREACHABLE): way=pruned. No winner."


def test_doubtful_cells_have_no_label() -> None:
    """And of ten others seven are for training."""
    folders = [solar_cells._folder(number, 1.0, "mono") for number in range(10)]
    assert folders.count("train/mono_defective") == 7
    assert solar_cells._folder(3, 1 / 3, "poly") == "unlabeled"
