"""What the analysis asks the database: of each result, which may have megabytes, only the numbers that a table shows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, defer
from sqlalchemy.sql.functions import FunctionElement

from app.analysis.columns import Kind
from app.analysis.table import Row, rows
from app.errors import not_found
from app.sweeps.reads import Child, state_of
from app.tables import Job, Json, Metric

BEST_EPOCHS = "best_k_mean_accuracy_optimistic"
"""The worker's name for the mean of a step's best epochs (k is the step's best_k)."""

_PICKED: Sequence[tuple[str, ...]] = [
    *(("step",), ("method",), ("splits",), ("size_bytes",), ("parameters",), ("macs",), ("latency_ms",)),
    *(("agreement",), ("against_teacher",), ("seconds",), ("cost",), ("shared_from",)),
]
_WITH_ITERATIONS = [*_PICKED, ("details", "start"), ("details", "iterations")]
# Databases take only so many parameters.
_BATCH = 500


@dataclass(frozen=True)
class Gathered:
    """Jobs with the parts of their results that analysis needs, by job id; null where there is no result."""

    children: Sequence[Child]
    results: Mapping[str, dict[str, Any] | None]
    best_epochs: Mapping[tuple[str, int, int], float]

    @property
    def axes(self) -> list[str]:
        return list(self.children[0].params) if self.children else []

    def rows(self, kind: Kind = "answers") -> list[Row]:
        return rows(self.children, kind, results=self.results, best_epochs=self.best_epochs)

    def reasons(self) -> dict[str, str]:
        """Job id -> the sentence of its problem."""
        errors = {child.job.id: child.job.error for child in self.children}
        return {job_id: error["detail"] for job_id, error in errors.items() if error and error.get("detail")}

    def discordances(self) -> dict[str, dict[str, dict[str, int]]]:
        """Job id -> split -> how often only the teacher and only the answer is right."""
        stages = {job_id: result.get("stages") for job_id, result in self.results.items() if result}
        return {job_id: found[-1].get("against_teacher") or {} for job_id, found in stages.items() if found}


def gather(session: Session, children: Sequence[Child], kind: Kind = "answers") -> Gathered:
    """What a table of this kind needs."""
    results = _results(session, children, _WITH_ITERATIONS if kind == "iterations" else _PICKED)
    sources = {source for result in results.values() if result for source in _sources(result)}
    return Gathered(children, results, _best_epochs(session, sources | results.keys()))


def named_jobs(session: Session, job_ids: Sequence[str]) -> list[Child]:
    """Jobs of any origin, each a point of the axis `job`: its name, or its id where another has that name too.

    Raises Problem 404.
    """
    query = select(Job).options(defer(Job.result)).where(Job.id.in_(job_ids), Job.kind == "compress")
    found = {job.id: job for job in session.scalars(query)}
    for job_id in job_ids:
        if job_id not in found:
            raise not_found("job", job_id)
    names = [found[job_id].name for job_id in job_ids]
    return [
        Child(
            job=job,
            point=point,
            params={"job": job.name if job.name and names.count(job.name) == 1 else job.id},
            seed=job.spec["seed"],
            state=state_of(job),
        )
        for point, job in enumerate(found[job_id] for job_id in job_ids)
    ]


# ---- results


class _Stages(FunctionElement[Any]):
    """SQL for the first stages of a result, each as a list of the parts at `paths`."""

    type = Json
    name = "picked_stages"
    inherit_cache = False  # paths and number are no clauses

    def __init__(self, result: Any, paths: Sequence[tuple[str, ...]], num_stages: int) -> None:
        super().__init__(result)
        self.paths = paths
        self.num_stages = num_stages


# json_each would write every stage out as text, large parts too, and json_extract read that again: 276 ms for 1,000
# results of 20 kB, and 12 ms in this way (SQLite 3.40).
@compiles(_Stages, "sqlite")
def _stages_sqlite(element: _Stages, compiler: Any, **options: Any) -> str:
    result = compiler.process(element.clauses, **options)
    stages = []
    for number in range(element.num_stages):
        paths = ", ".join(f"'$.stages[{number}].{'.'.join(path)}'" for path in element.paths)
        stages.append(f"json(json_extract({result}, {paths}))")
    return f"json_array({', '.join(stages)})"


# Every path from the top would unpack the whole result again.
@compiles(_Stages, "postgresql")
def _stages_postgresql(element: _Stages, compiler: Any, **options: Any) -> str:
    result = compiler.process(element.clauses, **options)
    parts = ", ".join(f"stage.value #> '{{{','.join(path)}}}'" for path in element.paths)
    stages = f"CASE jsonb_typeof({result} -> 'stages') WHEN 'array' THEN {result} -> 'stages' END"
    return (
        f"(SELECT jsonb_agg(jsonb_build_array({parts}) ORDER BY stage.n) FROM "
        f"jsonb_array_elements({stages}) WITH ORDINALITY AS stage(value, n))"
    )


def _stages(found: list[list[Any]] | None, paths: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    """As in the result, with less in them."""
    stages = []
    for values in found or []:
        stage: dict[str, Any] = {}
        for path, value in zip(paths, values, strict=True):
            inner = stage
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = value
        if any(value is not None for value in values):
            stages.append(stage)
    return stages


def _results(
    session: Session, children: Sequence[Child], paths: Sequence[tuple[str, ...]]
) -> dict[str, dict[str, Any] | None]:
    found: dict[str, dict[str, Any] | None] = {child.job.id: None for child in children}
    ended = [child.job for child in children if child.job.finished_at is not None]
    several = {job.id for job in ended if job.spec.get("seeds", 1) > 1}
    for ids in _batches(several):
        whole = select(Job.id, Job.result).where(Job.id.in_(ids))
        found |= dict(iter(session.execute(whole)))
    num_stages = 1 + max((len(job.spec.get("steps", [])) for job in ended), default=0)
    for ids in _batches(job.id for job in ended if job.id not in several):
        picked = select(
            Job.id,
            Job.result["splits"],
            Job.result["environment"],
            Job.result["reused_from"],
            _Stages(Job.result, paths, num_stages),
        )
        query = picked.where(Job.id.in_(ids), Job.result.is_not(None))
        for job_id, splits, environment, reused_from, stages in session.execute(query):
            found[job_id] = {
                "splits": splits,
                "environment": environment,
                "reused_from": reused_from,
                "stages": _stages(stages, paths),
            }
    return found


def _batches(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    ordered = sorted(ids)
    return (tuple(ordered[start : start + _BATCH]) for start in range(0, len(ordered), _BATCH))


# ---- metrics


def _sources(result: Mapping[str, Any]) -> Iterator[str]:
    """The other jobs that have the metrics of what this result took over."""
    if result.get("reused_from"):
        yield result["reused_from"]
    yield from (stage["shared_from"] for stage in result.get("stages") or [] if stage.get("shared_from"))


def _best_epochs(session: Session, job_ids: Iterable[str]) -> dict[tuple[str, int, int], float]:
    found: dict[tuple[str, int, int], float] = {}
    for ids in _batches(job_ids):
        query = select(Metric.job_id, Metric.seed, Metric.step, Metric.value).where(
            Metric.job_id.in_(ids), Metric.name == BEST_EPOCHS, Metric.split == "val", Metric.epoch == -1
        )
        found |= {(job_id, seed, step): value for job_id, seed, step, value in session.execute(query)}
    return found
