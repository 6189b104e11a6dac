"""docs/methods.md promises: every spec on it is read by the schema, every test and file it names is there."""

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from app.planning import architectures
from app.spec.steps import AnyStep

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
SPECS = re.findall(r'`(\{"method".*?\})`', PAGE)
REFERENCES = sorted(set(re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py(?:::\w+)?)`", PAGE)))
ROWS = [
    *(f"A{n}" for n in range(1, 7)),
    *(f"B{n}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17)),
    *(f"C{n}" for n in range(1, 5)),
    *(f"D{n}" for n in range(1, 9)),
    *(f"F{n}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)),
    *(f"G{n}" for n in (2, 3, 5, 6, 8, 9)),
]


@pytest.mark.parametrize("text", SPECS)
def test_the_service_reads_every_spec(text):
    step = TypeAdapter(AnyStep).validate_python(json.loads(text))
    student = getattr(step, "student", None)
    if student is not None and student.architecture is not None:
        assert architectures.errors_in(student, "") == []


@pytest.mark.parametrize("reference", REFERENCES)
def test_what_is_named_exists(reference):
    path, _, test = reference.partition("::")
    assert (ROOT / path).is_file()
    assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")


def test_every_row_of_the_report_is_on_the_page():
    missing = [row for row in ROWS if not re.search(rf"\b{row}\b", PAGE)]
    assert not missing
