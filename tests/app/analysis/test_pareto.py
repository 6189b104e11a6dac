"""The front, against the definition read aloud."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.analysis.pareto import front, point_rows
from tests.app.analysis.made import row

SMALL = st.one_of(st.integers(0, 5), st.none(), st.sampled_from([0.5, float("nan")]))


def dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """One is smaller and more accurate: at least as good in both, better in one."""
    no_worse = one["size_bytes"] <= other["size_bytes"] and one["test_accuracy"] >= other["test_accuracy"]
    better = one["size_bytes"] < other["size_bytes"] or one["test_accuracy"] > other["test_accuracy"]
    return no_worse and better


def is_known(value: Any) -> bool:
    return value is not None and value == value


@given(st.lists(st.tuples(SMALL, SMALL), max_size=25))
def test_the_front_is_what_nothing_dominates(values: list[tuple[Any, Any]]) -> None:
    """Every row against every other one."""
    rows = [{"id": n, "size_bytes": x, "test_accuracy": y} for n, (x, y) in enumerate(values)]
    known = [row for row in rows if is_known(row["size_bytes"]) and is_known(row["test_accuracy"])]
    expected = {one["id"] for one in known if not any(dominates(other, one) for other in known)}
    found = front(rows, "size_bytes", "test_accuracy")
    assert {row["id"] for row in found} == expected
    assert [row["size_bytes"] for row in found] == sorted(row["size_bytes"] for row in found)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25))
def test_the_direction_is_that_of_the_columns(values: list[tuple[int, int]]) -> None:
    """Two of which lower is better, two of which higher is: the same rows with the signs turned."""
    lower = [{"id": n, "macs": x, "latency_ms": y} for n, (x, y) in enumerate(values)]
    higher = [{"id": n, "val_accuracy": -x, "test_accuracy": -y} for n, (x, y) in enumerate(values)]
    assert {row["id"] for row in front(lower, "macs", "latency_ms")} == {
        row["id"] for row in front(higher, "val_accuracy", "test_accuracy")
    }


def test_equals_stand_together() -> None:
    """Neither of two equal rows is better than the other in anything."""
    rows = [{"id": n, "size_bytes": 1, "test_accuracy": 0.5} for n in range(2)]
    assert front(rows, "size_bytes", "test_accuracy") == rows
    worse = {"id": 2, "size_bytes": 1, "test_accuracy": 0.4}
    assert front([*rows, worse], "size_bytes", "test_accuracy") == rows


def test_points_are_means_over_their_answers() -> None:
    """Of the seeds that have the number; a job that failed is no seed."""
    rows = [
        row(0, 0, {"alpha": 0}, test_accuracy=0.5, size_bytes=100),
        row(0, 1, {"alpha": 0}, test_accuracy=0.7, size_bytes=None),
        row(0, 2, {"alpha": 0}, test_accuracy=0.9, state="failed"),
        row(1, 0, {"alpha": 1}, state="queued"),
    ]
    [point] = point_rows(rows, ["alpha"])
    assert (point["point"], point["name"], point["params"], point["n"]) == (0, "alpha=0", {"alpha": 0}, 2)
    assert point["test_accuracy"] == 0.6
    assert (point["size_bytes"], point["macs"]) == (100, None)
