"""What a job's steps need of its teachers and of its data: found before it is queued.

Rules that need neither are validators of the specs. Every function gives errors as a problem has them: pointer,
code, detail, hint.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from app.spec.job import JobSpec
from app.spec.networks import Student
from app.spec.steps.base import StepSpec
from app.tables import Teacher

Errors = list[dict[str, Any]]


def error(pointer: str, code: str, detail: str, hint: str) -> dict[str, Any]:
    return {"pointer": pointer, "code": code, "detail": detail, "hint": hint}


def is_table(teacher: Teacher) -> bool:
    """Whether the teacher is only a table of soft labels: it has no network."""
    return "soft_labels" in (teacher.report or {})


def split_errors(spec: JobSpec, num_images: dict[str, int]) -> Errors:
    """Splits that a step names and the data does not have."""
    known = ", ".join(sorted(num_images))
    errors = []
    for index, step in enumerate(spec.steps):
        named = list(_named_splits(step))
        named += [("", split) for split in step.trained_splits if split not in {split for _, split in named}]
        for field, split in named:
            if split not in num_images:
                detail = f"This data set has no images in the split {split!r}."
                errors.append(error(f"/steps/{index}{field}", "UNKNOWN_SPLIT", detail, f"It has {known}."))
    return errors


def _named_splits(step: StepSpec) -> Iterator[tuple[str, str]]:
    """(pointer within the step, split): every field that has to do with splits says so in its name. A default
    counts only where the step trains on it."""
    for name, value in step:
        if "split" not in name or not (name in step.model_fields_set or value == step.trained_splits):
            continue
        if isinstance(value, str):
            yield f"/{name}", value
        elif isinstance(value, list):
            yield from ((f"/{name}/{position}", split) for position, split in enumerate(value))


def teacher_errors(spec: JobSpec, teachers: Sequence[Teacher | None]) -> Errors:
    """Steps that use a teacher which is not there, or whose network is not. None: a teacher that is not ready."""
    errors: Errors = []
    for index, step in enumerate(spec.steps):
        student: Student | None = getattr(step, "student", None)
        if student is not None and student.teacher is not None:
            errors += _network_errors(teachers, student.teacher, f"/steps/{index}/student/teacher")
        for position, hint in enumerate(getattr(step, "hints", None) or []):
            pointer = f"/steps/{index}/hints/{position}/teacher_index"
            errors += _network_errors(teachers, hint.teacher_index, pointer)
        if index == 0:
            errors += _first_step_errors(step, student, teachers)
        errors += _preprocessing_errors(student, teachers, f"/steps/{index}/student")
    return errors


def _network_errors(teachers: Sequence[Teacher | None], index: int, pointer: str) -> Errors:
    if index >= len(teachers):
        detail = f"There is no teacher at position {index}: the job names {len(teachers)}."
        return [error(pointer, "UNKNOWN_TEACHER", detail, "Positions are counted from 0.")]
    teacher = teachers[index]
    if teacher is None or not is_table(teacher):
        return []
    detail = f"Teacher {teacher.id} is a table of soft labels: it has no network."
    return [error(pointer, "TEACHER_IS_TABLE", detail, "Name a teacher that was uploaded as a network.")]


def _first_step_errors(step: StepSpec, student: Student | None, teachers: Sequence[Teacher | None]) -> Errors:
    """Before the first step there is the one teacher's network, or none."""
    previous = student is not None and student.previous is True
    if not (step.needs_model or previous):
        return []
    pointer = "/steps/0/student" if previous else "/steps/0"
    if len(teachers) > 1:
        detail = f"There is no network before the first step: the job has {len(teachers)} teachers."
        return [error(pointer, "NO_NETWORK", detail, "Begin with a step that trains a student.")]
    return _network_errors(teachers, 0, pointer)


def _preprocessing_errors(
    student: Student | None, teachers: Sequence[Teacher | None], pointer: str
) -> Errors:
    if student is None or student.preprocessing is not None or student.previous:
        return []
    if any(teacher is None or not is_table(teacher) for teacher in teachers):
        return []
    detail = "All teachers are tables of soft labels: nothing says how the student's images are made."
    return [
        error(pointer, "PREPROCESSING_MISSING", detail, 'Give `preprocessing`, e.g. {"resize": [64, 64]}.')
    ]


def class_errors(spec: JobSpec, num_classes: int) -> Errors:
    """What a step cannot do with so many classes."""
    return [
        error(f"/steps/{index}/{field}", "CLASSES_UNSUITABLE", message, "")
        for index, step in enumerate(spec.steps)
        for field, message in step.class_errors(num_classes)
    ]
