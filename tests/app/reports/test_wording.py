"""How numbers and names are written."""

import pytest

from app.reports.wording import duration, number, points, scaled, shown, significant


def test_numbers_have_commas_and_a_true_minus() -> None:
    assert [number(1234567), number(-0.04, 1), number(-1.25, 1), number(3, sign=True)] == [
        "1,234,567",
        "0.0",
        "−1.2",
        "+3",
    ]
    assert [number(None), number(float("nan")), points(-0.098), points(0.0)] == ["–", "–", "−9.8", "0.0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.04231, "0.0423"), (4.2, "4.20"), (42.31, "42.3"), (4231.0, "4,231"), (999.96, "1,000")],
)
def test_three_digits_say_something(value: float, text: str) -> None:
    assert significant(value) == text


def test_amounts_have_decimal_prefixes() -> None:
    assert [scaled(113250, "B"), scaled(1e6, "B"), scaled(41_881_600), scaled(12, "B")] == [
        "113 kB",
        "1.00 MB",
        "41.9 M",
        "12.0 B",
    ]


def test_durations_have_two_units_at_most() -> None:
    found = [duration(seconds) for seconds in (0.25, 12.4, 319, 3725, 90_000)]
    assert found == ["0.25 s", "12 s", "5 min 19 s", "1 h 2 min", "1 d 1 h"]


def test_a_users_text_stays_on_its_line_and_goes_its_direction() -> None:
    """Control characters and marks that turn the direction are spelt out; what is long is cut in the middle."""
    assert shown("a\nb\x00\u202egpj.exe") == "a\\u000ab\\u0000\\u202egpj.exe"
    long = shown("x" * 5000 + "y" * 5000)
    assert len(long) <= 80
    assert (long[0], long[-1], "…" in long) == ("x", "y", True)
    assert shown("naïve 猫 🐈") == "naïve 猫 🐈"
