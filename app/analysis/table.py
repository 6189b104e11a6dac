"""From jobs to one tidy table: a row for each answer, stage or pruning iteration, a column for each thing.

Everything comes from the jobs' results. What is not there is null, and nothing is filled in. Every job has at least one
row: where there is nothing to tell it has its state and nulls.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.analysis.columns import Kind, axis_columns, columns
from app.sweeps.reads import Child

_BEST = 5
Row = dict[str, Any]
Stage = Mapping[str, Any]
BestEpochs = Mapping[tuple[str, int, int], float]
"""(job id, position of the seed or 0, step) -> mean val accuracy of the five best epochs."""


def rows(
    children: Sequence[Child],
    kind: Kind = "answers",
    *,
    results: Mapping[str, Mapping[str, Any] | None] | None = None,
    best_epochs: BestEpochs | None = None,
) -> list[Row]:
    """The rows of these jobs, in their order. All have the same keys: those of `columns(axes, kind)`.

    `results`: of each job, whole or as `app.analysis.reads` picks it; without, `child.job.result` is read. Without
    `best_epochs` the column val_accuracy_best5 is null.
    """
    axes = axis_columns(children[0].params if children else ())
    empty: Row = dict.fromkeys(column.name for column in columns(list(axes), kind))
    found: list[Row] = []
    for child in children:
        result = child.job.result if results is None else results.get(child.job.id)
        whose = empty | _whose(child, axes)
        for run in _runs(child, result or {}):
            values = list(_ROWS[kind](run, best_epochs or {})) or [{}]
            found += [{**whose, "seed": run.seed, **value} for value in values]
    return found


def _whose(child: Child, axes: Mapping[str, str]) -> Row:
    return {
        "job_id": child.job.id,
        "point": child.point,
        **{column: child.params.get(axis) for axis, column in axes.items()},
        "state": child.state,
        "code": (child.job.error or {}).get("code"),
    }


@dataclass(frozen=True)
class _Run:
    """What a job did with one seed. `position`: of this seed among several, from 1, as in `Metric.seed`; or 0."""

    job_id: str
    state: str
    seed: int
    position: int
    stages: Sequence[Stage]
    steps: Sequence[Mapping[str, Any]]

    def has_five_best(self, index: int) -> bool:
        """Whether what was noted of this stage's best epochs is the mean of five, and of one network."""
        stage, step = self.stages[index], self.steps[index - 1] if 0 < index <= len(self.steps) else {}
        epochs = (stage.get("cost") or {}).get("epochs") or 0
        return step.get("best_k") == _BEST and epochs >= _BEST and stage.get("method") != "prune"


def _runs(child: Child, result: Mapping[str, Any]) -> Iterator[_Run]:
    # A result that was taken from another job has its numbers there.
    job_id = result.get("reused_from") or child.job.id
    stages, steps = result.get("stages") or [], child.job.spec.get("steps") or []
    if not result.get("seeds"):
        yield _Run(job_id, child.state, child.seed, 0, stages, steps)
        return
    for position, each in enumerate(result["seeds"], 1):
        yield _Run(job_id, child.state, each["seed"], position, [*stages[:1], *each["stages"]], steps)


# ---- the rows of each kind


def _answers(run: _Run, best_epochs: BestEpochs) -> Iterator[Row]:
    """The last stage of a job that came to its end: what a cancelled one left is no answer."""
    if run.state == "succeeded" and len(run.stages) > 1:
        yield _stage_row(run, len(run.stages) - 1, best_epochs)


def _stages(run: _Run, best_epochs: BestEpochs) -> Iterator[Row]:
    """The teacher as uploaded, and every finished step."""
    for index in range(len(run.stages)):
        yield _stage_row(run, index, best_epochs)


def _iterations(run: _Run, best_epochs: BestEpochs) -> Iterator[Row]:
    """What every prune step noted of its iterations; the network that it began with is iteration 0."""
    for index, stage in enumerate(run.stages):
        details = stage.get("details") or {}
        if stage.get("method") == "prune" and details.get("start"):
            start = {**details["start"], "iteration": 0}
            start |= {"accuracy_before": start.get("accuracy"), "accuracy_after": start.get("accuracy")}
            noted = [start, *(details.get("iterations") or [])]
            yield from (_iteration_row(run, index, noted, number) for number in range(len(noted)))


