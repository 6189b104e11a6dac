"""Numbers as people read them; what is not there is a dash."""

import math
from typing import Any

NOTHING = "-"


def share(value: float | None) -> str:
    """0.667 as 66.7 %."""
    return NOTHING if value is None else f"{value:.1%}".replace("%", " %")


def count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f} ms"


def duration(seconds: float | None) -> str:
    """Rounded up, so that what is left never seems less than it is."""
    if seconds is None:
        return NOTHING
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {whole:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def size(num_bytes: float) -> str:
    """In decimal units: 113250 as 113.3 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"


def value(found: Any) -> str:
    """Anything of a table: numbers short, the rest as it is."""
    if found is None:
        return NOTHING
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, float):
        return f"{found:.4g}"
    return str(found)
