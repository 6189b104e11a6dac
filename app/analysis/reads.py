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
_WHOLE = ("splits", "environment", "reused_from")
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


class _Picked(FunctionElement[Any]):
    """SQL for the first stages of a result, each as a list of the parts at `paths`; or, as `_PickedSeeds`, for its seeds,
    each as [seed, such a list of stages]."""

    type = Json
    name = "picked"
    inherit_cache = False  # paths and number are no clauses

    def __init__(self, result: Any, paths: Sequence[tuple[str, ...]], num_stages: int) -> None:
        super().__init__(result)
        self.paths = paths
        self.num_stages = num_stages


class _PickedSeeds(_Picked):
    inherit_cache = False


@compiles(_Picked, "sqlite")
def _stages_sqlite(element: _Picked, compiler: Any, **options: Any) -> str:
    return _sqlite(element, compiler.process(element.clauses, **options))


@compiles(_PickedSeeds, "sqlite")
def _seeds_sqlite(element: _PickedSeeds, compiler: Any, **options: Any) -> str:
    result = compiler.process(element.clauses, **options)
    seed = f"json_array(json_extract(seed.value, '$.seed'), {_sqlite(element, 'seed.value')})"
    return f"(SELECT json_group_array({seed}) FROM json_each({result}, '$.seeds') AS seed)"


def _sqlite(element: _Picked, source: str) -> str:
    # json_each would write every stage out as text, large parts too, and json_extract read that again: 276 ms for 1,000
    # results of 20 kB, and 12 ms in this way (SQLite 3.40).
    stages = []
    for number in range(element.num_stages):
        paths = ", ".join(f"'$.stages[{number}].{'.'.join(path)}'" for path in element.paths)
        stages.append(f"json(json_extract({source}, {paths}))")
    return f"json_array({', '.join(stages)})"


@compiles(_Picked, "postgresql")
def _stages_postgresql(element: _Picked, compiler: Any, **options: Any) -> str:
    return _postgresql(element, compiler.process(element.clauses, **options))


@compiles(_PickedSeeds, "postgresql")
def _seeds_postgresql(element: _PickedSeeds, compiler: Any, **options: Any) -> str:
    result = compiler.process(element.clauses, **options)
    seed = f"jsonb_build_array(seed.value -> 'seed', {_postgresql(element, 'seed.value')})"
    return f"(SELECT jsonb_agg({seed} ORDER BY seed.n) FROM {_elements(result, 'seeds')} AS seed(value, n))"


def _postgresql(element: _Picked, source: str) -> str:
    # Every path from the top would unpack the whole result again.
    parts = ", ".join(f"stage.value #> '{{{','.join(path)}}}'" for path in element.paths)
    return (
        f"(SELECT jsonb_agg(jsonb_build_array({parts}) ORDER BY stage.n) FROM "
        f"{_elements(source, 'stages')} AS stage(value, n))"
    )


def _elements(source: str, name: str) -> str:
    """Rows of (value, position); none where there is no such list."""
    found = f"{source} -> '{name}'"
    return f"jsonb_array_elements(CASE jsonb_typeof({found}) WHEN 'array' THEN {found} END) WITH ORDINALITY"


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
    several = [job for job in ended if job.spec.get("seeds", 1) > 1]
    for jobs in (several, [job for job in ended if job.spec.get("seeds", 1) == 1]):
        num_stages = 1 + max((len(job.spec.get("steps", [])) for job in jobs), default=0)
        picked: list[Any] = [_Picked(Job.result, paths, num_stages)]
        if jobs is several:
            picked.append(_PickedSeeds(Job.result, paths, num_stages))
        parts = [Job.result[name] for name in _WHOLE]
        for ids in _batches(job.id for job in jobs):
            query = select(Job.id, *parts, *picked).where(Job.id.in_(ids), Job.result.is_not(None))
            for job_id, *values in session.execute(query):
                found[job_id] = _result(values, paths)
    return found


def _result(values: Sequence[Any], paths: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """As the job has it, with less in it."""
    whole, (stages, *seeds) = values[: len(_WHOLE)], values[len(_WHOLE) :]
    result = dict(zip(_WHOLE, whole, strict=True)) | {"stages": _stages(stages, paths)}
    if seeds:
        result["seeds"] = [{"seed": seed, "stages": _stages(own, paths)} for seed, own in seeds[0] or []]
    return result


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
