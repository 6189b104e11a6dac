"""What the rows say together."""

import random
from typing import Any

import pytest
import scipy.stats

from app.analysis.statistics import CONSTANT, ONE_SEED
from app.analysis.summary import ALPHA, Summary, name_of, summarise
from app.analysis.table import Row
from app.errors import Problem
from tests.app.analysis.made import row


def grid(values: dict[Any, list[float]], **more: Any) -> list[Row]:
    """alpha -> test accuracy of the seeds 0, 1, …"""
    return [
        row(point, seed, {"alpha": alpha}, test_accuracy=accuracy, **more)
        for point, (alpha, accuracies) in enumerate(values.items())
        for seed, accuracy in enumerate(accuracies)
    ]


def summary(rows: list[Row], **changes: Any) -> Summary:
    return summarise(rows, ["alpha"], **changes)


CLEAR = {0: [0.50, 0.52, 0.51, 0.53], 0.5: [0.60, 0.63, 0.61, 0.62], 0.8: [0.70, 0.72, 0.70, 0.73]}


def test_a_clear_winner_is_named() -> None:
    """Better than every other point, each difference with its interval and corrected p."""
    found = summary(grid(CLEAR))
    assert found.winner is not None
    assert (found.winner.point, found.winner.name, found.winner.params) == (2, "alpha=0.8", {"alpha": 0.8})
    assert found.best == 2
    assert "alpha=0.8 has the best test_accuracy, 71.2 % in the mean of 4 seeds" in found.verdict
    assert "alpha=0.5: +9.7 points over 4 common seeds" in found.verdict
    assert [each.name for each in found.comparisons] == ["alpha=0", "alpha=0.5"]
    p_values = [scipy.stats.ttest_rel(CLEAR[0.8], CLEAR[other]).pvalue for other in (0, 0.5)]
    for each, p in zip(found.comparisons, p_values, strict=True):
        assert each.difference.p == pytest.approx(p)
        assert each.difference.p_holm < ALPHA
    assert max(each.difference.p_holm for each in found.comparisons) == pytest.approx(
        max(2 * min(p_values), max(p_values))
    )


def test_points_have_means_and_differences_to_the_baseline() -> None:
    """The first point is the baseline, if none is named."""
    found = summary(grid(CLEAR, size_bytes=1000))
    assert found.baseline == 0
    best = found.points[2]
    assert best.seeds == [0, 1, 2, 3]
    assert best.metrics["test_accuracy"].mean == pytest.approx(0.7125)
    assert best.metrics["size_bytes"].std == 0
    difference = best.differences["test_accuracy"]
    expected = scipy.stats.ttest_rel(CLEAR[0.8], CLEAR[0])
    assert difference.mean == pytest.approx(0.7125 - 0.515)
    assert difference.p == pytest.approx(expected.pvalue)
    assert best.differences["size_bytes"].note == CONSTANT
    assert found.points[0].differences == {}
    assert "val_accuracy" not in best.metrics


def test_the_baseline_is_the_point_with_these_values() -> None:
    rows = [
        row(point, seed, {"alpha": alpha, "plan": plan}, test_accuracy=0.5 + seed / 10 + point * seed / 50)
        for point, (alpha, plan) in enumerate([(0, "a"), (0, "b"), (1, "a"), (1, "b")])
        for seed in range(3)
    ]
    found = summarise(rows, ["alpha", "plan"], baseline={"alpha": 1, "plan": "a"})
    assert found.baseline == 2
    assert [bool(point.differences) for point in found.points] == [True, True, False, True]
    with pytest.raises(Problem, match="UNKNOWN_BASELINE"):
        summarise(rows, ["alpha", "plan"], baseline={"alpha": 7})


def test_a_difference_that_may_be_chance_is_no_win() -> None:
    """The sentence names the two points and the numbers."""
    found = summary(grid({0: [0.50, 0.60, 0.55], 1: [0.52, 0.59, 0.57]}))
    assert found.winner is None
    assert found.best == 1
    assert found.verdict.startswith("No significant winner: alpha=1 has the best test_accuracy")
    assert "may be chance" in found.verdict
    assert "alpha=0" in found.verdict


