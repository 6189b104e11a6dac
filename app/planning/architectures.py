"""The catalogue of built-in architectures, written by `python -m worker.catalogue`: known without torch."""

import json
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.errors import Problem
from app.spec.networks import Architecture, Student

PATH = Path(__file__).with_name("architectures.json")


@lru_cache
def _read(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def catalogue() -> dict[str, dict[str, Any]]:
    """Every entry by its name: family, source, options, and parameters and macs at its own defaults."""
    return _read(PATH)


def find(name: str) -> dict[str, Any]:
    """The entry of that name. Raises Problem 404 UNKNOWN_ARCHITECTURE with the names that look like it."""
    entry = catalogue().get(name)
    if entry is None:
        raise Problem(
            404, "UNKNOWN_ARCHITECTURE", f"There is no such architecture. {suggestion(name, catalogue())}"
        )
    return entry


def suggestion(name: str, known: Any) -> str:
    """One sentence that helps after a misspelt name: the nearest known names, or all when there are few."""
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if len(known) <= 12:
        return f"Known: {', '.join(sorted(known)) or 'none'}."
    return "GET /v1/architectures lists them."


def errors_in(asked: Architecture | Student, pointer: str) -> list[dict[str, Any]]:
    """What is wrong with an architecture that was asked for, as a problem's errors; empty if nothing."""
    assert asked.architecture is not None
    entry = catalogue().get(asked.architecture)
    if entry is None:
        return [
            {
                "pointer": f"{pointer}/architecture",
                "code": "UNKNOWN_ARCHITECTURE",
                "detail": "There is no architecture of this name.",
                "hint": suggestion(asked.architecture, catalogue()),
            }
        ]
    known: dict[str, Any] = entry.get("options") or {}
    errors = []
    for name, value in asked.options.items():
        code, detail = (
            _option_fault(value, known[name]) if name in known else ("UNKNOWN_OPTION", "No such option.")
        )
        if code:
            hint = suggestion(name, known) if name not in known else f"{name}: {_describe(known[name])}"
            errors.append(
                {"pointer": f"{pointer}/options/{name}", "code": code, "detail": detail, "hint": hint}
            )
    return errors


def size_errors(name: str, image_size: int, pointer: str) -> list[dict[str, Any]]:
    """Why the architecture cannot take images of this size; empty when it can."""
    entry = find(name)
    least, multiple = entry["minimum_image_size"], entry["image_size_multiple"]
    if image_size >= least and image_size % multiple == 0:
        return []
    steps = f" in multiples of {multiple}" if multiple > 1 else ""
    detail = f"{name} takes images from {least} pixels on{steps}."
    hint = f"Its own size is {entry['image_size']}."
    return [{"pointer": pointer, "code": "INVALID_IMAGE_SIZE", "detail": detail, "hint": hint}]


# The catalogue names types as JSON schema does.
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
}


def _option_fault(value: Any, option: dict[str, Any]) -> tuple[str, str]:
    wanted = option["type"]
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean"):
        return "INVALID_OPTION", f"This option is of type {wanted}."
    low, high = option.get("minimum"), option.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        return "INVALID_OPTION", f"This option must lie in {low}..{high}."
    if option.get("choices") and value not in option["choices"]:
        return "INVALID_OPTION", "This option is none of its choices."
    return "", ""


def _describe(option: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value}" for key, value in option.items() if value is not None and key != "description"
    )
