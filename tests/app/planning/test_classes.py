"""Which output means which class."""

import time

import pytest

from app.errors import Problem
from app.planning.classes import TeacherClasses, align


def teacher(names: list[str] | None, num_classes: int = 3, ident: str = "tch_a") -> TeacherClasses:
    return TeacherClasses(ident, num_classes, names)


def test_names_in_another_order_are_matched_by_name() -> None:
    aligned = align(["bag", "coat", "dress"], [teacher(["dress", "bag", "coat"])])
    assert aligned.class_names == ["dress", "bag", "coat"]
    assert aligned.orders == [[0, 1, 2]]


def test_the_first_teachers_order_is_everybodys() -> None:
    """Output k of every teacher, after its order, means class k of the run."""
    names = [["dress", "bag", "coat"], ["coat", "bag", "dress"]]
    aligned = align(["bag", "coat", "dress"], [teacher(names[0]), teacher(names[1], ident="tch_b")])
    for order, of_teacher in zip(aligned.orders, names, strict=True):
        assert [of_teacher[output] for output in order] == aligned.class_names


def test_a_teacher_without_names_is_matched_by_number() -> None:
    aligned = align(["bag", "coat", "dress"], [teacher(None)])
    assert (aligned.class_names, aligned.orders) == (["bag", "coat", "dress"], [[0, 1, 2]])


def test_a_named_and_an_unnamed_teacher_agree() -> None:
    aligned = align(
        ["bag", "coat", "dress"], [teacher(["dress", "bag", "coat"]), teacher(None, ident="tch_b")]
    )
    assert aligned.class_names == ["dress", "bag", "coat"]
    assert aligned.orders == [[0, 1, 2], [2, 0, 1]]


def test_numbers_of_a_flat_data_set_are_no_names() -> None:
    aligned = align(["0", "1", "2"], [teacher(["bread", "dairy", "soup"])])
    assert (aligned.class_names, aligned.orders) == (["0", "1", "2"], [[0, 1, 2]])


def test_accents_match_however_they_are_spelt() -> None:
    aligned = align(["cafe\u0301", "tea"], [teacher(["tea", "caf\u00e9"], 2)])
    assert aligned.class_names == ["tea", "cafe\u0301"]


@pytest.mark.parametrize(
    ("names", "num_classes", "words"),
    [
        (["bag", "coat", "shoe"], 3, ["'dress'", "'shoe'"]),
        (None, 4, ["4 outputs", "3 classes"]),
    ],
)
def test_other_classes_are_refused_by_name(
    names: list[str] | None, num_classes: int, words: list[str]
) -> None:
    with pytest.raises(Problem) as refused:
        align(["bag", "coat", "dress"], [teacher(names, num_classes)])
    assert refused.value.code == "CLASSES_DIFFER"
    assert all(word in refused.value.detail for word in words)


def test_ten_thousand_classes_in_reverse_are_matched_at_once() -> None:
    """A request waits for this; comparing every name with every other took seconds."""
    names = [f"class {number:05}" for number in range(10_000)]
    start = time.perf_counter()
    aligned = align(names, [teacher(names[::-1], len(names))] * 4)
    assert time.perf_counter() - start < 0.5
    assert aligned.class_names == names[::-1]
    assert aligned.orders == [list(range(10_000))] * 4
