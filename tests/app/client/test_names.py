"""Teachers and data sets by name."""

from typing import Any

import pytest

from app.client import Client, FewbytesError
from app.client.names import Names
from tests.app.conftest import Service


@pytest.fixture
def ids(sqlite_service: Service) -> dict[str, str]:
    return {
        "big": sqlite_service.teacher(name="big"),
        "small": sqlite_service.teacher(name="small"),
        "food": sqlite_service.dataset(name="food"),
    }


def test_a_job_may_name_what_it_needs(client: Client, ids: dict[str, str]) -> None:
    spec = {"teachers": ["big", ids["small"]], "dataset": "food", "steps": []}
    assert Names(client).in_job(spec) == {
        "teachers": [ids["big"], ids["small"]],
        "dataset": ids["food"],
        "steps": [],
    }
    assert spec["teachers"][0] == "big"


def test_so_may_a_sweep_wherever_it_has_one(client: Client, ids: dict[str, str]) -> None:
    spec: dict[str, Any] = {
        "job": {"teachers": ["big"], "dataset": "food", "steps": []},
        "axes": [
            {"field": "/teachers", "values": [["big"], ["small", "big"]]},
            {"zip": [{"field": "/teachers/0", "values": ["small"]}, {"field": "/seed", "values": [3]}]},
            {"name": "p", "points": [{"name": "x", "set": {"/dataset": "food", "/name": "food"}}]},
            {"field": ["/dataset", "/steps/0/x"], "values": ["food"]},
        ],
    }
    found = Names(client).in_sweep(spec)
    big, small, food = ids["big"], ids["small"], ids["food"]
    assert found["job"] == {"teachers": [big], "dataset": food, "steps": []}
    assert found["axes"][0]["values"] == [[big], [small, big]]
    assert found["axes"][1]["zip"][0]["values"] == [small]
    assert found["axes"][1]["zip"][1]["values"] == [3]
    assert found["axes"][2]["points"][0]["set"] == {"/dataset": food, "/name": "food"}
    assert found["axes"][3]["values"] == [food]
    preset = {"preset": "alpha", "teachers": ["big"], "dataset": "food", "options": {"teachers": ["big"]}}
    assert Names(client).in_sweep(preset) == {
        "preset": "alpha",
        "teachers": [big],
        "dataset": food,
        "options": {"teachers": ["big"]},
    }


def test_a_name_that_two_have_is_refused_with_both_ids(
    client: Client, sqlite_service: Service, ids: dict[str, str]
) -> None:
    other = sqlite_service.teacher(name="big")
    with pytest.raises(FewbytesError, match="AMBIGUOUS_NAME") as caught:
        Names(client).id_of("teacher", "big")
    assert other in caught.value.detail
    assert ids["big"] in caught.value.detail


def test_a_name_that_nobody_has_is_refused(client: Client, ids: dict[str, str]) -> None:
    with pytest.raises(FewbytesError, match=r"NO_SUCH_NAME.*fewbytes list datasets"):
        Names(client).id_of("dataset", "big")


def test_what_was_refused_does_not_count_beside_what_was_not(client: Client, sqlite_service: Service) -> None:
    """Somebody tried, failed, and tried again under the same name."""
    from app.errors import Problem

    answers = dict(sqlite_service.worker.answers)
    sqlite_service.worker.answers["teacher"] = lambda spec: Problem(422, "BAD", "It is bad.")
    sqlite_service.upload("teacher.pt")
    spec = {"file": "teacher.pt", "name": "net"}
    with pytest.raises(FewbytesError, match="BAD: It is bad"):
        client.teachers.register(spec)
    rejected = Names(client).id_of("teacher", "net")
    assert client.teachers.get(rejected).state == "rejected"
    sqlite_service.worker.answers = answers
    ready = client.teachers.register(spec)
    assert Names(client).id_of("teacher", "net") == ready.id


@pytest.mark.parametrize(
    "spec", [None, 5, [], {"teachers": 5, "dataset": None}, {"job": 1, "axes": [1, {"zip": 3}]}]
)
def test_what_is_no_spec_is_left_to_the_service(client: Client, spec: Any) -> None:
    assert Names(client).in_job(spec) == spec
    assert Names(client).in_sweep(spec) == spec


def test_a_teacher_is_waited_for_until_it_was_looked_at(client: Client, sqlite_service: Service) -> None:
    sqlite_service.upload("photos.zip")
    row = client.datasets.register({"file": "photos.zip", "name": "x"})
    assert row.state == "ready"
    assert [image.path for image in client.datasets.all_images(row.id, split="train")] == [
        *("train/0.jpg", "train/1.jpg", "train/2.jpg")
    ]
    assert client.datasets.images_csv(row.id, split="test").startswith("path,label\ntest/0.jpg,cat")
