"""The Pareto front: what nothing else beats in both of two numbers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from app.analysis.columns import BY_NAME, NUMBERS, axis_columns
from app.analysis.statistics import is_number, spread
from app.analysis.summary import name_of
from app.analysis.table import Row
from app.tables import SUCCEEDED


def front(rows: Sequence[Row], x: str, y: str) -> list[Row]:
    """The rows that no other row dominates, by rising x.

    One dominates another if it is at least as good in both numbers and better in one; whether higher or lower is better
    is the column's. So rows that are equal in both stand or fall together. Rows without one of the numbers are left out.
    """
    x_sign, y_sign = _sign(x), _sign(y)
    known = with_both(rows, x, y)
    best_y = math.inf
    found: list[Row] = []
    for group in _groups(sorted(known, key=lambda row: x_sign * row[x]), x):
        best_here = min(y_sign * row[y] for row in group)
        if best_here < best_y:
            best_y = best_here
            found += [row for row in group if y_sign * row[y] == best_here]
    return sorted(found, key=lambda row: row[x])


def with_both(rows: Iterable[Row], x: str, y: str) -> list[Row]:
    """Those that have both numbers."""
    return [row for row in rows if is_number(row[x]) and is_number(row[y])]


def point_rows(rows: Iterable[Row], axes: Sequence[str]) -> list[Row]:
    """A row for each point that has answers: point, name, params, n (answers) and the mean of every number column over the
    seeds that have it, else null."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if row["state"] == SUCCEEDED:
            groups.setdefault(row["point"], []).append(row)
    return [_point_row(point, groups[point], axes) for point in sorted(groups)]


def _point_row(point: int, rows: Sequence[Row], axes: Sequence[str]) -> Row:
    columns = axis_columns(axes)
    params = {axis: rows[0][columns[axis]] for axis in axes}
    means: dict[str, Any] = {}
    for column in NUMBERS:
        found = spread(row[column] for row in rows)
        means[column] = found.mean if found else None
    return {"point": point, "name": name_of(params), "params": params, "n": len(rows), **means}


def _sign(column: str) -> int:
    """1 where lower is better, so that the best is always the lowest of sign * value."""
    return 1 if BY_NAME[column].better == "lower" else -1


def _groups(rows: Iterable[Row], column: str) -> Iterable[list[Row]]:
    groups: dict[float, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups.values()
