"""The contract over all presets: each expands, at any length, into a sweep that the service takes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app import presets
from app.db import reading
from app.errors import Problem
from app.planning.plans import resolve
from app.presets.base import Preset
from app.sweeps.points import grid, jobs_at
from tests.app.conftest import Service

NAMES = sorted(presets.PRESETS)
EXPERIMENTS = {
    "alpha",
    "architectures",
    "bits",
    "budgets",
    "distillation_table",
    "finetune_epochs",
    "prune_at_most",
    "pruning_rates",
    "recommended",
    "recoveries",
    "regularisation",
    "same_size",
    "taylor",
    "unit_by_unit",
}
PAGE = (Path(__file__).parents[3] / "docs" / "presets.md").read_text(encoding="utf-8")
SPECS = re.findall(r"--json '(\{\"preset\".*?\})'$", PAGE, re.MULTILINE)


def expanded(name: str, **options: Any) -> dict[str, Any]:
    spec = presets.expand(name, presets.placeholders(name), "dst_photos", options)
    return spec.model_dump(mode="json", exclude_unset=True)


def values_of(spec: dict[str, Any], axis: str) -> list[Any]:
    (found,) = [one for one in spec["axes"] if one["name"] == axis]
    return found.get("values") or [point["name"] for point in found["points"]]


def test_every_experiment_is_there() -> None:
    """By its name."""
    assert set(presets.PRESETS) == EXPERIMENTS


@pytest.mark.parametrize("name", NAMES)
class TestEveryPreset:
    def test_it_says_what_it_is(self, name: str) -> None:
        """A title, a question, what the report found; its file has its name."""
        kind = presets.find(name)
        assert (kind.__doc__ or "").splitlines()[0].endswith(".")
        assert kind.ASKS.endswith("?")
        assert kind.FOUND.endswith(".")
        assert kind.ROWS
        assert kind.__module__ == f"app.presets.{name}"

    def test_its_short_values_are_options(self, name: str) -> None:
        """They pass its own rules and differ from the defaults."""
        kind = presets.find(name)
        short = kind.model_validate({"short": True})
        for option, value in kind.SHORT.items():
            assert getattr(short, option) == value
            assert getattr(kind(), option) != value

    def test_what_is_given_wins_over_short(self, name: str) -> None:
        """Whatever else `short` fills in."""
        assert presets.find(name).model_validate({"short": True, "seeds": 7}).seeds == 7

    def test_seeds_and_image_size_arrive(self, name: str) -> None:
        """In the sweep, and in every student that has a size to choose."""
        spec = expanded(name, seeds=4, seed=11, image_size=48)
        assert (spec["seeds"], spec["job"]["seed"]) == (4, 11)
        assert re.search(r'"image_size": 48', json.dumps(spec))

    def test_its_teachers_are_counted(self, name: str) -> None:
        """None is too few for all of them; the sentence says how many it takes."""
        with pytest.raises(Problem) as caught:
            presets.expand(name, [], "dst_photos", {})
        assert caught.value.errors[0]["pointer"] == "/teachers"
        least, _ = presets.find(name).NUM_TEACHERS
        assert f"takes {least}" in caught.value.detail

    def test_an_unknown_option_is_named(self, name: str) -> None:
        """And the nearest one that it has."""
        with pytest.raises(Problem) as caught:
            presets.expand(name, presets.placeholders(name), "dst_photos", {"image_sise": 3})
        assert caught.value.status == 422
        (error,) = caught.value.errors
        assert error["pointer"] == "/options/image_sise"
        assert error["hint"] == "Did you mean image_size?"

    def test_it_is_on_the_page(self, name: str) -> None:
        """With the POST that runs it."""
        assert f"## `{name}`" in PAGE
        assert f'{{"preset": "{name}"' in PAGE

    @pytest.mark.parametrize("short", [True, False], ids=["short", "full"])
    def test_the_service_takes_it(self, sqlite_service: Service, name: str, short: bool) -> None:
        """Against registered teachers and photos: every point resolves."""
        body = request(sqlite_service, name, {"short": short})
        answer = sqlite_service.client.post("/v1/sweeps", params={"validate_only": "true"}, json=body)
        assert answer.status_code == 200, answer.text
        plan = answer.json()
        assert [child["error"] for child in plan["children"] if child["error"]] == []
        assert plan["warnings"] == []


def request(service: Service, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """As many registered teachers as it wants, and photos in 11 classes with all splits."""
    service.worker.know(names=[f"class {n}" for n in range(11)], splits=("train", "val", "test", "unlabeled"))
    teachers = [service.teacher(name=f"teacher {n}") for n in range(presets.find(name).NUM_TEACHERS[0])]
    return {"preset": name, "teachers": teachers, "dataset": service.dataset(), "options": options}


@pytest.mark.parametrize("text", SPECS)
def test_every_post_of_the_page_expands(text: str) -> None:
    """As it is written there."""
    body = json.loads(text.replace("…", "1"))
    presets.expand(body["preset"], body["teachers"], body["dataset"], body.get("options"))


def test_an_unknown_preset_is_refused_by_name() -> None:
    """404 where it is looked up, 422 where a sweep asks for it; the nearest names are told."""
    with pytest.raises(Problem) as looked_up:
        presets.find("alhpa")
    with pytest.raises(Problem) as asked:
        presets.expand("alhpa", ["tch_1"], "dst_1")
    assert (looked_up.value.status, asked.value.status) == (404, 422)
    assert asked.value.errors[0]["pointer"] == "/preset"
    assert "alpha" in looked_up.value.detail


def test_a_wrong_value_is_refused_at_its_option() -> None:
    """Not somewhere in the sweep that would have come of it."""
    with pytest.raises(Problem) as caught:
        presets.expand("alpha", ["tch_1"], "dst_1", {"alphas": [0, 1.5], "epochs": "many"})
    assert {error["pointer"] for error in caught.value.errors} == {"/options/alphas", "/options/epochs"}


@pytest.mark.parametrize("name", ["taylor", "unit_by_unit"])
def test_an_unknown_criterion_is_refused_at_its_option(name: str) -> None:
    """With those that there are."""
    with pytest.raises(Problem) as caught:
        presets.expand(name, ["tch_1"], "dst_1", {"criteria": ["l3"]})
    assert caught.value.errors[0]["pointer"] == "/options/criteria"
    assert "taylor_weight" in caught.value.detail


def test_a_value_that_is_named_twice_is_refused() -> None:
    """Points are named by their values."""
    with pytest.raises(Problem, match="named twice"):
        presets.expand("taylor", ["tch_1"], "dst_1", {"criteria": ["l2", "l2"]})


class TestTheReportsOwnExperiments:
    """What is special to one of them."""

    def test_alpha_compares_with_hard_labels(self) -> None:
        """Where they are among the points."""
        assert expanded("alpha")["baseline"] == {"alpha": 0}
        assert "baseline" not in expanded("alpha", alphas=[0.5, 0.8])

    def test_the_table_names_each_teacher_where_it_teaches(self) -> None:
        """E: alone, from A, from B; and from both when asked."""
        (axis,) = expanded("distillation_table", ensemble=True)["axes"]
        taught = {point["name"]: point["set"].get("/teachers") for point in axis["points"]}
        assert taught == {
            "student alone": None,
            "from teacher A": ["tch_first"],
            "from teacher B": ["tch_second"],
            "from both": ["tch_first", "tch_second"],
        }
        distilled = axis["points"][1]["set"]["/steps"][0]
        expected = {"temperature": 20, "alpha": 0.5, "learning_rate": 1e-3, "batch_size": 32, "epochs": 200}
        assert expected.items() <= distilled.items()

    def test_unlabelled_photos_are_a_kind_of_labels(self) -> None:
        """B14, where the data has such photos."""
        assert values_of(expanded("regularisation"), "labels") == ["hard", "soft"]
        assert len(values_of(expanded("regularisation", unlabeled=True), "labels")) == 3

    def test_the_exclusions_are_for_the_courses_network_alone(self) -> None:
        """Another network has no layers of these names."""
        of_course = expanded("pruning_rates")["job"]["steps"][1]["exclude"]
        assert of_course == ["cnn.0.*", "cnn.1.*", "cnn.2.*", "cnn.7.3"]
        assert expanded("pruning_rates", student="report/final")["job"]["steps"][1]["exclude"] == []

    def test_a_student_may_be_written_out(self) -> None:
        """As a step's own field."""
        student = {"architecture": "report/final", "width": 0.5}
        assert expanded("alpha", student=student)["job"]["steps"][0]["student"] == student

    def test_every_way_of_recovery_is_a_point(self) -> None:
        """F9: with weight rewinding to an epoch that was trained."""
        spec = expanded("recoveries", short=True)
        (axis,) = spec["axes"]
        rewind = next(point["set"] for point in axis["points"] if point["name"] == "weight_rewind")
        assert len(axis["points"]) == 8
        assert rewind["/steps/1/weights_from_epoch"] == 1

    def test_bits_share_one_network(self) -> None:
        """B7: 32 bits is the network itself, all others begin with the same step."""
        (axis,) = expanded("bits")["axes"]
        plans = [point["set"]["/steps"] for point in axis["points"]]
        assert len(plans[0]) == 1
        assert all(plan[0] == plans[0][0] for plan in plans)


