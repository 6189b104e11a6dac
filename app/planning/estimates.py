"""How large the network is after each step of a job, and what the steps cost: null where only doing it tells."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app import resources
from app.planning import architectures
from app.planning.costs import Macs, step_macs
from app.spec.job import JobSpec
from app.spec.networks import Student
from app.spec.resources import ArchitectureQuery
from app.spec.steps.base import StepSpec
from app.tables import SUCCEEDED, Teacher

_UNKNOWN_SIZE: dict[str, Any] = {"parameters": None, "macs": None}
_EXACT = 3
"""Significant digits of a cost; JSON readers keep integers exact only up to 2^53."""


def estimates(
    session: Session, spec: JobSpec, teachers: Sequence[Teacher], num_images: dict[str, int], num_classes: int
) -> tuple[list[dict[str, Any]], list[Macs]]:
    """For each step: parameters and multiply-adds of the network behind it, the bytes of its weights alone (an artifact
    adds its graph and index), and `job_macs`, what the step costs; and the same costs as numbers."""
    size = _teacher_size(teachers[0])
    most: float | None = size["macs"]
    teacher_macs = sum(_teacher_size(teacher)["macs"] or 0 for teacher in teachers)
    shown, costs = [], []
    for step in spec.steps:
        before = Macs(size["macs"], most)
        size, most = _after(session, step, size, most, teachers, num_classes)
        # A step that makes the network smaller trains, at most, the one that it was given.
        trains = before if _student(step) is None else Macs(size["macs"], most)
        if size["macs"] is None:
            trains = Macs(None, trains.bound or None)
        cost = step_macs(step, trains, teacher_macs, num_images)
        weights = size["parameters"]
        shown.append(
            {
                "method": step.method,
                **size,
                "weight_bytes": None if weights is None else int(weights * step.bits_per_weight / 8),
                "job_macs": _rounded(cost.about),
                "job_macs_at_most": _rounded(cost.at_most),
            }
        )
        costs.append(cost)
    return shown, costs


def _rounded(macs: float | None) -> float | None:
    return None if macs is None else float(f"{macs:.{_EXACT}g}")


def _student(step: StepSpec) -> Student | None:
    return getattr(step, "student", None)


def _after(
    session: Session,
    step: StepSpec,
    size: dict[str, Any],
    most: float | None,
    teachers: Sequence[Teacher],
    num_classes: int,
) -> tuple[dict[str, Any], float | None]:
    """Size of the network after the step, and the most multiply-adds that it can have."""
    student = _student(step)
    if student is None:
        return (size if step.keeps_layers else _UNKNOWN_SIZE), most
    if student.previous:
        return size, most
    if student.teacher is not None:
        whole = _teacher_size(teachers[student.teacher])
        at_most: float | None = whole["macs"]
    else:
        whole = _student_size(session, student, num_classes)
        at_most = whole["macs"] or _scaled_macs(student)
    if student.width != 1 or student.budget is not None:
        return _UNKNOWN_SIZE, at_most
    return whole, at_most


def _teacher_size(teacher: Teacher) -> dict[str, Any]:
    report = teacher.report or {}
    return {"parameters": report.get("parameters"), "macs": report.get("macs")}


def _student_size(session: Session, student: Student, num_classes: int) -> dict[str, Any]:
    """From a layer table that was made before, or from the catalogue when everything is at its defaults."""
    if student.architecture is None:
        return _UNKNOWN_SIZE
    assert student.image_size is not None
    query = ArchitectureQuery(
        architecture=student.architecture,
        options=student.options,
        num_classes=num_classes,
        image_size=student.image_size,
    )
    if (counted := _counted(session, query)) is not None:
        return counted
    entry = architectures.find(student.architecture)
    defaults = {name: option.get("default") for name, option in (entry.get("options") or {}).items()}
    if (student.options, num_classes) != (defaults, entry["num_classes"]):
        return _UNKNOWN_SIZE
    if student.image_size != entry["image_size"]:
        return _UNKNOWN_SIZE
    return {"parameters": entry["parameters"], "macs": entry["macs"]}


def _counted(session: Session, query: ArchitectureQuery) -> dict[str, Any] | None:
    """What a worker counted that built exactly this; asked once in a session, however many jobs are planned in it."""
    asked: dict[str, dict[str, Any] | None] = session.info.setdefault("counted_architectures", {})
    key = query.model_dump_json()
    if key not in asked:
        job = resources.known_architecture(session, query)
        result = job.result if job is not None and job.state == SUCCEEDED else None
        asked[key] = None if result is None else {name: result[name] for name in ("parameters", "macs")}
    return asked[key]


def _scaled_macs(student: Student) -> float | None:
    """Of a built-in architecture with other options or at another size: its own, in proportion to the area. None for a
    graph, which only the worker reads."""
    if student.architecture is None or student.image_size is None:
        return None
    entry = architectures.find(student.architecture)
    return float(entry["macs"] * (student.image_size / entry["image_size"]) ** 2)
