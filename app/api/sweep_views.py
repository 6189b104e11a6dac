"""What callers see of sweeps."""

from typing import Any, Literal

from pydantic import BaseModel

from app.api.views import maybe_rfc3339
from app.db import rfc3339
from app.sweeps.planning import PlannedJob, PlannedSweep, spec_of_stage
from app.sweeps.reads import SweepSnapshot
from app.sweeps.submitting import shared_of

SweepState = Literal["queued", "running", "paused", "cancelling", "succeeded", "failed", "cancelled"]
_ROUTES = ("table", "summary", "pareto", "report", "cancel", "pause", "resume", "retry", "extend")


class Counts(BaseModel):
    """Jobs of the grid, one a point and seed. `infeasible`: what no attempt could do, a target below the smallest network,
    say; those that are being cancelled count as running."""

    queued: int
    running: int
    succeeded: int
    failed: int
    infeasible: int
    cancelled: int


class Shared(BaseModel):
    """`stage_jobs` do steps that several jobs begin with, `children_served` of them; `steps_saved`: the steps that the jobs
    name, less those that are done."""

    stage_jobs: int
    children_served: int
    steps_saved: int


class SweepProgress(BaseModel):
    """`fraction` of the estimated work; `eta_seconds`: as if nobody else had jobs; null: nobody can tell."""

    fraction: float
    eta_seconds: float | None


class SweepSummaryView(BaseModel):
    """`state`: what its jobs are doing. When all have ended: cancelled if one was, else failed if one failed or none
    succeeded."""

    id: str
    name: str | None
    preset: str | None
    labels: dict[str, str]
    state: SweepState
    paused: bool
    counts: Counts
    shared: Shared
    version: int
    created_at: str
    finished_at: str | None
    links: dict[str, str]


class SweepView(SweepSummaryView):
    """`version` grows with every change of the sweep and of its jobs, and is the ETag. `spec`: a preset's is written out."""

    spec: dict[str, Any]
    progress: SweepProgress


class PlannedJobView(BaseModel):
    """`error`: why it is infeasible; null: it can be tried."""

    point: int
    seed: int
    params: dict[str, Any]
    begun_steps: int
    error: dict[str, Any] | None


class PlannedStageView(BaseModel):
    """Steps that `served` jobs of the grid begin with; the first `begun_steps` of them are another stage's."""

    seed: int
    methods: list[str]
    begun_steps: int
    served: int


class SweepPlanView(BaseModel):
    """What `?validate_only=true` answers: the jobs that the sweep would have; nothing was stored.

    `num_jobs`: with those that do shared steps. `estimated_macs`: multiply-adds of all; null where only doing it tells.
    """

    spec: dict[str, Any]
    num_jobs: int
    children: list[PlannedJobView]
    stages: list[PlannedStageView]
    shared: Shared
    estimated_macs: float | None
    warnings: list[str]


def sweep_summary(found: SweepSnapshot) -> SweepSummaryView:
    return SweepSummaryView(**_fields(found))


def sweep_view(found: SweepSnapshot) -> SweepView:
    assert found.progress is not None
    progress = SweepProgress(**vars(found.progress))
    return SweepView(**_fields(found), spec=found.sweep.spec, progress=progress)


def _fields(found: SweepSnapshot) -> dict[str, Any]:
    sweep = found.sweep
    path = f"/v1/sweeps/{sweep.id}"
    links = {"self": path, "jobs": f"/v1/jobs?sweep={sweep.id}"}
    return {
        "id": sweep.id,
        "name": sweep.name,
        "preset": sweep.preset,
        "labels": sweep.labels,
        "state": found.state,
        "paused": sweep.paused,
        "counts": found.tally.counts,
        "shared": sweep.shared,
        "version": found.version,
        "created_at": rfc3339(sweep.created_at),
        "finished_at": maybe_rfc3339(sweep.finished_at),
        "links": links | {name: f"{path}/{name}" for name in _ROUTES},
    }


def plan_view(planned: PlannedSweep) -> SweepPlanView:
    shared = planned.shared
    begun = iter([shared.begun_steps(at) for at in range(len(planned.possible))])
    return SweepPlanView(
        spec=planned.spec.model_dump(mode="json"),
        num_jobs=len(planned.jobs) + len(shared.stages),
        children=[_planned_job(job, next(begun) if job.problem is None else 0) for job in planned.jobs],
        stages=[_planned_stage(planned, position) for position in range(len(shared.stages))],
        shared=Shared(**shared_of(planned)),
        estimated_macs=planned.estimated_macs,
        warnings=planned.warnings,
    )


def _planned_job(job: PlannedJob, begun_steps: int) -> PlannedJobView:
    return PlannedJobView(
        point=job.point.number,
        seed=job.spec.seed,
        params=job.point.params,
        begun_steps=begun_steps,
        error=None if job.problem is None else job.problem.body(),
    )


def _planned_stage(planned: PlannedSweep, position: int) -> PlannedStageView:
    stage, spec = planned.shared.stages[position], spec_of_stage(planned, position)
    return PlannedStageView(
        seed=spec.seed,
        methods=[step.method for step in spec.steps],
        begun_steps=stage.begun_steps,
        served=len(stage.members),
    )
