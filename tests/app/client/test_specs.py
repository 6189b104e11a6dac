"""Specs in files."""

import json
from typing import Any

import pytest
import yaml

from app.client import specs
from app.client.specs import SpecError, read_spec, set_field

JOB = """\
name: small       # a comment
teachers: [tch_a, tch_b]
dataset: dst_a
steps:
  - method: distill
    alpha: 0.8
    lr: 1e-3
    student: {architecture: report/final, width: 1}
    labels: [no, on, 2026-01-31, 010, 1:30, 0x1f, .inf, "5", yes, ~, null, true, -3, -0.5, "", 1_000]
    none:
"""


def test_yaml_means_what_json_would() -> None:
    """Numbers that JSON has are numbers, and what YAML 1.1 takes for dates, octals, sexagesimals and truth is text."""
    found = read_spec(JOB.encode(), "job.yaml")
    assert found["steps"][0] == {
        "method": "distill",
        "alpha": 0.8,
        "lr": 0.001,
        "student": {"architecture": "report/final", "width": 1},
        "labels": [
            *("no", "on", "2026-01-31", "010", "1:30", "0x1f", ".inf", "5", "yes"),
            *(None, None, True, -3, -0.5, "", "1_000"),
        ],
        "none": None,
    }
    # What there is of YAML's own reading would differ in many of these.
    assert yaml.safe_load(JOB)["steps"][0]["labels"] != found["steps"][0]["labels"]


def test_every_json_document_is_the_same_in_yaml() -> None:
    document = {"a": [1, 2.5, 1e-9, -0.0, True, None, "x", "ünï", {"b": {}}, []], "c": "1", "d": "null"}
    text = json.dumps(document, indent=1)
    assert read_spec(text.encode(), "x.yaml") == read_spec(text.encode(), "x.json") == document


@pytest.mark.parametrize(("text", "is_json"), [('{"a": 1}', True), ("a: 1", False), ("\ufeff\n [1]", True)])
def test_standard_input_is_json_where_it_begins_like_json(text: str, is_json: bool) -> None:
    found = read_spec(text.encode(), "standard input")
    assert found == ([1] if "[" in text else {"a": 1})
    with pytest.raises(SpecError, match="not JSON" if is_json else "not YAML"):
        read_spec((text + "\n}: [").encode(), "standard input")


def test_aliases_and_merges_are_written_out() -> None:
    text = """\
base: &base {method: train, epochs: 5}
steps:
  - *base
  - {<<: *base, epochs: 9}
  - <<: [{epochs: 1, lr: 2}, *base]
"""
    assert read_spec(text.encode(), "x.yaml")["steps"] == [
        {"method": "train", "epochs": 5},
        {"method": "train", "epochs": 9},
        {"method": "train", "epochs": 1, "lr": 2},
    ]


LAUGHS = "a0: &a0 [x, x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))
MERGED = "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.yaml", "a: [1\nb: 2", "x.yaml: line 2, column"),
        ("x.yaml", "a: 1\nb: !!python/object:os.system 1", "line 2: the tag"),
        ("x.yaml", "a: !!timestamp 2026-01-31", "line 1: the tag"),
        ("x.yaml", "a: 1\nc: 2\na: 3", "line 3: the field 'a' is given twice"),
        ("x.yaml", "a: 1\n---\nb: 2", "line 2"),
        ("x.yaml", "a: &a [*a]", "line 1: it contains itself"),
        ("x.yaml", "? [1, 2]\n: 3", "line 1: a field's name is text"),
        ("x.yaml", "a: 1e999", "line 1: '1e999' is no number"),
        ("x.yaml", f"a: {'9' * 5000}", "line 1: '9999"),
        ("x.yaml", "a: {<<: 5}", "line 1: `<<` merges an object"),
        ("x.yaml", "a: !!int x", "line 1: 'x' is no number"),
        ("x.yaml", "a: \x07", "not YAML"),
        ("x.yaml", "", "it is empty"),
        ("x.yaml", "# only this", "it is empty"),
        ("x.yaml", LAUGHS, "its aliases make more than 100000 values"),
        ("x.yaml", MERGED, "its aliases make more than 100000 values"),
        ("x.yaml", "[" * 5000, "nested too deeply"),
        ("x.json", "[" * 100_000, "nested too deeply"),
        ("x.json", '{"a": 1,\n "b": }', "x.json: line 2, column 7: not JSON"),
        ("x.json", '{"a": 1, "a": 2}', "the field 'a' is given twice"),
        ("x.json", '{"a": NaN}', "NaN is no number"),
        ("x.json", '{"a": 1e999}', "1e999 is no number"),
        ("x.json", "", "not JSON"),
    ],
)
def test_what_is_no_spec_is_refused_with_its_line(name: str, text: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_spec(text.encode(), name)
    assert said in str(refused.value)


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(SpecError, match="is not UTF-8 text: byte 0"):
        read_spec(b"\xff\xfe", "x.yaml")
    with pytest.raises(SpecError, match="a spec may have"):
        read_spec(b" " * (specs.MAX_BYTES + 1), "x.yaml")


SPEC = {"name": "a", "steps": [{"method": "distill", "student": {"width": 1}}, {"method": "quantize"}]}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("name=b", ["name"], "b"),
        ("seed=7", ["seed"], 7),
        ("steps.0.alpha=0.5", ["steps", 0, "alpha"], 0.5),
        ("/steps/0/alpha=5e-1", ["steps", 0, "alpha"], 0.5),
        ("steps.0.student.width=2", ["steps", 0, "student", "width"], 2),
        ("steps.0.student=report/final", ["steps", 0, "student"], "report/final"),
        ("steps.1={}", ["steps", 1], {}),
        ('labels={"a": "b=c"}', ["labels"], {"a": "b=c"}),
        ("name=a=b", ["name"], "a=b"),
        ("name=true", ["name"], True),
        ("name=NaN", ["name"], "NaN"),
        ("name=", ["name"], ""),
    ],
)
def test_one_field_is_set(assignment: str, path: list[Any], value: Any) -> None:
    found: Any = set_field(SPEC, assignment)
    for part in path:
        found = found[part]
    assert found == value
    assert SPEC["name"] == "a"  # the spec that was given stays


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("name", "give FIELD=VALUE"),
        ("=1", "give FIELD=VALUE"),
        ("steps.2.alpha=1", "'2' is none of its 2 places"),
        ("steps.x=1", "'x' is none of its 2 places"),
        ("nothing.alpha=1", "there is no 'nothing' to set something in. There is: name, steps"),
        ("name.alpha=1", "there is no 'alpha'"),
    ],
)
def test_what_cannot_be_set_is_said(assignment: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        set_field(SPEC, assignment)
    assert said in str(refused.value)
