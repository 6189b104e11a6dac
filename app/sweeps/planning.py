"""A sweep resolved and checked before anything of it is stored: every job, what it costs, what is trained once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Problem
from app.planning import plans
from app.planning.plans import Plan
from app.reuse import result_key
from app.spec.job import JobSpec
from app.spec.sweep import SweepSpec
from app.sweeps.infeasible import INFEASIBLE
from app.sweeps.points import Errors, GridPoint, grid, jobs_at, located, refusal, seeds_of
from app.sweeps.stages import Tree, tree
from app.tables import SUCCEEDED, Dataset, Job, Teacher

_NAME_CHARACTERS = 200
_MAX_LABELS = 32
_KEYS_AT_ONCE = 500


@dataclass(frozen=True)
class PlannedJob:
    """`step_macs`: multiply-adds of each step; None where only doing it tells. `problem`: why it cannot be. `reuses`: there
    is an earlier job whose result it asked to have."""

    point: GridPoint
    spec: JobSpec
    step_macs: list[float | None]
    result_key: str | None
    problem: Problem | None
    reuses: bool = False


@dataclass(frozen=True)
class PlannedSweep:
    """`spec`: with its defaults filled in. `shared`: over those of the `jobs` that can be, in their order."""

    spec: SweepSpec
    jobs: list[PlannedJob]
    shared: Tree
    warnings: list[str]

    @property
    def possible(self) -> list[PlannedJob]:
        return [job for job in self.jobs if job.problem is None]

    def own_macs(self) -> list[float | None]:
        """What each of the possible jobs does itself, less what it begins with."""
        return [macs(job.step_macs, self.shared.begun_steps(at)) for at, job in enumerate(self.possible)]

    def stage_macs(self) -> list[float | None]:
        return [
            macs(self.possible[stage.members[0]].step_macs, stage.begun_steps, stage.num_steps)
            for stage in self.shared.stages
        ]

    @property
    def estimated_macs(self) -> float | None:
        return macs([*self.own_macs(), *self.stage_macs()])


def macs(steps: Sequence[float | None], begin: int = 0, end: int | None = None) -> float | None:
    """The sum of these, None when one of them is not known."""
    known = [step for step in steps[begin:end] if step is not None]
    return sum(known) if len(known) == len(steps[begin:end]) else None


def plan(session: Session, spec: SweepSpec, *, max_jobs: int, first_seed: int = 0) -> PlannedSweep:
    """All jobs of the sweep; with `first_seed` only those of the seeds from that position on.

    Raises Problem 422: SWEEP_TOO_LARGE; INVALID_SPEC that names axis and point of all that is wrong; JOB_TOO_LARGE.
    """
    check_size(spec, max_jobs)
    points = grid(spec)
    jobs = jobs_at(spec, points)
    # A session forgets rows that nobody holds, and every point asks for them again.
    held = [session.get(table, ident) for table, ident in _named_rows(jobs)]
    planned: list[PlannedJob] = []
    warnings: dict[str, None] = {}
    errors: Errors = []
    has_test = True
    for point, job in zip(points, jobs, strict=True):
        errors += _label_errors(spec, job)
        found = _resolved(session, point, job)
        if isinstance(found, list):
            errors += found
            continue
        if isinstance(found, Plan):
            warnings |= dict.fromkeys(found.warnings)
            has_test = has_test and "test" in found.dataset["num_images"]
        if not errors:
            planned += _with_seeds(session, spec, point, job, found, first_seed)
    if errors:
        raise refusal(errors)
    if spec.metric is None:
        spec = spec.model_copy(update={"metric": "test_accuracy" if has_test else "val_accuracy"})
    planned = _with_reused(session, planned)
    del held
    possible = [job for job in planned if job.problem is None]
    shared = tree([job.spec for job in possible], alone={at for at, job in enumerate(possible) if job.reuses})
    return PlannedSweep(spec, planned, shared, list(warnings))


def _named_rows(jobs: Sequence[JobSpec]) -> set[tuple[Any, str]]:
    teachers = {(Teacher, ident) for job in jobs for ident in job.teachers}
    return teachers | {(Dataset, job.dataset) for job in jobs}


def check_size(spec: SweepSpec, max_jobs: int) -> None:
    wanted = spec.num_points * spec.seeds
    if wanted > max_jobs:
        raise Problem(
            422,
            "SWEEP_TOO_LARGE",
            f"{spec.num_points} points with {spec.seeds} seeds are {wanted} jobs, and a sweep may have {max_jobs} here: "
            "take fewer values or seeds, zip axes that belong together, or POST several sweeps.",
        )


def _resolved(session: Session, point: GridPoint, job: JobSpec) -> Plan | Problem | Errors:
    """The plan; the one problem of a job that cannot be; what is wrong with the sweep. Raises JOB_TOO_LARGE."""
    try:
        return plans.resolve(session, job)
    except Problem as problem:
        if problem.code != "INVALID_SPEC":
            detail = (
                f"At point {point.number} ({point.title}): {problem.detail}"
                if point.params
                else problem.detail
            )
            errors = located(point, problem)
            raise Problem(problem.status, problem.code, detail, errors=errors) from problem
        codes = {error["code"] for error in problem.errors}
        if codes <= INFEASIBLE:
            first: str = problem.errors[0]["code"]
            return Problem(422, first, problem.detail, errors=problem.errors)
        return located(point, problem)


def _label_errors(spec: SweepSpec, job: JobSpec) -> Errors:
    labels = spec.labels | job.labels
    if len(labels) <= _MAX_LABELS:
        return []
    detail = f"With those of its jobs the sweep has {len(labels)} labels, and a job may have {_MAX_LABELS}."
    return [{"pointer": "/labels", "code": "TOO_MANY_LABELS", "detail": detail, "hint": "Leave some out."}]


def _with_seeds(
    session: Session, spec: SweepSpec, point: GridPoint, job: JobSpec, found: Plan | Problem, first_seed: int
) -> list[PlannedJob]:
    step_macs = [estimate["job_macs"] for estimate in found.estimates] if isinstance(found, Plan) else []
    problem = None if isinstance(found, Plan) else found
    return [
        PlannedJob(
            point,
            _named(spec, point, seeded),
            step_macs,
            _result_key(session, seeded) if problem is None else None,
            problem,
        )
        for seeded in seeds_of(job, first_seed, spec.seeds)
    ]


def _result_key(session: Session, job: JobSpec) -> str:
    """Teacher and data set are in the session: they were resolved just now."""
    teachers = [session.get_one(Teacher, ident) for ident in job.teachers]
    return result_key(job, teachers, session.get_one(Dataset, job.dataset))


def _with_reused(session: Session, planned: list[PlannedJob]) -> list[PlannedJob]:
    """Those marked that asked for an earlier result, where there is one: nothing is trained for them."""
    asked = [job.result_key for job in planned if job.spec.reuse_result and job.result_key is not None]
    there: set[str | None] = set()
    for first in range(0, len(asked), _KEYS_AT_ONCE):
        some = Job.result_key.in_(asked[first : first + _KEYS_AT_ONCE])
        there |= set(session.scalars(select(Job.result_key).where(some, Job.state == SUCCEEDED)))
    return [replace(job, reuses=job.spec.reuse_result and job.result_key in there) for job in planned]


def _named(spec: SweepSpec, point: GridPoint, job: JobSpec) -> JobSpec:
    about = ", ".join(filter(None, [point.title, f"seed {job.seed}"]))
    # After the sweep, or after the job as the caller called it.
    name = _titled(spec.name or job.name, about)
    return job.model_copy(update={"name": name, "labels": spec.labels | job.labels})


def _titled(prefix: str | None, about: str) -> str:
    title = ": ".join(filter(None, [prefix, about]))
    return title if len(title) <= _NAME_CHARACTERS else title[: _NAME_CHARACTERS - 1] + "…"


def spec_of_stage(planned: PlannedSweep, position: int) -> JobSpec:
    """The job that does the steps of a stage for all its members."""
    stage = planned.shared.stages[position]
    members = [planned.possible[member].spec for member in stage.members]
    first = members[0]
    numbers = "step 1" if stage.num_steps == 1 else f"steps 1 to {stage.num_steps}"
    return first.model_copy(
        update={
            "name": _titled(planned.spec.name, f"shared {numbers}, seed {first.seed}"),
            "steps": first.steps[: stage.num_steps],
            "exports": [],
            "max_bytes": None,
            "max_accuracy_drop": None,
            "max_latency_ms": None,
            "reuse_result": False,
            "priority": max(member.priority for member in members),
            "memory_bytes": _most([member.memory_bytes for member in members], none=0),
            "deadline_seconds": _most([member.deadline_seconds for member in members], none=float("inf")),
        }
    )


def _most(values: Sequence[Any], *, none: float) -> Any:
    """The largest; `none` is what None stands for."""
    return max(values, key=lambda value: none if value is None else value)