def test_the_estimates_of_the_architectures_are_the_tables(sqlite_service: Service) -> None:
    """G: parameters of the full-size preset with 11 classes, before anything runs."""
    body = request(sqlite_service, "architectures", {})
    spec = presets.expand("architectures", body["teachers"], body["dataset"])
    with reading() as session:
        plans = [resolve(session, job) for job in jobs_at(spec, grid(spec))]
    counts = [plan.estimates[0]["parameters"] for plan in plans]
    assert counts == [242_203, 161_819, 239_899, 163_259, 166_139, 171_899, 243_323]


def test_presets_are_listed_with_what_they_need(sqlite_service: Service) -> None:
    """Name, question, options with their schema, cost at both lengths."""
    items = sqlite_service.client.get("/v1/presets").json()["items"]
    assert [item["name"] for item in items] == NAMES
    table = next(item for item in items if item["name"] == "distillation_table")
    assert table["teachers"] == {"min": 2, "max": 2}
    assert table["options"]["properties"]["temperature"]["default"] == 20
    assert "description" in table["options"]["properties"]["short"]
    assert table["cost"]["full"] == {"jobs": 9, "epochs": 3 * 3 * 200}


def test_one_preset_answers_a_sweep_to_edit(sqlite_service: Service) -> None:
    """With options and teachers from the query, exactly as POST takes it."""
    asked = {
        "teachers": "tch_mine",
        "dataset": "dst_mine",
        "option.alphas": "[0,1]",
        "option.student": "report/plain",
    }
    spec = sqlite_service.client.get("/v1/presets/alpha", params=asked).json()
    assert spec["axes"][0]["values"] == [0, 1]
    assert spec["job"]["teachers"] == ["tch_mine"]
    assert spec["job"]["steps"][0]["student"] == {"architecture": "report/plain"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/presets/alhpa", 404, "UNKNOWN_PRESET"),
        ("/v1/presets/alpha?option.epochs=none", 422, "INVALID_SPEC"),
        ("/v1/presets/alpha?option.epochs=1e999", 422, "INVALID_SPEC"),
        ("/v1/presets/distillation_table?teachers=tch_one", 422, "INVALID_SPEC"),
        ("/v1/presets/alpha?teachers=me", 422, "INVALID_PARAMETER"),
        ("/v1/presets/alpha?epochs=3", 400, "UNKNOWN_PARAMETER"),
    ],
)
def test_a_wrong_question_is_refused(sqlite_service: Service, path: str, status: int, code: str) -> None:
    """With the code that scripts match on."""
    answer = sqlite_service.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_preset_needs_no_more_than_its_class() -> None:
    """What it must say of itself is what `Preset` declares: a new one is a file."""
    for kind in presets.PRESETS.values():
        assert issubclass(kind, Preset)
        assert kind.NAME in NAMES
