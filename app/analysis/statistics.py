"""The statistics of repeated runs, by their textbook formulas; docs/analysis.md has each with its source.

What an interval here covers: other seeds of the same job. The images stay the same, so it says nothing about other photos;
`discordance` is about images, of one pair of networks. Only distribution functions come from SciPy (`scipy.special`: the
whole of scipy.stats takes a second to load); values that are null or not finite count as not there.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

CONFIDENCE = 0.95

# Differences of decimal fractions are unequal in their last bits: what agrees to so many digits is one value.
_SAME = 1e-12
# Up to so many pairs all orders are tried (5,040 at 7): the t approximation calls three points in order certain.
_MAX_EXACT_PAIRS = 7

ONE_SEED = "one seed: no interval"
NO_SEED = "no seed in common"
CONSTANT = "the same difference with every seed: no spread to test against"


@dataclass(frozen=True)
class Spread:
    """n values: mean, std (of a sample, n - 1), the 95 % interval of the mean by Student's t, min and max.

    std, low and high are null for one value.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    min: float
    max: float


@dataclass(frozen=True)
class Difference:
    """First less second over n common seeds: mean, 95 % interval and p of the paired t test, two-sided.

    `p_holm`: corrected for all comparisons that were made together. `note` says why there is no p.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Discordance:
    """Two networks on the same images: share right of the first less that of the second.

    low and high: 95 % interval over images (Bonett and Price 2012); p: McNemar's exact test, two-sided.
    """

    num_images: int
    num_only_first: int
    num_only_second: int
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of n pairs and its two-sided p; null with a note where one side does not vary."""

    n: int
    rho: float | None
    p: float | None
    note: str | None = None


def is_number(value: object) -> bool:
    """Whether there is something to count with: no null, NaN, infinity or truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that are there; None if none is."""
    found = [value for value in values if value is not None and is_number(value)]
    if not found:
        return None
    mean, std = _mean(found), _std(found)
    low, high = _interval(mean, std, len(found))
    return Spread(len(found), mean, std, low, high, min(found), max(found))


def paired(first: Mapping[int, float | None], second: Mapping[int, float | None]) -> Difference:
    """Compare two points over the seeds that both have. Maps of seed -> value."""
    pairs = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
    differences, scale = [], 0.0
    for one, other in pairs:
        if one is not None and other is not None and is_number(one) and is_number(other):
            differences.append(one - other)
            scale = max(scale, abs(one), abs(other))
    n = len(differences)
    if not n:
        return Difference(0, None, None, None, None, note=NO_SEED)
    mean = _mean(differences)
    if n == 1:
        return Difference(1, mean, None, None, None, note=ONE_SEED)
    if max(differences) - min(differences) <= _SAME * scale:
        return Difference(n, mean, mean, mean, None, note=CONSTANT)
    std = _std(differences)
    assert std is not None
    low, high = _interval(mean, std, n)
    return Difference(n, mean, low, high, _two_sided_t(mean / (std / math.sqrt(n)), n - 1))


def with_holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences with `p_holm` over those that have a p (Holm 1979)."""
    tested = [index for index, difference in enumerate(differences) if difference.p is not None]
    corrected = dict(zip(tested, holm([differences[index].p or 0.0 for index in tested]), strict=True))
    return [replace(difference, p_holm=corrected.get(index)) for index, difference in enumerate(differences)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for having been asked together, in their order."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def discordance(*, num_images: int, num_only_first: int, num_only_second: int) -> Discordance:
    """Compare two networks by the images that only one of them gets right. `num_images` must be positive."""
    from scipy.special import bdtr, ndtri

    n, b, c = num_images, num_only_first, num_only_second
    p = min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0
    # One image more of each kind: without, two equal networks would have an interval of no width.
    centre = (b - c) / (n + 2)
    error = math.sqrt((b + c + 2) / (n + 2) - centre**2) / math.sqrt(n + 2)
    margin = float(ndtri((1 + CONFIDENCE) / 2)) * error
    return Discordance(n, b, c, (b - c) / n, max(-1.0, centre - margin), min(1.0, centre + margin), p)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Correlation:
    """Whether y rises (rho > 0) or falls with x, whatever the shape.

    p: over all orders up to 7 pairs, beyond by the t approximation, and never below that of a perfect order.
    """
    n = len(xs)
    if n < 3 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return Correlation(n, None, None, "fewer than three pairs, or one side does not vary")
    x_ranks, y_ranks = _centred_ranks(xs), _centred_ranks(ys)
    rho = _cosine(x_ranks, y_ranks)
    if n <= _MAX_EXACT_PAIRS:
        return Correlation(n, rho, _exact_p(x_ranks, y_ranks))
    rest = max(0.0, 1 - rho**2)
    p = _two_sided_t(rho * math.sqrt((n - 2) / rest), n - 2) if rest else 0.0
    return Correlation(n, rho, max(p, 2 / math.factorial(min(n, 100))))


# ---- parts


def _mean(values: Sequence[float]) -> float:
    # Rounding must not give three equal values another mean, and so a spread.
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _interval(mean: float, std: float | None, n: int) -> tuple[float | None, float | None]:
    if std is None:
        return None, None
    margin = _t_quantile(n - 1) * std / math.sqrt(n)
    return mean - margin, mean + margin


@lru_cache(maxsize=1024)
def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def _two_sided_t(t: float, degrees: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(t)))


def _centred_ranks(values: Sequence[float]) -> list[float]:
    """Ranks less their mean; equal values share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, start = [0.0] * len(values), 0
    for _, group in itertools.groupby(order, key=values.__getitem__):
        equals = list(group)
        for index in equals:
            ranks[index] = start + (len(equals) - 1) / 2 - (len(values) - 1) / 2
        start += len(equals)
    return ranks


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    rho = _product(first, second) / math.sqrt(_product(first, first) * _product(second, second))
    return max(-1.0, min(1.0, rho))


def _product(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


def _exact_p(x_ranks: Sequence[float], y_ranks: Sequence[float]) -> float:
    """The share of all orders of y that go with x at least as much, in either direction."""
    seen = abs(_product(x_ranks, y_ranks))
    orders = [abs(_product(x_ranks, order)) >= seen - 1e-9 for order in itertools.permutations(y_ranks)]
    return sum(orders) / len(orders)
