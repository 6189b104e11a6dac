"""What is wrong with a spec, as a problem has it: pydantic's findings as pointers and sentences."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from app.spec.job import JobSpec
from app.spec.networks import Preprocessing, Student
from app.spec.resources import DatasetSpec, TeacherSpec
from app.spec.steps import STEPS
from app.spec.sweep import SweepSpec, escaped

_MAX_TEXT = 300


def described(fault: Any, path: Sequence[Any], body: Any) -> dict[str, Any]:
    """One of pydantic's errors: pointer, code, detail, and a hint where there is one. `path`: its location in the body."""
    path = _without_tags(path, body, missing=fault["type"] == "missing")
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("method")
    error = {"pointer": _pointer(path), "code": fault["type"].upper(), "detail": detail(fault)}
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(str(path[-1]), _fields_beside(path, body), n=1)
        error["hint"] = f"Did you mean {near[0]}?" if near else "Leave it out."
    elif fault["type"] == "missing" and not path:
        error["hint"] = "Send a JSON body with -H 'Content-Type: application/json'."
    return error


def detail(fault: Any) -> str:
    """pydantic's sentence, where it does not repeat what was sent."""
    if fault["type"] == "union_tag_invalid":
        return f"There is no such method. Known: {', '.join(sorted(STEPS))}."
    if fault["type"] == "union_tag_not_found":
        return f"Say which method this step is. Known: {', '.join(sorted(STEPS))}."
    return str(fault["msg"]).removeprefix("Value error, ")[:_MAX_TEXT]


def _without_tags(path: Sequence[Any], body: Any, *, missing: bool) -> list[Any]:
    """pydantic's location names the branch of a union as if it were a key; a JSON pointer must not."""
    kept: list[Any] = []
    for index, part in enumerate(path):
        in_list = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if in_list or (isinstance(body, dict) and part in body):
            kept.append(part)
            body = body[part]
        elif missing and index == len(path) - 1:
            kept.append(part)
    return kept


def _pointer(path: Sequence[Any]) -> str:
    return "".join("/" + escaped(str(part)[:_MAX_TEXT]) for part in path)


def _fields_beside(path: Sequence[Any], body: Any) -> list[str]:
    """Names that could have been meant where an unknown one was found."""
    if "preprocessing" in path[:-1]:
        return list(Preprocessing.model_fields)
    if "student" in path[:-1]:
        return list(Student.model_fields)
    if path[0] == "steps" and len(path) == 3:
        return list(STEPS[body["steps"][path[1]]["method"]].model_fields)
    specs = (JobSpec, TeacherSpec, DatasetSpec, SweepSpec)
    return [name for spec in specs for name in spec.model_fields]
