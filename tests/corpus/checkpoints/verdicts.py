"""Cases by the verdict that they must get."""

from collections.abc import Callable
from typing import Any

from tests.corpus.case import Case

Make = Callable[[], bytes]


def is_code(name: str, make: Make, rule: str | None = None) -> Case:
    """It would have to be executed to be read."""
    return Case(name, make, 422, "CHECKPOINT_IS_CODE", rule)


def unsafe(name: str, make: Make, rule: str | None = None) -> Case:
    """It lies, or would cost more than any checkpoint needs."""
    return Case(name, make, 422, "CHECKPOINT_UNSAFE", rule)


def unreadable(name: str, make: Make, rule: str | None = None) -> Case:
    """Damaged, cut off, of another program, or in a form that is not read."""
    return Case(name, make, 422, "CHECKPOINT_UNREADABLE", rule)


def dtype(name: str, make: Make, rule: str | None = None) -> Case:
    """Numbers of a kind that weights are not."""
    return Case(name, make, 422, "DTYPE_MISMATCH", rule)


def refused(name: str, make: Make, code: str, **request: Any) -> Case:
    """A file that is whole and harmless, and no teacher all the same."""
    return Case(name, make, 422, code, request=request)
