"""Sweeps, comparisons and presets through the client."""

from typing import Any

import pytest
from sqlalchemy import select

from app.client import Client, FewbytesError
from app.db import reading
from app.tables import Job
from tests.app.conftest import Service


@pytest.fixture
def spec(sqlite_service: Service) -> dict[str, Any]:
    return {
        "name": "alphas",
        "labels": {"team": "a"},
        "job": sqlite_service.job_spec(),
        "axes": [{"field": "/steps/0/alpha", "values": [0, 0.5]}],
        "seeds": 2,
    }


def finish_all(service: Service, sweep_id: str) -> list[str]:
    """End every job of the sweep that waits, as workers would."""
    with reading() as session:
        waiting = list(
            session.scalars(
                select(Job.id)
                .where(Job.sweep_id == sweep_id, Job.state == "queued")
                .order_by(Job.created_at, Job.id)
            )
        )
    for job_id in waiting:
        service.worker.finish(job_id)
    return waiting


def test_a_sweep_is_submitted_watched_and_read(
    client: Client, sqlite_service: Service, spec: dict[str, Any]
) -> None:
    sweep = client.sweeps.submit(spec)
    assert (sweep.state, sweep.counts.queued, sweep.name) == ("queued", 4, "alphas")
    assert [found.id for found in client.sweeps.all(labels={"team": "a"})] == [sweep.id]
    assert list(client.sweeps.all(labels={"team": "b"})) == []
    jobs = list(client.jobs.all(sweep=sweep.id))
    assert len(jobs) == 4
    assert {job.sweep_id for job in jobs} == {sweep.id}
    finish_all(sqlite_service, sweep.id)
    done = client.sweeps.wait(sweep.id)
    assert (done.state, done.counts.succeeded) == ("succeeded", 4)
    table = client.sweeps.table(sweep.id)
    assert [(row["alpha"], row["seed"]) for row in table.rows] == [(0, 0), (0, 1), (0.5, 0), (0.5, 1)]
    assert (
        client.sweeps.table_file(sweep.id)
        .decode()
        .splitlines()[0]
        .startswith("job_id,point,alpha,seed,state")
    )
    assert client.sweeps.table_file(sweep.id, format="parquet")[:4] == b"PAR1"
    assert client.sweeps.summary(sweep.id).metric in ("test_accuracy", "val_accuracy")
    assert client.sweeps.pareto(sweep.id, x="parameters", y="val_accuracy").x.name == "parameters"


def test_one_submission_is_one_sweep(client: Client, spec: dict[str, Any]) -> None:
    first = client.sweeps.submit(spec, idempotency_key="monday")
    assert client.sweeps.submit(spec, idempotency_key="monday").id == first.id
    assert client.sweeps.submit(spec).id != first.id


def test_a_plan_is_made_without_a_sweep(client: Client, spec: dict[str, Any]) -> None:
    plan = client.sweeps.validate(spec)
    assert [(child.params, child.seed) for child in plan.children] == [
        ({"alpha": 0}, 0),
        ({"alpha": 0}, 1),
        ({"alpha": 0.5}, 0),
        ({"alpha": 0.5}, 1),
    ]
    assert list(client.sweeps.all()) == []
    with pytest.raises(FewbytesError, match="INVALID_SPEC"):
        client.sweeps.validate(spec | {"seeds": 0})


def test_the_verbs_of_a_sweep(client: Client, sqlite_service: Service, spec: dict[str, Any]) -> None:
    sweep = client.sweeps.submit(spec)
    assert client.sweeps.pause(sweep.id).paused
    assert not client.sweeps.resume(sweep.id).paused
    assert client.sweeps.extend(sweep.id, seeds=3).counts.queued == 6
    assert client.sweeps.cancel(sweep.id).counts.cancelled == 6
    assert client.sweeps.retry(sweep.id).counts.queued == 6
    finish_all(sqlite_service, sweep.id)
    assert client.sweeps.get(sweep.id).state == "succeeded"
    client.sweeps.delete(sweep.id)
    with pytest.raises(FewbytesError, match="NOT_FOUND"):
        client.sweeps.get(sweep.id)


def test_jobs_are_compared(client: Client, sqlite_service: Service) -> None:
    jobs = [sqlite_service.job(name=name) for name in ("a", "b")]
    found = client.comparisons.compare(jobs, metric="val_accuracy")
    assert [row["job_id"] for row in found.rows] == jobs
    assert found.summary.metric == "val_accuracy"
    assert client.comparisons.compare_file(jobs).decode().startswith("job_id,point,job,")


def test_presets_are_shown_and_written_out(client: Client, sqlite_service: Service) -> None:
    presets = {preset.name: preset for preset in client.presets.list().items}
    assert presets["alpha"].teachers.min == 1
    teacher, dataset = sqlite_service.teacher(), sqlite_service.dataset()
    spec = client.presets.spec(
        "alpha", teachers=[teacher], dataset=dataset, options={"epochs": 2, "seeds": 1}
    )
    assert spec["job"]["teachers"] == [teacher]
    assert spec["job"]["dataset"] == dataset
    assert spec["job"]["steps"][0]["epochs"] == 2
    assert client.sweeps.validate(spec).num_jobs >= 2


def test_a_job_has_a_report(client: Client, sqlite_service: Service) -> None:
    job_id = sqlite_service.job(name="mine")
    assert "<html" in client.reports.job(job_id)
    assert "mine" in client.reports.job(job_id, format="md")
    with pytest.raises(FewbytesError, match="NO_SUCH_PLOT"):
        client.reports.job_plot(job_id, "nothing.svg")
    plots = client.reports.job_plots(job_id).items
    assert all(client.reports.job_plot(job_id, f"{plot.name}.svg").startswith(b"<") for plot in plots)
