"""The statistics, against SciPy's own and against cases counted by hand."""

import math
import random
import statistics as python
from typing import Any

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analysis.statistics import (
    CONSTANT,
    NO_SEED,
    ONE_SEED,
    Difference,
    discordance,
    holm,
    paired,
    spearman,
    spread,
    with_holm,
)

ACCURACIES = st.floats(0, 1).map(lambda value: round(value, 4))


@given(st.lists(ACCURACIES, min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_spread_is_that_of_scipy(values: list[float]) -> None:
    """Mean, std of a sample and Student's interval."""
    found = spread(values)
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(python.fmean(values), abs=1e-12)
    assert found.std == pytest.approx(python.stdev(values), abs=1e-12)
    assert (found.min, found.max) == (min(values), max(values))
    error = python.stdev(values) / math.sqrt(len(values))
    if error:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=python.fmean(values), scale=error)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    else:
        assert found.low == found.high == found.mean


def test_a_textbook_interval() -> None:
    """1, 2, 3: mean 2, std 1, t with 2 degrees of freedom 4.302653, so 2 ± 2.484."""
    found = spread([1, 2, 3])
    assert found is not None
    assert (found.mean, found.std) == (2, 1)
    assert found.high - 2 == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert 2 - found.low == pytest.approx(4.302652729911275 / math.sqrt(3))


def test_one_value_has_no_interval() -> None:
    found = spread([0.5])
    assert found is not None
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 0.5, None, None, None)


def test_what_is_not_there_is_not_counted() -> None:
    """Null, NaN and infinity are no values, and of nothing there is no spread."""
    found = spread([0.5, None, math.nan, 0.7, math.inf])
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(0.6))
    assert spread([None, math.nan]) is None
    assert spread([]) is None


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 123456.789])
@pytest.mark.parametrize("n", [2, 3, 7, 10])
def test_equal_values_have_no_spread_at_all(value: float, n: int) -> None:
    """Not even one of rounding."""
    found = spread([value] * n)
    assert found is not None
    assert (found.mean, found.std, found.low, found.high) == (value, 0, value, value)


@given(st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_paired_difference_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    """Interval and p of the paired t test."""
    first, second = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    found = paired(first, second)
    differences = [a - b for a, b in pairs]
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(python.fmean(differences), abs=1e-12)
    if max(differences) - min(differences) < 1e-9:
        assert found.note == CONSTANT
        return
    expected = scipy.stats.ttest_rel(*zip(*pairs, strict=True))
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (found.low, found.high) == (
        pytest.approx(interval.low, abs=1e-9),
        pytest.approx(interval.high, abs=1e-9),
    )


def test_only_common_seeds_are_compared() -> None:
    """And of those only where both have a value."""
    first = {0: 0.5, 1: 0.6, 2: 0.8, 3: None, 9: 0.1}
    second = {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.9}
    found = paired(first, second)
    assert (found.n, found.mean) == (2, pytest.approx(0.15))
    assert paired({0: 1.0}, {1: 1.0}) == Difference(0, None, None, None, None, note=NO_SEED)
    assert paired({0: 0.75, 1: 0.5}, {0: 0.5}) == Difference(1, 0.25, None, None, None, note=ONE_SEED)


def test_a_constant_difference_proves_nothing() -> None:
    """0.3 - 0.1 and 0.4 - 0.2 differ in the last bit: a t test on that would be certain."""
    found = paired({0: 0.3, 1: 0.4, 2: 0.9}, {0: 0.1, 1: 0.2, 2: 0.7})
    assert (found.p, found.note) == (None, CONSTANT)
    assert found.mean == found.low == found.high == pytest.approx(0.2)
    assert paired({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6}).note == CONSTANT


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04 x 1, of which the last may not be below the third."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_holm_rejects_what_the_step_down_rule_rejects(p_values: list[float]) -> None:
    """Holm's own words: the smallest against alpha / m, the next against alpha / (m - 1), until one is not below."""
    alpha, rejected = 0.05, set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - step) >= alpha:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p < alpha} == rejected