def test_one_seed_has_no_interval_and_no_winner() -> None:
    found = summary(grid({0: [0.5], 1: [0.9]}))
    assert found.winner is None
    assert "one seed in common with it: no interval" in found.verdict
    assert found.comparisons[0].difference.note == ONE_SEED


def test_seeds_that_change_nothing_prove_nothing() -> None:
    """Three times the same quantization is one measurement."""
    found = summary(grid({8: [0.8, 0.8, 0.8], 2: [0.3, 0.3, 0.3]}))
    assert found.winner is None
    assert "the seeds change nothing" in found.verdict


def test_two_points_that_are_one_are_told_as_such() -> None:
    """A rule that never struck leaves the network as the other rule does."""
    found = summary(grid({1: [0.80, 0.82], 2: [0.80, 0.82], 5: [0.5, 0.6]}))
    assert found.winner is None
    assert "alpha=2 has the same with every seed: the two are one here" in found.verdict


def test_points_without_common_seeds_are_not_compared() -> None:
    rows = [*grid({0: [0.5, 0.6]}), row(1, 7, {"alpha": 1}, test_accuracy=0.9)]
    found = summary(rows)
    assert found.winner is None
    assert "no seed in common" in found.verdict


def test_nothing_is_won_before_the_end() -> None:
    """Whoever looks again and again finds a winner by chance."""
    rows = [*grid(CLEAR), row(3, 0, {"alpha": 1}, state="running")]
    found = summary(rows)
    assert found.winner is None
    assert "1 job of them has not ended" in found.verdict
    assert [(each.state, each.reason) for each in found.apart] == [("running", "It has not ended.")]
    assert found.points[3].states == {"running": 1}
    assert found.points[3].metrics == {}


def test_what_gave_no_answer_is_listed_with_its_reason() -> None:
    """And the winner among the others says that it is there."""
    rows = [
        *grid(CLEAR),
        row(3, 0, {"alpha": 1}, state="infeasible", code="TARGET_UNREACHABLE", job_id="job_a"),
        row(3, 1, {"alpha": 1}, state="failed", code="DIVERGED", job_id="job_b"),
        row(3, 2, {"alpha": 1}, state="cancelled", job_id="job_c"),
    ]
    found = summary(rows, reasons={"job_a": "Too small.", "job_b": "NaN."})
    assert [(each.job_id, each.state, each.code, each.reason) for each in found.apart] == [
        ("job_a", "infeasible", "TARGET_UNREACHABLE", "Too small."),
        ("job_b", "failed", "DIVERGED", "NaN."),
        ("job_c", "cancelled", None, None),
    ]
    assert found.winner is not None
    assert "3 jobs without an answer" in found.verdict
    assert found.points[3].states == {"infeasible": 1, "failed": 1, "cancelled": 1}


def test_a_failed_seed_leaves_the_others_to_compare() -> None:
    """Over the seeds that both points have."""
    rows = grid(CLEAR)
    rows[-1] |= {"state": "failed", "test_accuracy": None}
    found = summary(rows)
    assert [each.difference.n for each in found.comparisons] == [3, 3]
    assert found.points[2].metrics["test_accuracy"].n == 3


def test_where_lower_is_better_the_lowest_wins() -> None:
    rows = [{**each, "test_accuracy": None, "test_loss": each["test_accuracy"]} for each in grid(CLEAR)]
    found = summary(rows, metric="test_loss")
    assert found.better == "lower"
    assert found.winner is not None
    assert found.winner.name == "alpha=0"


def test_what_was_trained_on_test_wins_nothing_there() -> None:
    rows = grid(CLEAR)
    for each in rows[-4:]:
        each["test_leaked"] = True
    found = summary(rows)
    assert found.winner is None
    assert "alpha=0.8 was trained on test" in found.verdict
    rows = [{**each, "val_accuracy": each["test_accuracy"]} for each in rows]
    assert summary(rows, metric="val_accuracy").winner is not None


