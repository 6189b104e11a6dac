"""The report's experiments, each one request: `{"preset": "alpha", "teachers": [...], "dataset": ...}` in place of a sweep.

One experiment a file. A subclass of `Preset` in this folder is part of the API the moment it exists.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from app.errors import Problem
from app.presets import expansion
from app.presets.base import Preset
from app.spec.sweep import SweepSpec

PLACEHOLDERS = ("tch_first", "tch_second")
"""Stand for teachers that nobody named yet, as the next does for the data."""
PLACEHOLDER_DATASET = "dst_photos"


def _discover() -> dict[str, type[Preset]]:
    found: dict[str, type[Preset]] = {}
    machinery = ("base", "expansion", "cost")
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in machinery):
        for value in vars(importlib.import_module(f"{__name__}.{module}")).values():
            if _is_preset(value) and value.__module__ == f"{__name__}.{module}":
                found[value.NAME] = value
    return found


def _is_preset(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Preset)


PRESETS: dict[str, type[Preset]] = _discover()


def find(name: str) -> type[Preset]:
    """Raises Problem 404 UNKNOWN_PRESET with the names that look like it."""
    if name not in PRESETS:
        raise Problem(404, "UNKNOWN_PRESET", f"There is no preset of this name. {_near(name, PRESETS)}")
    return PRESETS[name]


def expand(
    name: str, teachers: Sequence[str], dataset: str | None, options: dict[str, Any] | None = None
) -> SweepSpec:
    """The sweep that the preset stands for. `teachers` in the order that it gives them a meaning (the weaker first).

    Raises Problem 422: UNKNOWN_PRESET; INVALID_SPEC with pointers into `/options`, `/teachers` and `/dataset`.
    """
    if name not in PRESETS:
        detail = f"There is no preset of this name. {_near(name, PRESETS)}"
        error = {"pointer": "/preset", "code": "UNKNOWN_PRESET", "detail": detail}
        raise Problem(422, "UNKNOWN_PRESET", detail, errors=[error])
    return expansion.expand(PRESETS[name], list(teachers), dataset, options or {})


def placeholders(name: str) -> list[str]:
    """As many teachers as the preset needs."""
    return list(PLACEHOLDERS[: find(name).NUM_TEACHERS[0]])


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:100], known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(sorted(known))}."