_ROWS = {"answers": _answers, "stages": _stages, "iterations": _iterations}


def _stage_row(run: _Run, index: int, best_epochs: BestEpochs) -> Row:
    stage = run.stages[index]
    splits, agreement = stage.get("splits") or {}, stage.get("agreement") or {}
    epochs_of = (stage.get("shared_from") or run.job_id, run.position, index)
    return {
        **_common(run, index),
        **{f"{split}_accuracy": _of(splits, split, "accuracy") for split in ("train", "val", "test")},
        **{f"{split}_loss": _of(splits, split, "loss") for split in ("val", "test")},
        **{f"{split}_leaked": _of(splits, split, "leaked") for split in ("val", "test")},
        **{f"{split}_agreement": agreement.get(split) for split in ("val", "test")},
        "val_accuracy_best5": best_epochs.get(epochs_of) if run.has_five_best(index) else None,
        "latency_ms": (stage.get("latency_ms") or {}).get("median"),
        **_sizes(run.stages[0], stage.get("size_bytes"), stage),
        # What the teacher's own training took, nobody said.
        **(_sum(_cost(step) for step in run.stages[1 : index + 1]) if index else {}),
    }


def _iteration_row(run: _Run, index: int, noted: Sequence[Stage], number: int) -> Row:
    stage, row = run.stages[index], noted[number]
    whole = _sum([*map(_cost, run.stages[1:index]), _training_cost(stage)])
    return {
        **_common(run, index),
        **_sizes(run.stages[0], row.get("bytes"), row),
        **_difference(whole, _sum(map(_iteration_cost, noted[number + 1 :]))),
        **{name: row.get(name) for name in ("iteration", "accuracy_before", "accuracy_after")},
    }


def _common(run: _Run, index: int) -> Row:
    stage, of_teacher = run.stages[index], run.stages[0].get("splits") or {}
    return {
        "step": stage.get("step"),
        "method": stage.get("method"),
        "teacher_val_accuracy": _of(of_teacher, "val", "accuracy"),
        "teacher_test_accuracy": _of(of_teacher, "test", "accuracy"),
    }


def _of(splits: Mapping[str, Any], split: str, name: str) -> Any:
    return (splits.get(split) or {}).get(name)


def _sizes(teacher: Stage, size_bytes: int | None, counted: Stage) -> Row:
    # A table of soft labels has no parameters: nothing was compressed, however large its file is.
    whole = teacher if teacher.get("parameters") else {}
    return {
        "size_bytes": size_bytes,
        "parameters": counted.get("parameters"),
        "macs": counted.get("macs"),
        "compression_ratio": _ratio(whole.get("size_bytes"), size_bytes),
        "speed_up": _ratio(whole.get("macs"), counted.get("macs")),
    }


def _ratio(whole: float | None, part: float | None) -> float | None:
    return whole / part if whole and part else None


# ---- what training took


def _cost(stage: Stage) -> Row:
    """Of a whole step. Its seconds are those on the wall, scoring and carving included."""
    return {**_training_cost(stage), "seconds": stage.get("seconds")}


def _training_cost(stage: Stage) -> Row:
    cost = stage.get("cost") or {}
    return {"epochs": cost.get("epochs"), "train_macs": cost.get("macs"), "seconds": cost.get("seconds")}


def _iteration_cost(row: Stage) -> Row:
    return {
        "epochs": row.get("epochs"),
        "train_macs": row.get("trained_macs"),
        "seconds": row.get("seconds"),
    }


_NOTHING: Row = {"epochs": 0, "train_macs": 0, "seconds": 0}


def _sum(costs: Iterable[Row]) -> Row:
    """Null where a part is not known."""
    total = dict(_NOTHING)
    for cost in costs:
        total = {name: _known(operator.add, value, cost[name]) for name, value in total.items()}
    return total


def _difference(whole: Row, part: Row) -> Row:
    return {name: _known(operator.sub, whole[name], part[name]) for name in whole}


def _known(combine: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    return None if first is None or second is None else combine(first, second)