@pytest.mark.parametrize("rows", [[], [row(0, 0, {"alpha": 1}, state="failed")]])
def test_nothing_at_all_is_said_of_nothing(rows: list[Row]) -> None:
    found = summary(rows)
    assert (found.winner, found.best, found.comparisons, found.trends) == (None, None, [], [])
    assert "nothing has ended with a test_accuracy" in found.verdict


def test_one_point_has_nobody_to_beat() -> None:
    found = summarise([row(0, seed, {}, test_accuracy=seed / 10) for seed in range(3)], [])
    assert found.winner is None
    assert "nothing to compare it with" in found.verdict
    assert found.points[0].name == "the only point"


def test_equal_points_hardly_ever_have_a_winner() -> None:
    """The error that is promised: of 400 sweeps with three equal points, at most about one in twenty."""
    draw = random.Random(1)
    wins = 0
    for _ in range(400):
        seeds = [draw.gauss(0, 0.02) for _ in range(4)]
        values = {point: [0.7 + common + draw.gauss(0, 0.01) for common in seeds] for point in range(3)}
        wins += summary(grid(values)).winner is not None
    assert wins <= 0.05 * 400


# ---- against the teacher, with one seed


def test_one_seed_is_compared_with_the_teacher_over_the_images() -> None:
    """20 images only the teacher gets right, 5 only the network, of 100; with more seeds the seeds are the sample."""
    counts = {"test": {"num_images": 100, "num_only_teacher": 20, "num_only_network": 5}}
    discordances = {f"job_{point}_{seed}": counts for point in range(2) for seed in range(2)}
    found = summary(grid({0: [0.6], 1: [0.7, 0.8]}), discordances=discordances)
    pair = found.points[0].against_teacher["test"]
    assert pair.difference == 0.15
    assert pair.p == pytest.approx(scipy.stats.binomtest(5, 25).pvalue)
    assert pair.low < 0.15 < pair.high
    assert found.points[1].against_teacher == {}


# ---- trends


def test_a_trend_along_an_axis_of_numbers() -> None:
    """Spearman over all rows, as SciPy has it."""
    rows = grid({0: [0.5, 0.6], 0.2: [0.55, 0.65], 0.5: [0.61, 0.7], 0.8: [0.72, 0.68], 1: [0.7, 0.75]})
    [trend] = summary(rows).trends
    expected = scipy.stats.spearmanr(
        [each["alpha"] for each in rows], [each["test_accuracy"] for each in rows]
    )
    assert (trend.axis, trend.within, trend.n, trend.num_values) == ("alpha", {}, 10, 5)
    assert trend.rho == pytest.approx(expected.statistic)
    assert trend.p == pytest.approx(expected.pvalue)


def test_a_trend_is_told_for_every_value_of_the_other_axes() -> None:
    """One rises, the other falls: together there is none."""
    rows = [
        row(
            2 * position + turned,
            seed,
            {"epochs": epochs, "recover": recover},
            test_accuracy=0.5 + sign * epochs / 100 + seed / 1000,
        )
        for position, epochs in enumerate((1, 2, 4, 8))
        for turned, (recover, sign) in enumerate((("none", -1), ("finetune", 1)))
        for seed in range(3)
    ]
    found = summarise(rows, ["epochs", "recover"]).trends
    assert [trend.within for trend in found] == [{}, {"recover": "none"}, {"recover": "finetune"}]
    assert abs(found[0].rho) < 0.2
    assert found[1].rho < -0.9
    assert found[2].rho > 0.9


@pytest.mark.parametrize(
    "values",
    [
        {0: [0.5, 0.6], 1: [0.7, 0.8]},
        {"a": [0.1], "b": [0.2], "c": [0.3]},
        {True: [0.1], False: [0.2]},
        {0: [0.1], 1: [0.2], None: [0.3]},
    ],
    ids=["two values", "words", "truth", "null among them"],
)
def test_no_trend_without_three_numbers(values: dict[Any, list[float]]) -> None:
    assert summary(grid(values)).trends == []


# ---- names


def test_points_are_called_by_their_values() -> None:
    assert (
        name_of({"alpha": 0.2, "plan": "pruned", "augment": None}) == "alpha=0.2, plan=pruned, augment=null"
    )
    assert name_of({"job": "my job"}) == "my job"
