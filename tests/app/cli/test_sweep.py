"""`fewbytes sweep`, `presets` and `compare`."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from app.db import reading
from app.tables import Job, Sweep
from tests.app.cli.conftest import Fewbytes
from tests.app.conftest import Service

SWEEP = """\
name: alphas
job: {teachers: [big], dataset: food, steps: [{method: distill, student: student_net}]}
axes:
- {field: /steps/0/alpha, values: [0, 0.5]}
"""


@pytest.fixture
def spec(sqlite_service: Service, tmp_path: Path) -> Path:
    sqlite_service.teacher(name="big")
    sqlite_service.dataset(name="food")
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def finish_all(service: Service, sweep_id: str) -> list[str]:
    with reading() as session:
        waiting = select(Job.id).where(Job.sweep_id == sweep_id).order_by(Job.created_at, Job.id)
        ids = list(session.scalars(waiting))
    for job_id in ids:
        service.worker.finish(job_id)
    return ids


def test_a_sweep_runs_to_its_table(fewbytes: Fewbytes, spec: Path, sqlite_service: Service) -> None:
    """Without a terminal: a line when the counts change, then a row a job."""
    made = fewbytes("sweep", spec)
    sweep_id = made.stdout.split()[0]
    assert made.stdout == f"{sweep_id} queued: 2 jobs\n"
    assert f"fewbytes watch {sweep_id}" in made.stderr
    finish_all(sqlite_service, sweep_id)
    done = fewbytes("watch", sweep_id)
    assert done.exit_code == 0, done.stderr
    assert f"{sweep_id} (alphas) succeeded: 2 succeeded" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines()[-2:]] == ["0", "0.5"]
    assert "(alphas) succeeded: 2 succeeded" in fewbytes("get", sweep_id).stdout
    assert sweep_id in fewbytes("list", "sweeps").stdout
    assert "2 of 2" in fewbytes("list", "sweeps").stdout


def test_fields_are_set_and_names_are_resolved(fewbytes: Fewbytes, spec: Path) -> None:
    done = fewbytes("sweep", spec, "-q", "--set", "seeds=2", "--set", "axes.0.values=[0.1, 0.2, 0.3]")
    assert done.exit_code == 0, done.stderr
    with reading() as session:
        sweep = session.get(Sweep, done.stdout.strip())
        assert sweep is not None
        jobs = list(session.scalars(select(Job).where(Job.sweep_id == sweep.id)))
    assert len(jobs) == 6
    assert sorted({job.spec["steps"][0]["alpha"] for job in jobs}) == [0.1, 0.2, 0.3]
    assert all(job.spec["dataset"].startswith("dst_") for job in jobs)


def test_a_plan_says_how_many_jobs(fewbytes: Fewbytes, spec: Path) -> None:
    assert fewbytes("sweep", spec, "--validate").stdout.startswith("2 jobs")
    assert json.loads(fewbytes("sweep", spec, "--validate", "--json").stdout)["num_jobs"] == 2
    assert fewbytes("list", "sweeps", "-q").stdout == ""


def test_a_failed_or_cancelled_sweep_fails_the_command(fewbytes: Fewbytes, spec: Path) -> None:
    sweep_id = fewbytes("sweep", spec, "-q").stdout.strip()
    assert fewbytes("pause", sweep_id).stdout == f"{sweep_id} paused\n"
    assert fewbytes("resume", sweep_id).stdout == f"{sweep_id} queued\n"
    assert fewbytes("cancel", sweep_id).stdout == f"{sweep_id} cancelled\n"
    done = fewbytes("watch", sweep_id)
    assert done.exit_code == 1
    assert f"{sweep_id} was cancelled" in done.stderr


def test_a_preset_needs_a_name_teachers_and_photos(fewbytes: Fewbytes, spec: Path) -> None:
    done = fewbytes(
        *("sweep", "--preset", "alpha", "--teacher", "big", "--dataset", "food", "-q"),
        *("--option", "epochs=1", "--option", "seeds=1"),
    )
    assert done.exit_code == 0, done.stderr
    with reading() as session:
        sweep = session.get(Sweep, done.stdout.strip())
        assert sweep is not None
        assert (sweep.preset, sweep.spec["seeds"]) == ("alpha", 1)
    refused = fewbytes("sweep", "--preset", "alpha", "--teacher", "big")
    assert refused.exit_code == 2
    assert "/dataset" in refused.stderr
    refused = fewbytes("sweep", "--preset", "alhpa", "--teacher", "big", "--dataset", "food")
    assert refused.exit_code == 2
    assert "Did you mean alpha" in refused.stderr


def test_presets_are_shown(fewbytes: Fewbytes, spec: Path) -> None:
    assert "alpha" in fewbytes("presets", "-q").stdout.split()
    assert "alpha" in fewbytes("presets").stdout
    shown = fewbytes("presets", "alpha").stdout
    assert "epochs" in shown
    assert "The report found:" in shown
    refused = fewbytes("presets", "alhpa")
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_a_preset_is_written_out_to_be_edited(fewbytes: Fewbytes, spec: Path, tmp_path: Path) -> None:
    written = fewbytes(
        "presets", "alpha", "--json", "--teacher", "big", "--dataset", "food", "--option", "seeds=1"
    )
    assert written.exit_code == 0, written.stderr
    path = tmp_path / "alpha.json"
    path.write_text(written.stdout)
    assert fewbytes("sweep", path, "-q", "--set", "job.steps.0.epochs=1").exit_code == 0


def test_a_job_spec_is_no_sweep_and_the_other_way_round(
    fewbytes: Fewbytes, spec: Path, tmp_path: Path
) -> None:
    refused = fewbytes("submit", spec)
    assert refused.exit_code == 2
    assert "fewbytes sweep takes it" in refused.stderr
    job = tmp_path / "job.yaml"
    job.write_text("steps: []")
    refused = fewbytes("sweep", job)
    assert refused.exit_code == 2
    assert "fewbytes submit takes it" in refused.stderr


def test_jobs_and_sweeps_are_compared_in_every_format(
    fewbytes: Fewbytes, spec: Path, sqlite_service: Service
) -> None:
    sweep_id = fewbytes("sweep", spec, "-q").stdout.strip()
    jobs = finish_all(sqlite_service, sweep_id)
    for ids in (jobs, [sweep_id]):
        shown = fewbytes("compare", *ids)
        assert shown.exit_code == 0, shown.stderr
        assert shown.stdout.count("succeeded") >= 2
        table = fewbytes("compare", *ids, "--format", "csv").stdout.splitlines()
        assert table[0].startswith("job_id,point,")
        assert [line.split(",")[0] for line in table[1:]] == jobs
        markdown = fewbytes("compare", *ids, "--format", "md").stdout.splitlines()
        assert markdown[1].startswith("| --")
        assert len(json.loads(fewbytes("compare", *ids, "--format", "json").stdout)["rows"]) == 2
    refused = fewbytes("compare", jobs[0])
    assert refused.exit_code == 2
    assert "job" in refused.stderr


def test_a_sweep_is_fetched_by_suffix(fewbytes: Fewbytes, spec: Path, tmp_path: Path) -> None:
    sweep_id = fewbytes("sweep", spec, "-q").stdout.strip()
    for name, begins in (("t.csv", b"job_id,"), ("t.parquet", b"PAR1"), ("t.json", b"{")):
        assert fewbytes("get", sweep_id, "-o", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
