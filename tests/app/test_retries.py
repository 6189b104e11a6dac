"""What follows from how an attempt ended, as a table."""

import itertools
from pathlib import Path

import pytest

from app import jobs, retries
from app.errors import Problem

TABLE = [
    # outcome, failures before, failures after, seconds until the next attempt (None: there is none), code
    ("preempted", 0, 0, 0, None),
    ("preempted", 2, 2, 0, None),
    ("paused", 2, 2, 0, None),
    ("trainer_lost", 0, 1, 0, None),
    ("trainer_lost", 1, 2, 5, None),
    ("trainer_lost", 2, 3, None, "WORKER_LOST"),
    ("worker_lost", 0, 1, 0, None),
    ("worker_lost", 1, 2, 5, None),
    ("worker_lost", 2, 3, None, "WORKER_LOST"),
    ("disk_full", 0, 1, 5, None),
    ("disk_full", 1, 2, 10, None),
    ("disk_full", 2, 3, None, "DISK_FULL"),
]


@pytest.mark.parametrize(("outcome", "before", "after", "seconds", "code"), TABLE)
def test_an_attempt_that_was_lost_or_handed_back(
    outcome: str, before: int, after: int, seconds: float | None, code: str | None
) -> None:
    decision = retries.decide(outcome, failures=before, max_failures=3, pause_seconds=5.0)
    assert decision.failures == after
    if seconds is None:
        assert decision.error is not None
        assert (decision.error.code, decision.error.retryable) == (code, True)
    else:
        assert (decision.error, decision.after_seconds) == (None, seconds)


def test_the_pause_doubles_each_time() -> None:
    pauses = [
        retries.decide("worker_lost", failures=n, max_failures=9, pause_seconds=1.5).after_seconds
        for n in range(6)
    ]
    assert pauses == [0, 1.5, 3, 6, 12, 24]


def test_one_allowed_failure_means_no_second_attempt() -> None:
    decision = retries.decide(
        "worker_lost", failures=0, max_failures=1, pause_seconds=5.0, reasons=["It was silent."]
    )
    assert decision.error is not None
    assert decision.error.detail.startswith("The job was lost once while it ran. (1) It was silent.")


@pytest.mark.parametrize("outcome", retries.FINAL)
def test_after_an_end_there_is_nothing_to_decide(outcome: str) -> None:
    with pytest.raises(AssertionError):
        retries.decide(outcome, failures=0, max_failures=3, pause_seconds=5.0)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (422, "CLASSES_DIFFER", "user_error"),
        (404, "NOT_FOUND", "user_error"),
        (500, "INTERNAL_ERROR", "service_error"),
        (500, "VERIFY_MISMATCH", "service_error"),
        (507, "OUT_OF_MEMORY", "out_of_memory"),
        (422, "OUT_OF_MEMORY", "out_of_memory"),
        (504, "DEADLINE_EXCEEDED", "deadline"),
        (507, "DISK_FULL", "disk_full"),
    ],
)
def test_a_problem_says_whose_fault_it_is(status: int, code: str, outcome: str) -> None:
    assert retries.outcome_of(Problem(status, code, "It did not work.")) == outcome


def test_every_outcome_is_of_one_kind() -> None:
    for one, other in itertools.combinations((retries.FINAL, retries.HANDED_BACK, retries.LOST), 2):
        assert not set(one) & set(other)
    assert set(jobs.OUTCOMES) == {*retries.FINAL, *retries.HANDED_BACK, *retries.LOST}
    assert len(jobs.OUTCOMES) == 11


def test_every_outcome_is_told_in_the_docs_with_whether_it_counts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "attempts.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    counts = {row[0].strip(" `"): row[2].strip() == "yes" for row in rows}
    assert counts == {outcome: outcome in retries.LOST for outcome in jobs.OUTCOMES}
