"""What may be said about bytes, and about how much is removed at most."""

import pytest
from pydantic import ValidationError

from app.spec.job import JobSpec
from app.spec.networks import Student
from app.spec.steps.prune import Prune


def make_prune(**fields) -> Prune:
    return Prune.model_validate({"method": "prune", **fields})


def test_a_budget_is_8_bits_unless_said_otherwise():
    assert Student(architecture="report/final", budget={"bytes": 100}).budget.bits == 8
    assert make_prune(target={"bytes": 100}).target.bits == 8
    assert make_prune(target={"macs": 100}).target.bits is None


@pytest.mark.parametrize("source", [{"architecture": "report/final"}, {"graph": {}}, {"teacher": 0}])
def test_every_student_with_new_weights_may_be_narrowed(source):
    assert Student(**source, width=0.5).width == 0.5
    assert Student(**source, budget={"bytes": 100, "bits": 16}).budget.bytes == 100


@pytest.mark.parametrize("fields", [{"target": {"bytes": 9}}, {"keep_rate": 0.5, "max_removed": 0.1}])
def test_a_resolved_spec_reads_as_itself(fields):
    spec = make_prune(**fields)
    assert Prune.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"previous": True, "width": 0.5}, "leave width out"),
        ({"previous": True, "budget": {"bytes": 9}}, "leave budget out"),
        ({"teacher": 0, "width": 0.5, "budget": {"bytes": 9}}, "only one of width and budget"),
        ({"teacher": 0, "budget": {"bytes": 9, "bits": 9}}, "budget.bits"),
        ({"teacher": 0, "budget": {"bytes": 0}}, "budget.bytes"),
    ],
)
def test_contradictions_of_a_student_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        Student(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": {"bytes": 9, "macs": 9}}, "macs and bytes"),
        ({"target": {"macs": 9, "bits": 8}}, "give bytes"),
        ({"keep_rate": 0.5, "max_removed": 0}, "max_removed"),
    ],
)
def test_contradictions_of_a_prune_step_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        make_prune(**fields)


def test_a_job_may_say_how_large_its_answer_should_be():
    job = {"teachers": ["tch_1"], "dataset": "dst_1", "steps": [{"method": "quantize"}]}
    assert JobSpec.model_validate(job).max_bytes is None
    assert JobSpec.model_validate({**job, "max_bytes": 300_000}).max_bytes == 300_000
