"""Jobs and results as the worker leaves them, made by hand: only what a test says differs."""

from typing import Any

from sqlalchemy.orm import Session

from app.analysis.columns import axis_columns, columns
from app.analysis.table import Row
from app.sweeps.reads import Child
from app.tables import Job

TEACHER_BYTES, TEACHER_MACS = 44_000_000, 1_800_000_000


def stage(step: int, method: str, **changes: Any) -> dict[str, Any]:
    """The record of a step, as in `result["stages"]`."""
    return {
        "step": step,
        "method": method,
        "splits": {
            split: {
                "accuracy": accuracy,
                "loss": 1 - accuracy,
                "num_images": 100,
                "num_correct": round(100 * accuracy),
                "leaked": split == "train",
            }
            for split, accuracy in (("train", 0.9), ("val", 0.8), ("test", 0.75))
        },
        "size_bytes": 1_000_000,
        "parameters": 240_000,
        "macs": 40_000_000,
        "latency_ms": {
            "median": 2.5,
            "p10": 2.0,
            "p90": 3.0,
            "batch_size": 1,
            "n": 50,
            "device": "a CPU",
            "num_threads": 1,
        },
        "agreement": {"val": 0.85, "test": 0.84, "unlabeled": 0.83},
        "against_teacher": {"test": {"num_images": 100, "num_only_teacher": 20, "num_only_network": 5}},
        "seconds": 12.0,
        "cost": {"epochs": 10.0, "seconds": 11.0, "macs": 5_000_000},
        "details": {},
        "attachments": {},
        "confusion": {"val": [[1] * 20] * 20},
    } | changes


def teacher(**changes: Any) -> dict[str, Any]:
    made = stage(0, "teacher", size_bytes=TEACHER_BYTES, parameters=11_000_000, macs=TEACHER_MACS)
    for name in ("seconds", "cost", "details", "attachments", "agreement", "against_teacher"):
        made.pop(name)
    for score in made["splits"].values():
        score.pop("leaked")
    return made | {"teachers": [{"id": "tch_1"}]} | changes


def result(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "stages": [teacher(), *stages],
        "splits": {split: {"digest": split[0] * 64, "num_images": 100} for split in ("train", "val", "test")},
        "warnings": [],
        "environment": {"fewbytes": "0.1.0", "device": "a CPU", "num_threads": 1},
        "seed": 0,
    } | changes


def child(
    number: int,
    params: dict[str, Any],
    *,
    result: dict[str, Any] | None = None,
    state: str = "succeeded",
    point: int = 0,
    seed: int = 0,
    error: dict[str, Any] | None = None,
    steps: list[dict[str, Any]] | None = None,
) -> Child:
    job = Job(
        id=f"job_{number}",
        kind="compress",
        name=None,
        state=state,
        spec={"teachers": ["tch_1"], "seed": seed, "seeds": 1, "steps": _steps(steps, result)},
        result=result,
        error=error,
        finished_at=1.0 if state in ("succeeded", "failed", "cancelled", "infeasible") else None,
    )
    return Child(job=job, point=point, params=params, seed=seed, state=state)


def _steps(steps: list[dict[str, Any]] | None, result: dict[str, Any] | None) -> list[dict[str, Any]]:
    stages = (result or {}).get("stages") or []
    return steps or [{"method": each["method"]} for each in stages[1:]]


def row(point: int, seed: int, axes: dict[str, Any], **values: Any) -> Row:
    """A row of answers of a job that succeeded, unless `state` says otherwise."""
    empty = dict.fromkeys(column.name for column in columns(list(axes), "answers"))
    of_axes = {axis_columns(axes)[axis]: value for axis, value in axes.items()}
    job = {"job_id": f"job_{point}_{seed}", "point": point, "seed": seed, "state": "succeeded"}
    return {**empty, **of_axes, **job, **values}


def stored(session: Session, children: list[Child]) -> None:
    """Put the jobs into the database, as the session's tenant."""
    for position, each in enumerate(children):
        job = each.job
        job.queue, job.labels, job.fingerprint = "compress", {}, "f" * 64
        job.created_at = float(position)
        session.add(job)
