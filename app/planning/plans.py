"""A job resolved against what is registered: every default filled in, contradictions found before it runs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app import resources
from app.errors import Problem
from app.planning import architectures, step_rules
from app.planning.classes import TeacherClasses, align
from app.planning.costs import check_job, job_macs
from app.planning.estimates import estimates
from app.planning.step_rules import error as _error
from app.reuse import result_key
from app.settings import settings
from app.spec.job import JobSpec
from app.spec.networks import Preprocessing, Student, scaled_preprocessing
from app.spec.steps.base import StepSpec
from app.tables import Dataset, Teacher

_TABLES: dict[str, Any] = {"teacher": Teacher, "dataset": Dataset}


@dataclass(frozen=True)
class Plan:
    """`spec` is the job as it will run.

    `estimates`: one a step, null where nothing can be said without building it.
    """

    spec: dict[str, Any]
    teachers: list[dict[str, Any]]
    dataset: dict[str, Any]
    estimates: list[dict[str, Any]]
    estimated_macs: float | None
    """Multiply-adds of all steps and seeds; null where only doing it tells."""
    limits: dict[str, Any]
    """What this service allows one job: `macs` of all steps and seeds together, `seconds`; null: no limit."""
    warnings: list[str]
    result_key: str
    """Equal for jobs that would leave the same result."""


def resolve(session: Session, spec: JobSpec) -> Plan:
    """Raises Problem 422 INVALID_SPEC that lists everything that is wrong, each with its JSON pointer, and JOB_TOO_LARGE for
    a job that is right and costs too much."""
    errors: list[dict[str, Any]] = []
    teachers = [
        _ready(session, "teacher", ident, f"/teachers/{i}", errors) for i, ident in enumerate(spec.teachers)
    ]
    dataset = _ready(session, "dataset", spec.dataset, "/dataset", errors)
    if dataset is not None:
        errors += _class_errors(teachers, dataset) + _evaluation_errors(dataset)
        errors += step_rules.split_errors(spec, _num_images(dataset))
        errors += step_rules.class_errors(spec, len((dataset.report or {})["class_names"]))
    errors += step_rules.teacher_errors(spec, teachers)
    errors += _student_errors(spec) + _deadline_errors(spec)
    if errors:
        raise _problem(errors)
    assert dataset is not None
    known = [teacher for teacher in teachers if teacher is not None]
    # What a student sees when nothing is said is what the first network sees.
    seen_by = next((teacher for teacher in known if not step_rules.is_table(teacher)), known[0])
    resolved = _resolved(spec, seen_by)
    shown, costs = estimates(
        session, resolved, known, _num_images(dataset), len(dataset.report["class_names"])
    )
    check_job(spec, costs, settings().max_job_macs)
    return Plan(
        spec=resolved.model_dump(mode="json"),
        teachers=[_teacher_summary(teacher) for teacher in known],
        dataset=_dataset_summary(dataset),
        estimates=shown,
        estimated_macs=job_macs(spec, costs),
        limits={"macs": settings().max_job_macs or None, "seconds": settings().max_job_seconds},
        warnings=_warnings(spec, known, dataset),
        result_key=result_key(spec, known, dataset),
    )


def _problem(errors: list[dict[str, Any]]) -> Problem:
    first = errors[0]
    more = f" (and {len(errors) - 1} more, see errors)" if len(errors) > 1 else ""
    detail = f"{first['pointer']}: {first['detail']} {first['hint']}{more}"
    waiting = all(error["code"] == "NOT_READY" for error in errors)
    return Problem(422, "INVALID_SPEC", detail, errors=errors[:20], retryable=waiting)


def _ready(session: Session, kind: str, ident: str, pointer: str, errors: list[dict[str, Any]]) -> Any:
    """The row when it can be used; else None, and why in `errors`."""
    row: Teacher | Dataset | None = session.get(_TABLES[kind], ident)
    word = "data set" if kind == "dataset" else kind
    if row is None:
        errors.append(
            _error(pointer, f"UNKNOWN_{kind.upper()}", f"There is no such {word}.", f"See GET /v1/{kind}s.")
        )
    elif row.state == resources.INSPECTING:
        errors.append(
            _error(pointer, "NOT_READY", f"This {word} is being inspected.", f"See GET /v1/{kind}s/{ident}.")
        )
    elif row.state == resources.REJECTED:
        reason = (row.error or {}).get("code", "unknown")
        detail = f"This {word} was rejected ({reason})."
        errors.append(_error(pointer, f"{kind.upper()}_REJECTED", detail, f"See GET /v1/{kind}s/{ident}."))
    else:
        return row
    return None


def _class_errors(teachers: list[Teacher | None], dataset: Dataset) -> list[dict[str, Any]]:
    """Every teacher against the data set.

    The rule is the worker's own: names may come in another order, and a flat data set has numbers for names.
    """
    errors = []
    wanted: list[str] = (dataset.report or {})["class_names"]
    for index, teacher in enumerate(teachers):
        if teacher is None:
            continue
        report = teacher.report or {}
        known = TeacherClasses(teacher.id, report["num_classes"], report.get("class_names"))
        try:
            align(wanted, [known])
        except Problem as problem:
            errors += [{"pointer": f"/teachers/{index}", **error} for error in problem.errors]
    return errors


def _num_images(dataset: Dataset) -> dict[str, int]:
    splits: dict[str, Any] = (dataset.report or {})["splits"]
    return {name: split["num_images"] for name, split in splits.items() if split["num_images"]}


def _evaluation_errors(dataset: Dataset) -> list[dict[str, Any]]:
    has = _num_images(dataset)
    errors = []
    if "val" not in has and "test" not in has:
        detail = "This data set has neither a val nor a test split, so nothing could be measured."
        errors.append(
            _error(
                "/dataset", "NO_EVALUATION_SPLIT", detail, "Register it with a val_fraction or test_fraction."
            )
        )
    return errors


def _student(step: StepSpec) -> Student | None:
    return getattr(step, "student", None)


def _deadline_errors(spec: JobSpec) -> list[dict[str, Any]]:
    asked, most = spec.deadline_seconds, settings().max_job_seconds
    if asked is None or asked <= most:
        return []
    detail = f"A job may run {most:g} seconds here, and this asks for {asked:g}."
    return [
        _error("/deadline_seconds", "DEADLINE_TOO_LONG", detail, "Lower it, or leave it out for the most.")
    ]


def _student_errors(spec: JobSpec) -> list[dict[str, Any]]:
    errors = []
    for index, step in enumerate(spec.steps):
        student = _student(step)
        if student is not None and student.architecture is not None:
            pointer = f"/steps/{index}/student"
            errors += architectures.errors_in(student, pointer) or _size_errors(student, pointer)
    return errors


def _size_errors(student: Student, pointer: str) -> list[dict[str, Any]]:
    assert student.architecture is not None
    if student.preprocessing is None:
        if student.image_size is None:
            return []
        return architectures.size_errors(student.architecture, student.image_size, f"{pointer}/image_size")
    height, width = student.preprocessing.input_size
    pointer = f"{pointer}/preprocessing"
    if height != width:
        detail = f"This gives {height}x{width} pixels, but built-in networks take squares."
        return [_error(pointer, "NOT_SQUARE", detail, "Give `crop` as one number.")]
    return architectures.size_errors(student.architecture, height, pointer)


def _resolved(spec: JobSpec, teacher: Teacher) -> JobSpec:
    steps = []
    for step in spec.steps:
        student = _student(step)
        steps.append(
            step
            if student is None
            else step.model_copy(update={"student": _resolved_student(student, teacher)})
        )
    return spec.model_copy(update={"steps": steps})


def _resolved_student(student: Student, teacher: Teacher) -> Student:
    if student.architecture is None:
        return student  # a graph has its input size; what it is fed is decided where it is built
    entry = architectures.find(student.architecture)
    defaults = {name: option.get("default") for name, option in (entry.get("options") or {}).items()}
    if student.preprocessing is not None:
        size, preprocessing = student.preprocessing.input_size[0], student.preprocessing
    else:
        size = student.image_size or entry["image_size"]
        seen = Preprocessing.model_validate((teacher.report or {})["preprocessing"])
        preprocessing = scaled_preprocessing(seen, size)
    update = {"options": defaults | student.options, "image_size": size, "preprocessing": preprocessing}
    return student.model_copy(update=update)


def _teacher_summary(teacher: Teacher) -> dict[str, Any]:
    report = teacher.report or {}
    kept = ("architecture", "parameters", "macs", "input_shape", "num_classes", "preprocessing", "size_bytes")
    table = {"soft_labels": report["soft_labels"]} if "soft_labels" in report else {}
    return {"id": teacher.id, "name": teacher.name} | {key: report.get(key) for key in kept} | table


def _dataset_summary(dataset: Dataset) -> dict[str, Any]:
    names = (dataset.report or {})["class_names"]
    return {
        "id": dataset.id,
        "name": dataset.name,
        "num_classes": len(names),
        "num_images": _num_images(dataset),
    }


def _warnings(spec: JobSpec, teachers: list[Teacher], dataset: Dataset) -> list[str]:
    warnings = []
    has = _num_images(dataset)
    if "val" not in has:
        warnings.append("The data set has no val split: the last epoch is kept instead of the best.")
    for index, step in enumerate(spec.steps):
        leaked = sorted({"val", "test"} & set(step.trained_splits))
        if leaked:
            warnings.append(
                f"steps[{index}] trains on {' and '.join(leaked)}: accuracy there says nothing any more."
            )
    for teacher in teachers:
        report = teacher.report or {}
        if not report.get("class_names"):
            warnings.append(
                f"Teacher {teacher.id} has no class names: its outputs are taken in the data set's order."
            )
        warnings += [f"Teacher {teacher.id}: {warning}" for warning in report.get("warnings") or []]
    return warnings
