"""What was rendered is kept, within bounds."""

from app.reports.kept import Kept


def test_the_same_is_rendered_once() -> None:
    kept, calls = Kept(), []

    def render() -> bytes:
        calls.append(1)
        return b"page"

    assert [kept.get(("job_1", "1"), render) for _ in range(3)] == [b"page"] * 3
    assert len(calls) == 1
    kept.get(("job_1", "2"), render)
    assert len(calls) == 2


def test_the_longest_unused_goes_first() -> None:
    kept = Kept(most_bytes=10)
    for name in "ab":
        kept.get((name,), lambda: b"1234")
    kept.get(("a",), lambda: b"never")
    kept.get(("c",), lambda: b"1234")
    assert kept.get(("a",), lambda: b"again") == b"1234"
    assert kept.get(("b",), lambda: b"again") == b"again"


def test_what_is_larger_than_all_room_is_not_kept() -> None:
    kept = Kept(most_bytes=3)
    assert [kept.get(("a",), lambda: b"1234"), kept.get(("a",), lambda: b"12345")] == [b"1234", b"12345"]
