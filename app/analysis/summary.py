"""From rows to statements: means with intervals, differences to the baseline, the winner or why there is none, trends."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.analysis.columns import BY_NAME, NUMBERS, Column, axis_columns, is_share
from app.analysis.statistics import (
    CONSTANT,
    Difference,
    Discordance,
    Spread,
    discordance,
    is_number,
    paired,
    spread,
    with_holm,
)
from app.analysis.table import Row
from app.analysis.trends import Trend, trends
from app.errors import Problem
from app.tables import SUCCEEDED, TERMINAL

ALPHA = 0.05
"""What a corrected p must be below for a winner."""

Discordances = Mapping[str, Mapping[str, Mapping[str, int]]]
"""job id -> split -> num_images, num_only_teacher, num_only_network."""


class PointSummary(BaseModel):
    """`metrics`: column -> over the seeds that have an answer. `differences`: column -> this point less the baseline over
    common seeds; p_holm is over all points in that column. `against_teacher`: of a point with one seed, split -> teacher
    less network over the images."""

    point: int
    name: str
    params: dict[str, Any]
    states: dict[str, int]
    seeds: list[int]
    metrics: dict[str, Spread]
    differences: dict[str, Difference]
    against_teacher: dict[str, Discordance]


class Apart(BaseModel):
    """A job that gave no answer (yet), and why."""

    job_id: str
    point: int
    name: str
    seed: int
    state: str
    code: str | None
    reason: str | None


class Comparison(BaseModel):
    """The best point less another one, in the metric."""

    point: int
    name: str
    difference: Difference


class Winner(BaseModel):
    point: int
    name: str
    params: dict[str, Any]


class Summary(BaseModel):
    """`winner` is null where no point is better than every other one beyond doubt; `verdict` is the sentence on it, and
    `comparisons` what it rests on: the best point against every other, corrected together (Holm)."""

    axes: list[str]
    metric: str
    better: str
    confidence: float
    alpha: float
    baseline: int | None
    points: list[PointSummary]
    apart: list[Apart]
    best: int | None
    winner: Winner | None
    verdict: str
    comparisons: list[Comparison]
    trends: list[Trend]


def summarise(
    rows: Sequence[Row],
    axes: Sequence[str],
    metric: str = "test_accuracy",
    baseline: Mapping[str, Any] | None = None,
    *,
    reasons: Mapping[str, str] | None = None,
    discordances: Discordances | None = None,
) -> Summary:
    """What the rows (of kind answers) say, point by point and together.

    `metric`: one of `NUMBERS`. `baseline`: the axis values that pick the point to compare with; the first point without.
    `reasons`: job id -> why it gave no answer. Problem 422 UNKNOWN_BASELINE.
    """
    points = [_Point(group, axes) for group in _by_point(rows)]
    compared_with = _baseline(points, baseline)
    verdict = _Verdict(points, BY_NAME[metric])
    return Summary(
        axes=list(axes),
        metric=metric,
        better=str(BY_NAME[metric].better),
        confidence=0.95,
        alpha=ALPHA,
        baseline=compared_with.point if compared_with else None,
        points=_point_summaries(points, compared_with, discordances or {}),
        apart=[_apart(point, row, reasons or {}) for point in points for row in point.without_answer],
        best=verdict.best.point if verdict.best else None,
        winner=verdict.winner,
        verdict=verdict.sentence,
        comparisons=verdict.comparisons,
        trends=trends([row for point in points for row in point.answers], axes, metric),
    )


def name_of(params: Mapping[str, Any]) -> str:
    """A point as people call it: `alpha=0.2, plan=pruned`; a job by its name alone."""
    if list(params) == ["job"]:
        return str(params["job"])
    return ", ".join(f"{axis}={_text(value)}" for axis, value in params.items()) or "the only point"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ---- points


class _Point:
    def __init__(self, rows: Sequence[Row], axes: Sequence[str]) -> None:
        columns = axis_columns(axes)
        self.rows = rows
        self.point: int = rows[0]["point"]
        self.params = {axis: rows[0][columns[axis]] for axis in axes}
        self.name = name_of(self.params)
        self.answers = [row for row in rows if row["state"] == SUCCEEDED]
        self.without_answer = [row for row in rows if row["state"] != SUCCEEDED]

    def by_seed(self, column: str) -> dict[int, float | None]:
        return {row["seed"]: row[column] for row in self.answers if is_number(row[column])}

    def spread(self, column: str) -> Spread | None:
        return spread(row[column] for row in self.answers)

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        return counts


def _by_point(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["point"], []).append(row)
    return [groups[point] for point in sorted(groups)]


def _baseline(points: Sequence[_Point], wanted: Mapping[str, Any] | None) -> _Point | None:
    if not wanted:
        return points[0] if points else None
    for point in points:
        if all(axis in point.params and point.params[axis] == value for axis, value in wanted.items()):
            return point
    detail = (
        f"No point has {name_of(wanted)[:200]}, the baseline. Name an axis and one of its values: "
        f"{'; '.join(point.name for point in points[:5])[:500]}."
    )
    raise Problem(422, "UNKNOWN_BASELINE", detail)


def _point_summaries(
    points: Sequence[_Point], baseline: _Point | None, discordances: Discordances
) -> list[PointSummary]:
    others = [point for point in points if point is not baseline]
    differences: dict[int, dict[str, Difference]] = {point.point: {} for point in points}
    for column in NUMBERS:
        of_baseline = baseline.by_seed(column) if baseline else {}
        compared = [paired(point.by_seed(column), of_baseline) for point in others]
        for point, difference in zip(others, with_holm(compared), strict=True):
            if difference.n or (of_baseline and point.by_seed(column)):
                differences[point.point][column] = difference
    return [
        PointSummary(
            point=point.point,
            name=point.name,
            params=point.params,
            states=point.states(),
            seeds=[row["seed"] for row in point.answers],
            metrics={column: found for column in NUMBERS if (found := point.spread(column)) is not None},
            differences=differences[point.point],
            against_teacher=_against_teacher(point, discordances),
        )
        for point in points
    ]


def _against_teacher(point: _Point, discordances: Discordances) -> dict[str, Discordance]:
    """Of one seed alone: the images are the only sample there is then."""
    if len(point.answers) != 1:
        return {}
    counts = discordances.get(point.answers[0]["job_id"]) or {}
    return {
        split: discordance(
            num_images=pair["num_images"],
            num_only_first=pair["num_only_teacher"],
            num_only_second=pair["num_only_network"],
        )
        for split, pair in counts.items()
    }


def _apart(point: _Point, row: Row, reasons: Mapping[str, str]) -> Apart:
    reason = reasons.get(row["job_id"])
    if reason is None and row["state"] not in (*TERMINAL, "infeasible"):
        reason = "It has not ended."
    return Apart(
        job_id=row["job_id"],
        point=point.point,
        name=point.name,
        seed=row["seed"],
        state=row["state"],
        code=row["code"],
        reason=reason,
    )


# ---- the winner


class _Verdict:
    """The best mean against every other point, each over the seeds that both have. A winner must be better than all of
    them after Holm's correction; everything else is `no significant winner`, with the reason."""

    def __init__(self, points: Sequence[_Point], metric: Column) -> None:
        self.metric = metric
        self.sign = 1 if metric.better == "higher" else -1
        self.points = [point for point in points if point.by_seed(metric.name)]
        self.unfinished = [
            row
            for point in points
            for row in point.without_answer
            if row["state"] not in (*TERMINAL, "infeasible")
        ]
        self.num_left_out = sum(len(point.without_answer) for point in points) - len(self.unfinished)
        self.best = max(self.points, key=self._score, default=None)
        self.comparisons = self._comparisons() if self.best else []
        reason = self._reason()
        self.winner = None if reason or self.best is None else _winner(self.best)
        self.sentence = f"No significant winner: {reason}" if reason else self._praise()

    def _score(self, point: _Point) -> float:
        found = point.spread(self.metric.name)
        assert found is not None
        return self.sign * found.mean

    def _comparisons(self) -> list[Comparison]:
        assert self.best is not None
        others = [point for point in self.points if point is not self.best]
        name = self.metric.name
        found = with_holm([paired(self.best.by_seed(name), other.by_seed(name)) for other in others])
        return [
            Comparison(point=other.point, name=other.name, difference=difference)
            for other, difference in zip(others, found, strict=True)
        ]

    def _reason(self) -> str | None:
        """Why there is no winner, in half a sentence; None: there is one."""
        if self.best is None:
            return f"nothing has ended with a {self.metric.name} yet."
        if not self.comparisons:
            return f"only {self.best.name} has a {self.metric.name}: there is nothing to compare it with."
        if self.unfinished:
            return (
                f"{_count(len(self.unfinished), 'job')} of them {'has' if len(self.unfinished) == 1 else 'have'} not ended, "
                "and looking before the end finds winners by chance."
            )
        return self._leaked() or self._untestable() or self._insignificant()

    def _leaked(self) -> str | None:
        split = self.metric.name.split("_")[0]
        leaked = [point for point in self.points if any(row.get(f"{split}_leaked") for row in point.answers)]
        if not leaked:
            return None
        return f"{leaked[0].name} was trained on {split}, so its {self.metric.name} says nothing of other photos."

    def _untestable(self) -> str | None:
        assert self.best is not None
        for other in self.comparisons:
            if other.difference.note is None:
                continue
            says = f"{self._shown_best()}, and {other.name} "
            if other.difference.note == CONSTANT and other.difference.mean == 0:
                return f"{says}has the same with every seed: the two are one here."
            if other.difference.note == CONSTANT:
                return f"{says}differs by the same with every seed: the seeds change nothing, so they prove nothing."
            seeds = "no seed" if not other.difference.n else "one seed"
            return f"{says}has {seeds} in common with it: no interval. Give every point two seeds or more."
        return None

    def _insignificant(self) -> str | None:
        doubtful = [other for other in self.comparisons if not self._is_beaten(other.difference)]
        if not doubtful:
            return None
        closest = max(doubtful, key=lambda other: other.difference.p_holm or 0.0)
        more = f" (and {_count(len(doubtful) - 1, 'other point')})" if len(doubtful) > 1 else ""
        return (
            f"{self._shown_best()}, but its difference to {closest.name}{more} may be chance: "
            f"{self._shown_difference(closest.difference)}."
        )

    def _is_beaten(self, difference: Difference) -> bool:
        assert difference.mean is not None
        assert difference.p_holm is not None
        return self.sign * difference.mean > 0 and difference.p_holm < ALPHA

    def _praise(self) -> str:
        closest = max(self.comparisons, key=lambda other: other.difference.p_holm or 0.0)
        left_out = (
            f" {_count(self.num_left_out, 'job')} without an answer: see apart." if self.num_left_out else ""
        )
        return (
            f"{self._shown_best()}, better than each of {_count(len(self.comparisons), 'other point')}; the least certain "
            f"difference is that to {closest.name}: {self._shown_difference(closest.difference)}.{left_out}"
        )

    def _shown_best(self) -> str:
        assert self.best is not None
        found = self.best.spread(self.metric.name)
        assert found is not None
        mean = f"{100 * found.mean:.1f} %" if is_share(self.metric.name) else f"{found.mean:.6g}"
        return f"{self.best.name} has the best {self.metric.name}, {mean} in the mean of {_count(found.n, 'seed')}"

    def _shown_difference(self, difference: Difference) -> str:
        """Of two points that both have an interval."""

        def shown(value: float | None) -> str:
            assert value is not None
            return f"{100 * value:+.1f}" if is_share(self.metric.name) else f"{value:+.4g}"

        unit = " points" if is_share(self.metric.name) else ""
        return (
            f"{shown(difference.mean)}{unit} over {_count(difference.n, 'common seed')} (95 % interval "
            f"{shown(difference.low)} to {shown(difference.high)}, p = {difference.p_holm:.2g} by Holm)"
        )


def _winner(point: _Point) -> Winner:
    return Winner(point=point.point, name=point.name, params=point.params)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
