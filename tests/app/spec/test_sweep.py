"""What a sweep's spec takes, and what it says of what it does not."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.spec.sweep import SweepPreset, SweepRequest, SweepSpec

JOB: dict[str, Any] = {"teachers": ["tch_1"], "dataset": "dst_1", "steps": []}


def spec(*axes: Any, **more: Any) -> SweepSpec:
    return SweepSpec.model_validate({"job": JOB, "axes": list(axes), **more})


def test_an_axis_is_called_as_its_field_is() -> None:
    """The last part that is no number; of several fields, the first one's."""
    found = spec(
        {"field": "/steps/0/alpha", "values": [0]},
        {"field": "/teachers/0", "values": ["tch_2"]},
        {"field": ["/steps/0/epochs", "/steps/1/training/epochs"], "values": [1]},
        {"name": "own", "field": "/seed", "values": [1]},
    )
    assert [axis.columns for axis in found.axes] == [["alpha"], ["teachers"], ["epochs"], ["own"]]


def test_a_spec_that_was_stored_is_the_same_spec() -> None:
    """Names that were filled in are there."""
    made = spec(
        {"field": "/steps/0/alpha", "values": [0, 0.5]},
        {"zip": [{"field": "/a", "values": [1]}, {"field": "/b", "values": [None]}]},
        {"name": "plan", "points": [{"name": "one", "set": {"/steps": []}}]},
        seeds=3,
        baseline={"alpha": 0},
    )
    stored = made.model_dump(mode="json")
    assert stored["axes"][0]["name"] == "alpha"
    assert SweepSpec.model_validate(stored) == made


def test_the_number_of_points_is_the_product() -> None:
    assert spec().num_points == 1
    zipped = {"zip": [{"field": "/a", "values": [1, 2]}, {"field": "/b", "values": [1, 2]}]}
    assert spec({"field": "/c", "values": [1, 2, 3]}, zipped).num_points == 6


@pytest.mark.parametrize(
    ("axes", "more", "says"),
    [
        ([{"field": "/a", "values": [1]}, {"field": "/b/a", "values": [1]}], {}, "two axes are called 'a'"),
        ([{"field": "/a", "values": [1, 1]}], {}, "each point is run once"),
        ([{"field": "/a/9", "values": [1], "name": "9"}], {}, "should match pattern"),
        ([{"field": "/conv*", "values": [1]}], {}, "give it a name"),
        ([{"field": "a", "values": [1]}], {}, "should match pattern"),
        ([{"field": "/a", "values": []}], {}, "at least 1 item"),
        (
            [{"zip": [{"field": "/a", "values": [1]}, {"field": "/b", "values": [1, 2]}]}],
            {},
            "they have 1, 2 values",
        ),
        ([{"field": "/a", "values": [1, 2]}], {"baseline": {"b": 1}}, "there is a"),
        ([{"field": "/a", "values": [1, 2]}], {"baseline": {"a": 3}}, "no point has"),
        ([{"field": "/a", "values": [1, 2]}], {"baseline": {}}, "fits 2 points"),
        ([], {"metric": "happiness"}, "Input should be"),
        ([], {"seeds": 0}, "greater than or equal to 1"),
        ([], {"max_concurrent": 0}, "greater than or equal to 1"),
        ([], {"axis": []}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(axes: list[Any], more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match="(?s).*" + says):
        spec(*axes, **more)


def test_the_baseline_is_one_point() -> None:
    """Named by one value of every axis that has more than one."""
    axes = [{"field": "/a", "values": [1, 2]}, {"field": "/b", "values": [5]}]
    assert spec(*axes, baseline={"a": 2}).baseline == {"a": 2}
    zipped = {"zip": [{"field": "/a", "values": [1, 2]}, {"field": "/b", "values": [3, 4]}]}
    assert spec(zipped, baseline={"b": 4}).baseline == {"b": 4}
    with pytest.raises(ValidationError, match="no point has"):
        spec(zipped, baseline={"a": 1, "b": 4})


def test_a_request_is_a_spec_or_a_preset() -> None:
    """Told apart by the field `preset`."""
    request: TypeAdapter[Any] = TypeAdapter(SweepRequest)
    assert isinstance(request.validate_python({"job": JOB}), SweepSpec)
    asked = {"preset": "alpha", "teachers": ["tch_1"], "dataset": "dst_1"}
    assert isinstance(request.validate_python(asked), SweepPreset)
    with pytest.raises(ValidationError, match="job"):
        request.validate_python(asked | {"job": JOB})
    for nothing in (None, [], "alpha", 7):
        with pytest.raises(ValidationError):
            request.validate_python(nothing)
