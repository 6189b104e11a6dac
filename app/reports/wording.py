"""Numbers and names as a report says them: one spelling each, and nothing of a user's that could pass for ours."""

import math
import unicodedata

NOTHING = "–"
"""What a cell says where nothing was measured."""

# Marks that turn the direction of what follows, in a page or in a shell.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: object, most: int = 80) -> str:
    """A user's text for a cell: on one line, its control characters spelt out, cut in the middle beyond `most` characters.

    It is still to be escaped for HTML or Markdown.
    """
    plain = str(text)
    if len(plain) > most:
        half = (most - 1) // 2
        plain = f"{plain[:half]}…{plain[-half:]}"
    return "".join(_spelt(character) for character in plain)


def _spelt(character: str) -> str:
    if character in _TURNS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        code = ord(character)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def number(value: float | None, digits: int = 0, *, sign: bool = False) -> str:
    """1,234.5 with a true minus; a sign also before what is positive, if asked for."""
    if value is None or not math.isfinite(value):
        return NOTHING
    rounded = round(value, digits)
    text = f"{abs(rounded):,.{digits}f}"
    if rounded < 0:
        return f"−{text}"
    return f"+{text}" if sign and rounded > 0 else text


def percent(share: float | None, digits: int = 1) -> str:
    """Of a share in [0, 1], without the unit: that is in the header."""
    return NOTHING if share is None else number(100 * share, digits)


def points(share: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign."""
    return NOTHING if share is None else number(100 * share, digits, sign=True)


def significant(value: float | None, digits: int = 3) -> str:
    """So many digits that say something: 4.23, 42.3, 423, 0.0423."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    return number(value, max(0, digits - 1 - exponent))


def times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{significant(ratio)} ×"


_DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def scaled(value: float | None, unit: str = "") -> str:
    """42.0 M, 113 kB: decimal prefixes, three digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for size, prefix in _DECIMAL:
        if abs(value) >= 0.9995 * size:
            return f"{significant(value / size)} {prefix}{unit}"
    return f"{significant(value)} {unit}".rstrip()


def duration(seconds: float | None) -> str:
    """5 min 19 s; two units at most."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{significant(seconds, 2)} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    raise AssertionError(seconds)


def listed(items: list[str]) -> str:
    """a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
