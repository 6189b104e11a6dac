"""From a preset's options to its sweep, and what is wrong with them, said in the caller's own fields."""

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from app.errors import Problem
from app.presets.base import Preset
from app.spec.sweep import SweepSpec

_MAX_ERRORS = 20
_MAX_TEXT = 300


def expand(
    kind: type[Preset], teachers: list[str], dataset: str | None, options: dict[str, Any]
) -> SweepSpec:
    """Raises Problem 422 INVALID_SPEC with pointers into `/options`, `/teachers` and `/dataset`."""
    preset = _asked(kind, options)
    _check_teachers(kind, teachers)
    if dataset is None:
        detail = f"Preset {kind.NAME!r} needs photos: name a data set of GET /v1/datasets."
        raise _invalid([_fault("/dataset", "MISSING", detail)])
    try:
        return SweepSpec.model_validate(preset.sweep(teachers, dataset))
    except ValidationError as error:
        raise _invalid([_of_sweep(fault) for fault in error.errors()]) from None


def _asked(kind: type[Preset], options: dict[str, Any]) -> Preset:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise _invalid([_of_option(fault, kind) for fault in error.errors()]) from None


def _check_teachers(kind: type[Preset], teachers: list[str]) -> None:
    least, most = kind.NUM_TEACHERS
    if least <= len(teachers) <= most:
        return
    wanted = str(least) if least == most else f"{least} to {most}"
    order = ", the weaker first" if least > 1 else ""
    detail = f"Preset {kind.NAME!r} takes {wanted} of them{order}, and this names {len(teachers)}."
    raise _invalid([_fault("/teachers", "WRONG_NUMBER_OF_TEACHERS", detail)])


def _of_option(fault: Any, kind: type[Preset]) -> dict[str, Any]:
    # Below the option itself pydantic names branches of unions as if they were keys, so the pointer stops there.
    name = "".join(str(part)[:_MAX_TEXT] for part in fault["loc"][:1])
    pointer = "/options" + (f"/{name.replace('~', '~0').replace('/', '~1')}" if name else "")
    error = _fault(pointer, fault["type"].upper(), _sentence(fault))
    if fault["type"] == "extra_forbidden":
        near = get_close_matches(name, kind.model_fields, n=1)
        known = ", ".join(kind.model_fields)
        error["hint"] = f"Did you mean {near[0]}?" if near else f"Preset {kind.NAME!r} takes {known}."
    return error


def _of_sweep(fault: Any) -> dict[str, Any]:
    """Ids are the caller's own; all else follows from the options."""
    code, sentence = fault["type"].upper(), _sentence(fault)
    match fault["loc"]:
        case ("job", "teachers", int() as position, *_):
            return _fault(f"/teachers/{position}", code, sentence)
        case ("job", ("teachers" | "dataset") as field, *_):
            return _fault(f"/{field}", code, sentence)
    where = "/".join(map(str, fault["loc"]))[:_MAX_TEXT]
    return _fault("/options", code, f"They make a sweep that cannot be ({where}): {sentence}")


def _sentence(fault: Any) -> str:
    return str(fault["msg"]).removeprefix("Value error, ")[:_MAX_TEXT]


def _fault(pointer: str, code: str, detail: str) -> dict[str, Any]:
    return {"pointer": pointer, "code": code, "detail": detail}


def _invalid(errors: list[dict[str, Any]]) -> Problem:
    first = errors[0]
    more = f" (and {len(errors) - 1} more, see errors)" if len(errors) > 1 else ""
    detail = f"{first['pointer']}: {first['detail']}{more}"
    return Problem(422, "INVALID_SPEC", detail, errors=errors[:_MAX_ERRORS])
