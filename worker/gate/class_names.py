"""Names of classes that stand in a file: they are shown, stored and compared, so they are kept to what can be."""

import re
from typing import Any

MOST = 10_000
LONGEST = 200
RULE = f"class names are at most {MOST} texts of 1 to {LONGEST} characters without control characters"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def are_usable(names: Any) -> bool:
    """Whether every name is one that a request could give as well, and a database can hold."""
    return (
        isinstance(names, list | tuple)
        and len(names) <= MOST
        and all(
            isinstance(name, str)
            and 1 <= len(name) <= LONGEST
            and not _CONTROL.search(name)
            and is_utf8(name)
            for name in names
        )
    )


def is_utf8(text: str) -> bool:
    """A pickle can hold halves of UTF-16 pairs, which no answer and no database can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
