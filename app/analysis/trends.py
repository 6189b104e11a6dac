"""Whether a metric rises or falls along an axis of numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.analysis.columns import axis_columns
from app.analysis.statistics import is_number, spearman
from app.analysis.table import Row

_FEWEST_VALUES = 3
# A grid of many axes has many lines; beyond so many only the one over everything is told.
_MOST_LINES = 50


class Trend(BaseModel):
    """Spearman's rho between the axis's values and the metric over the rows of `within` (empty: all rows).

    `within` holds the other axes. p is of this trend alone, not corrected for the others.
    """

    axis: str
    within: dict[str, Any]
    num_values: int
    n: int
    rho: float | None
    p: float | None
    note: str | None


def trends(rows: Sequence[Row], axes: Sequence[str], metric: str) -> list[Trend]:
    """For each axis whose values are three or more numbers: over all rows, then for every value of the other axes."""
    columns = axis_columns(axes)
    known = [row for row in rows if is_number(row[metric])]
    found: list[Trend] = []
    for axis in axes:
        if not known or not all(is_number(row[columns[axis]]) for row in known):
            continue
        others = [other for other in axes if other != axis]
        lines = list(_lines(known, {other: columns[other] for other in others}))
        whole: list[tuple[dict[str, Any], list[Row]]] = [({}, known)]
        for within, line in whole + (lines if others and len(lines) <= _MOST_LINES else []):
            trend = _trend(axis, columns[axis], within, line, metric)
            if trend.num_values >= _FEWEST_VALUES:
                found.append(trend)
    return found


def _lines(rows: Sequence[Row], others: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[column] for column in others.values()]), []).append(row)
    for group in groups.values():
        yield {axis: group[0][column] for axis, column in others.items()}, group


def _trend(axis: str, column: str, within: dict[str, Any], rows: Sequence[Row], metric: str) -> Trend:
    xs = [row[column] for row in rows]
    found = spearman(xs, [row[metric] for row in rows])
    return Trend(
        axis=axis,
        within=within,
        num_values=len(set(xs)),
        n=found.n,
        rho=found.rho,
        p=found.p,
        note=found.note,
    )
