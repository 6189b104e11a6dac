"""Which output of which teacher means which class of the data.

The first teacher's order is the order of the whole run, so that a step may edit that teacher itself and a
student may take its place.
"""

import unicodedata
from dataclasses import dataclass

from app.errors import Problem

# Of thousands of names that differ, a few say which data set or teacher was meant.
_MAX_NAMES = 5


@dataclass(frozen=True)
class TeacherClasses:
    id: str
    num_classes: int
    class_names: list[str] | None


@dataclass(frozen=True)
class Alignment:
    class_names: list[str]
    """The data's names, in the order of the run's outputs."""
    orders: list[list[int]]
    """For each teacher: the output that means class k of `class_names`."""


def align(data_names: list[str], teachers: list[TeacherClasses]) -> Alignment:
    """Match by name where the names are the same, by number where one side has none ("0", "1", … of a flat
    data set are numbers). Raises Problem 422 CLASSES_DIFFER naming what differs.
    """
    by_name = [_matches_by_name(data_names, teacher) for teacher in teachers]
    class_names = _positions(teachers[0], data_names)[1] if by_name[0] else data_names
    orders = []
    for teacher, named in zip(teachers, by_name, strict=True):
        outputs = _positions(teacher, data_names)[1] if named else data_names
        output_of = {name: output for output, name in enumerate(outputs)}
        orders.append([output_of[name] for name in class_names])
    return Alignment(class_names, orders)


def _matches_by_name(data_names: list[str], teacher: TeacherClasses) -> bool:
    if teacher.num_classes != len(data_names):
        raise _differ(
            teacher,
            f"This teacher has {teacher.num_classes} outputs, the data set {len(data_names)} classes.",
            "Use a teacher that was trained on these classes.",
        )
    if teacher.class_names is None:
        return False
    missing, extra = _positions(teacher, data_names)[0]
    if not missing and not extra:
        return True
    if all(name.isascii() and name.isdecimal() for name in data_names):
        return False
    sides = {"only the teacher has": extra, "only the data set has": missing}
    parts = [f"{side} {_some(names)}" for side, names in sides.items() if names]
    raise _differ(
        teacher,
        f"The class names differ: {'; '.join(parts)}.",
        "Register one of the two with the other's names.",
    )


def _positions(
    teacher: TeacherClasses, data_names: list[str]
) -> tuple[tuple[list[str], list[str]], list[str]]:
    """((names of the data alone, of the teacher alone), the teacher's outputs in the data's spelling)."""
    spelling = {_plain(name): name for name in data_names}
    known = [_plain(name) for name in teacher.class_names or []]
    distinct = set(known)
    missing = [name for plain, name in spelling.items() if plain not in distinct]
    extra = [name for name in known if name not in spelling]
    return (missing, extra), [spelling[name] for name in known if name in spelling]


def _plain(name: str) -> str:
    # macOS writes an accent as a character of its own.
    return unicodedata.normalize("NFC", name)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in sorted(names)[:_MAX_NAMES])
    return shown + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")


def _differ(teacher: TeacherClasses, detail: str, hint: str) -> Problem:
    error = {"code": "CLASSES_DIFFER", "detail": detail, "hint": hint}
    return Problem(422, "CLASSES_DIFFER", f"Teacher {teacher.id}: {detail} {hint}", errors=[error])
