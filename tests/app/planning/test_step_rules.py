"""What a job's steps need of teachers and data, each refused with a pointer to it."""

from typing import Any

import pytest

from app.planning.step_rules import class_errors, split_errors, teacher_errors
from app.spec.job import JobSpec
from app.spec.networks import Student
from app.spec.steps.base import StepSpec
from app.tables import Teacher
from tests.app.conftest import Service, teacher_report

NETWORK = Teacher(id="tch_1", report=teacher_report(["cat", "dog"]))
TABLE = Teacher(
    id="tch_2", report={"soft_labels": {"rows": 3}, "num_classes": 2, "class_names": ["cat", "dog"]}
)
STUDENT = {"method": "distill", "student": "student_net"}


def job(*steps: dict[str, Any], num_teachers: int = 1) -> JobSpec:
    teachers = [f"tch_{n}" for n in range(num_teachers)]
    return JobSpec.model_validate({"teachers": teachers, "dataset": "dst_1", "steps": list(steps)})


def with_steps(*steps: StepSpec) -> JobSpec:
    """Steps that no method has yet."""
    return JobSpec.model_construct(teachers=["tch_1"], steps=list(steps))


def told(errors: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(error["pointer"], error["code"]) for error in errors]


def test_a_step_that_edits_a_network_needs_one() -> None:
    """A table of soft labels has none; behind a student there is one."""
    quantize = {"method": "quantize"}
    assert told(teacher_errors(job(quantize), [TABLE])) == [("/steps/0", "TEACHER_IS_TABLE")]
    assert teacher_errors(job(quantize), [NETWORK]) == []
    seen = {"architecture": "student_net", "preprocessing": {"crop": 64}}
    assert teacher_errors(job({**STUDENT, "student": seen}, quantize), [TABLE]) == []


def test_a_student_of_a_teachers_graph_needs_that_teacher() -> None:
    step = {**STUDENT, "student": {"teacher": 1}}
    assert told(teacher_errors(job(step), [NETWORK])) == [("/steps/0/student/teacher", "UNKNOWN_TEACHER")]
    both = job(step, num_teachers=2)
    assert told(teacher_errors(both, [NETWORK, TABLE])) == [("/steps/0/student/teacher", "TEACHER_IS_TABLE")]
    assert teacher_errors(both, [TABLE, NETWORK]) == []


class Continues(StepSpec):
    student: Student

    @property
    def needs_model(self) -> bool:
        return False


def test_previous_is_nothing_before_the_first_step_of_an_ensemble() -> None:
    spec = with_steps(Continues(method="x", student=Student(previous=True)))
    assert teacher_errors(spec, [NETWORK]) == []
    assert told(teacher_errors(spec, [NETWORK, NETWORK])) == [("/steps/0/student", "NO_NETWORK")]
    assert told(teacher_errors(spec, [TABLE])) == [("/steps/0/student", "TEACHER_IS_TABLE")]


def test_tables_alone_do_not_say_what_a_student_sees() -> None:
    assert told(teacher_errors(job(STUDENT), [TABLE])) == [("/steps/0/student", "PREPROCESSING_MISSING")]
    assert teacher_errors(job(STUDENT, num_teachers=2), [TABLE, NETWORK]) == []


class Splits(StepSpec):
    calibration_split: str = "val"
    other_splits: list[str] = ["test"]

    @property
    def trained_splits(self) -> list[Any]:
        return ["train"]


def test_any_splits_of_a_step_must_be_there() -> None:
    """Those that were asked for, and those that it trains on."""
    has = {"train": 1}
    assert split_errors(with_steps(Splits(method="x")), has) == []
    asked = Splits(method="x", calibration_split="val", other_splits=["train", "test"])
    assert [pointer for pointer, _ in told(split_errors(with_steps(asked), has))] == [
        "/steps/0/calibration_split",
        "/steps/0/other_splits/1",
    ]
    assert told(split_errors(with_steps(Splits(method="x")), {"val": 1})) == [("/steps/0", "UNKNOWN_SPLIT")]


class Picky(StepSpec):
    def class_errors(self, num_classes: int) -> list[tuple[str, str]]:
        return [("loss", f"{num_classes} are too few.")] if num_classes < 3 else []


def test_a_step_may_refuse_a_number_of_classes() -> None:
    assert told(class_errors(with_steps(Picky(method="x")), 2)) == [("/steps/0/loss", "CLASSES_UNSUITABLE")]
    assert class_errors(with_steps(Picky(method="x")), 3) == []


@pytest.fixture
def table(sqlite_service: Service) -> str:
    """A registered teacher that is a table."""
    report = {**teacher_report(["cat", "dog"]), "soft_labels": {"rows": 3, "kind": "logits"}}
    report |= {"parameters": 0, "macs": 0, "preprocessing": None, "architecture": None}
    sqlite_service.worker.answers["teacher"] = lambda spec: {"artifact_sha256": "a" * 64, "report": report}
    return sqlite_service.teacher()


def test_a_job_with_a_table_is_planned(sqlite_service: Service, table: str) -> None:
    """Refused where a network is needed; otherwise resolved, and the plan says what kind of teacher it is."""
    body = {"teachers": [table], "dataset": sqlite_service.dataset(), "steps": [{"method": "quantize"}]}
    refused = sqlite_service.client.post("/v1/jobs", json=body)
    assert told(refused.json()["errors"]) == [("/steps/0", "TEACHER_IS_TABLE")]
    student = {"architecture": "student_net", "preprocessing": {"crop": 64}}
    body["steps"] = [{"method": "distill", "student": student}, {"method": "quantize"}]
    answer = sqlite_service.client.post("/v1/jobs?validate_only=true", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["teachers"][0]["soft_labels"] == {"rows": 3, "kind": "logits"}
    assert [step["parameters"] for step in answer.json()["estimates"]] == [256_779, 256_779]


def test_what_only_doing_it_tells_is_not_estimated(sqlite_service: Service) -> None:
    """The teacher's own graph has its size; a part of its width has a size that is known later."""
    steps = [
        {**STUDENT, "student": student}
        for student in (
            "teacher",
            {"teacher": 0, "width": 0.5},
            "previous",
            {"teacher": 0, "budget": {"bytes": 9_000}},
            {"architecture": "student_net", "width": 0.5},
        )
    ]
    answer = sqlite_service.client.post(
        "/v1/jobs?validate_only=true", json=sqlite_service.job_spec(steps=steps)
    )
    assert answer.status_code == 200, answer.text
    assert [step["parameters"] for step in answer.json()["estimates"]] == [11_000_000, *[None] * 4]
    assert [step["weight_bytes"] for step in answer.json()["estimates"]] == [44_000_000, *[None] * 4]
