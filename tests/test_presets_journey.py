"""Two presets from one POST to their end, on the embedded default: tiny, but nothing is faked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gallery_page
from tests.service import Service, wait_for
from tests.test_methods_journey import registered, uploaded
from tests.worker import tiny

QUICK = {"epochs": 1, "seeds": 1, "image_size": tiny.SIDE}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("up") / "data", {})
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def ingredients(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("files")
    photos = uploaded(service, "photos.zip", tiny.write_photos(folder / "photos.zip").read_bytes())
    look = {
        "architecture": tiny.TEACHER,
        "preprocessing": tiny.PREPROCESSING,
        "class_names": list(tiny.CLASSES),
    }
    teacher = tiny.write_teacher(folder / "teacher.pt")
    file = uploaded(service, teacher.name, teacher.read_bytes())
    return {
        "teachers": [registered(service, "teachers", {"file": file, **look})],
        "dataset": registered(service, "datasets", {"file": photos}),
    }


def ended(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """The sweep, once all its jobs are over."""
    sweep = service.post("/v1/sweeps", body)
    where = sweep["links"]["self"]
    wait_for(lambda: service.get(where)["state"] in ("succeeded", "failed", "cancelled"), 200)
    found: dict[str, Any] = service.get(where)
    return found


def results(service: Service, sweep: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every job of the sweep that succeeded, by name."""
    items = service.get("/v1/jobs", sweep=sweep["id"])["items"]
    jobs = [service.get(item["links"]["self"]) for item in items if item["state"] == "succeeded"]
    return {job["name"]: job["result"] for job in jobs}


@pytest.fixture(scope="module")
def recommended(service: Service, ingredients: dict[str, Any]) -> dict[str, Any]:
    options = QUICK | {"budgets": [200_000, 108_000, 20_000], "recovery_epochs": 1}
    return ended(service, {"preset": "recommended", "options": options, **ingredients})


def test_alpha_runs_a_job_for_every_share(service: Service, ingredients: dict[str, Any]) -> None:
    """Each measured on the same photos."""
    options = QUICK | {"alphas": [0, 1], "train_fraction": 1}
    sweep = ended(service, {"preset": "alpha", "options": options, **ingredients})
    assert (sweep["state"], sweep["preset"]) == ("succeeded", "alpha")
    found = results(service, sweep)
    assert sorted(found) == ["alpha: alpha=0, seed 0", "alpha: alpha=1, seed 0"]
    digests = {result["splits"]["test"]["digest"] for result in found.values()}
    assert len(digests) == 1


def test_recommended_prunes_only_what_is_slightly_over(service: Service, recommended: dict[str, Any]) -> None:
    """One student for all sizes: kept whole, cut a little, and out of reach."""
    sweep = recommended
    assert (sweep["counts"]["succeeded"], sweep["counts"]["infeasible"]) == (2, 1)
    assert sweep["shared"]["stage_jobs"] == 1
    found = results(service, sweep)
    whole, cut = (found[f"recommended: budget_bytes={size}, seed 0"] for size in (200_000, 108_000))
    assert whole["stages"][2]["parameters"] == whole["stages"][1]["parameters"]
    assert 0.9 <= cut["stages"][2]["parameters"] / whole["stages"][1]["parameters"] < 1
    assert cut["stages"][-1]["size_bytes"] <= 108_000
    assert cut["passed"]
    # The same student, trained once.
    assert cut["stages"][1]["splits"] == whole["stages"][1]["splits"]


def test_the_gallery_keeps_what_it_showed(
    service: Service, recommended: dict[str, Any], tmp_path: Path
) -> None:
    """Report, table, picture and command, and one page over all of them."""
    presets = {preset["name"]: preset for preset in service.get("/v1/presets")["items"]}
    run = {
        "body": {"preset": "recommended"},
        "scale": "short",
        "seconds": 1,
        "machine": "2 cores",
        "photos": None,
        "splits": {"train": 48},
    }
    folder = tmp_path / "recommended"
    gallery_page.write(service.http, folder, presets["recommended"], recommended, run)
    gallery_page.write_index(tmp_path, list(presets.values()))
    assert {file.name for file in folder.iterdir()} == {
        "report.html",
        "report.md",
        "table.csv",
        "plot.svg",
        "command.txt",
        "run.json",
    }
    assert len((folder / "table.csv").read_text().splitlines()) == 1 + 3
    page = (tmp_path / "README.md").read_text()
    assert "(recommended/plot.svg)" in page
    assert "Infeasible (TARGET_UNREACHABLE): budget_bytes=20000." in page
    assert "1 shared training served 3 jobs" in page