def test_holm_counts_only_what_was_tested() -> None:
    """A comparison without p is no comparison."""
    untested = Difference(1, 0.1, None, None, None, note=ONE_SEED)
    tested = Difference(3, 0.1, 0.0, 0.2, 0.03)
    assert [each.p_holm for each in with_holm([tested, untested, tested])] == [0.06, None, 0.06]


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (5, 0), (7, 3), (12, 12), (40, 2), (1000, 1100)])
def test_mcnemar_is_the_binomial_test_of_scipy(b: int, c: int) -> None:
    found = discordance(num_images=5000, num_only_first=b, num_only_second=c)
    expected = scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
    assert found.p == pytest.approx(expected, abs=1e-12)
    assert found.difference == (b - c) / 5000


def test_the_interval_over_images_by_hand() -> None:
    """Bonett and Price, 20 and 5 of 100: (21 - 6) / 102 ± 1.959964 sqrt((27 / 102 - (15 / 102)**2) / 102)."""
    found = discordance(num_images=100, num_only_first=20, num_only_second=5)
    margin = 1.959963984540054 * math.sqrt((27 / 102 - (15 / 102) ** 2) / 102)
    assert found.low == pytest.approx(15 / 102 - margin)
    assert found.high == pytest.approx(15 / 102 + margin)


def test_two_equal_networks_are_not_certain_to_be_equal() -> None:
    """The plain interval of no disagreement has no width."""
    found = discordance(num_images=50, num_only_first=0, num_only_second=0)
    assert found.low < 0 < found.high
    assert found.p == 1.0


def test_the_interval_over_images_covers_what_it_says() -> None:
    """Drawn from a known table, about 95 of 100 intervals hold the truth."""
    draw = random.Random(7)
    covered, repeats = 0, 1000
    for _ in range(repeats):
        outcomes = draw.choices(("both", "first", "second"), weights=(80, 15, 5), k=60)
        found = discordance(
            num_images=60, num_only_first=outcomes.count("first"), num_only_second=outcomes.count("second")
        )
        covered += found.low <= 0.10 <= found.high
    assert 0.93 <= covered / repeats <= 0.99


@given(st.lists(st.tuples(st.integers(0, 9), ACCURACIES), min_size=8, max_size=30))
@settings(max_examples=60, deadline=None)
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, float]]) -> None:
    """rho with ties, and p by the t approximation."""
    xs, ys = zip(*pairs, strict=True)
    found = spearman(xs, ys)
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        assert (found.rho, found.p) == (None, None)
        return
    expected = scipy.stats.spearmanr(xs, ys)
    assert found.rho == pytest.approx(expected.statistic, abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-7 if abs(found.rho or 0) < 0.999 else 1e-4)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_few_pairs_are_tested_by_all_orders(n: int) -> None:
    """The permutation test of SciPy with every permutation."""
    draw = random.Random(n)
    xs, ys = list(range(n)), [draw.randrange(4) for _ in range(n)]
    ys[0] += 5  # so that they vary

    def rho(values: Any) -> float:
        return scipy.stats.spearmanr(xs, values).statistic

    expected = scipy.stats.permutation_test(
        (ys,), rho, permutation_type="pairings", n_resamples=math.inf, alternative="two-sided"
    )
    found = spearman(xs, ys)
    # SciPy doubles the smaller tail, we count both: equal where they are symmetric, ours never above theirs else.
    both_tails = sum(abs(value) >= abs(rho(ys)) - 1e-9 for value in expected.null_distribution)
    assert found.p == pytest.approx(both_tails / len(expected.null_distribution))


def test_three_points_in_order_are_no_proof() -> None:
    """Two of six orders are perfect: p is a third, where the t approximation says 0."""
    assert spearman([1, 2, 3], [0.1, 0.2, 0.3]).p == pytest.approx(1 / 3)
    assert scipy.stats.spearmanr([1, 2, 3], [0.1, 0.2, 0.3]).pvalue == 0


def test_a_perfect_order_has_the_smallest_p_that_there_is() -> None:
    assert spearman(range(9), range(9)).p == pytest.approx(2 / math.factorial(9))
    assert spearman(range(9), [-y for y in range(9)]).rho == -1


@pytest.mark.parametrize(("xs", "ys"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_no_trend_without_variation(xs: list[float], ys: list[float]) -> None:
    found = spearman(xs, ys)
    assert (found.rho, found.p) == (None, None)
    assert found.note
