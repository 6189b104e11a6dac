"""A network against its teacher."""

import statistics

import pytest

from app.reports.comparison import drop


def test_the_interval_is_that_of_the_differences_with_one_more_of_each_kind() -> None:
    """Bonett and Price: the plain interval of a sample of -1, 0 and 1 with two images more; worked out by statistics."""
    record = {"against_teacher": {"test": {"num_images": 100, "num_only_teacher": 6, "num_only_network": 2}}}
    sample = [1] * 7 + [-1] * 3 + [0] * 92
    middle, error = statistics.fmean(sample), statistics.pstdev(sample) / len(sample) ** 0.5
    found = drop(record)
    assert found is not None
    assert (found.split, found.num_images, found.value) == ("test", 100, 0.04)
    z = statistics.NormalDist().inv_cdf(0.975)
    assert (found.low, found.high) == (pytest.approx(middle - z * error), pytest.approx(middle + z * error))


def test_no_difference_seen_is_no_proof_that_there_is_none() -> None:
    found = drop(
        {"against_teacher": {"val": {"num_images": 50, "num_only_teacher": 0, "num_only_network": 0}}}
    )
    assert found is not None
    assert (found.value, found.split) == (0.0, "val")
    assert found.low < 0 < found.high


def test_a_teacher_that_answers_nothing_is_compared_with_nothing() -> None:
    assert drop({"against_teacher": {}}) is None
    assert drop({}) is None
