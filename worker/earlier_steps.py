"""What an earlier job left of the steps that a job begins with: `order["begun"]`.

Jobs of a sweep have their first steps in common. One of them, or a job made for these steps alone, does them; the others
come after it (`Job.after_job_id`) and take `Job.begun_steps` of its steps over. Only objects of the storage are looked for:
the folder that the earlier job worked in may be gone, or another machine's.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Problem
from app.storage.objects import storage
from app.tables import SUCCEEDED, Artifact, Job, Metric

# What decides, beside the steps, what they make.
_DECISIVE = ("teachers", "dataset", "seed", "seeds", "device", "num_threads")
_NO_LONGER = "the job was deleted"
_METRIC = ("step", "epoch", "split", "name", "value", "unit")


class _GoneError(Exception):
    """Its text says what is not there."""


def begun_by(session: Session, job: Job) -> dict[str, Any] | None:
    """None for a job that begins at its beginning. Else `job_id`, `steps`: how many; and either `gone`, a clause that says
    why nothing can be taken over, or

    * `records`: of those steps, from the earlier job's result; `metrics`: of each as a whole, without its epochs;
    * `files`: `what` ("network", "attachment", "snapshot"), `step`, `name`, `epoch` (of a snapshot), `path`, `sha256`;
    * `made_by`: which job did which steps, in what environment, where the earlier one had taken some over itself.
    """
    if job.after_job_id is None or not job.begun_steps:
        return None
    begun = {"job_id": job.after_job_id, "steps": job.begun_steps}
    try:
        return begun | _left(session, job, session.get(Job, job.after_job_id), job.begun_steps)
    except _GoneError as why:
        return begun | {"gone": str(why)}


def _left(session: Session, job: Job, earlier: Job | None, num_steps: int) -> dict[str, Any]:
    if earlier is None:
        raise _GoneError(_NO_LONGER)
    if earlier.state != SUCCEEDED or earlier.result is None:
        raise _GoneError(f"the job is {earlier.state}")
    if differing := _differing(job.spec, earlier.spec, num_steps):
        raise _GoneError(f"the job has other {' and '.join(differing)}")
    artifacts = session.scalars(
        select(Artifact)
        .where(Artifact.job_id == earlier.id, Artifact.step <= num_steps)
        .order_by(Artifact.id)
    ).all()
    metrics = session.execute(
        select(*(getattr(Metric, name) for name in _METRIC)).where(
            Metric.job_id == earlier.id,
            Metric.seed == 0,
            Metric.step.between(1, num_steps),
            Metric.epoch == -1,
        )
    )
    records = earlier.result["stages"][1 : num_steps + 1]
    return {
        "records": records,
        "metrics": [dict(zip(_METRIC, row, strict=True)) for row in metrics],
        "files": _files(artifacts, records),
        "made_by": _made_by(earlier, num_steps),
    }


def _differing(spec: dict[str, Any], earlier: dict[str, Any], num_steps: int) -> list[str]:
    """Names of what would make other networks of these steps; a job comes after one that begins like it."""
    names = [name for name in _DECISIVE if spec.get(name) != earlier.get(name)]
    if spec["steps"][:num_steps] != earlier["steps"][:num_steps] or spec.get("seeds", 1) != 1:
        names.append("steps")
    return names


def _files(artifacts: Sequence[Artifact], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A job that was cancelled and tried again left some files twice: the last of a name counts.
    named = {(artifact.step, artifact.kind, artifact.name): artifact for artifact in artifacts}
    files = []
    for record in records:
        step = record["step"]
        answers = [
            a for (number, kind, _), a in named.items() if number == step and kind in ("final", "stage")
        ]
        if not answers:
            raise _GoneError(f"its network after step {step} is gone")
        files.append(_file("network", answers[-1]))
        for name, kind in record.get("attachments", {}).items():
            artifact = named.get((step, kind, f"step-{step}-{name}"))
            if artifact is None:
                raise _GoneError(f"its file {name} of step {step} is gone")
            files.append(_file("attachment", artifact) | {"name": name})
    files += [
        _file("snapshot", artifact) | {"epoch": artifact.metrics["epoch"]}
        for (_, kind, _), artifact in named.items()
        if kind == "snapshot"
    ]
    return files


def _file(what: str, artifact: Artifact) -> dict[str, Any]:
    try:
        path = storage().path(artifact.sha256)
    except Problem:
        raise _GoneError(f"its file {artifact.name} is no longer stored") from None
    return {
        "what": what,
        "step": artifact.step,
        "name": artifact.name,
        "path": str(path),
        "sha256": artifact.sha256,
    }


def _made_by(earlier: Job, num_steps: int) -> list[dict[str, Any]]:
    """[{job_id, steps, environment}]: of all these steps, in order."""
    assert earlier.result is not None
    before = earlier.result.get("taken_over", {}).get("made_by", [])
    made = [each | {"steps": [step for step in each["steps"] if step <= num_steps]} for each in before]
    others = {step for each in made for step in each["steps"]}
    own = [step for step in range(1, num_steps + 1) if step not in others]
    made.append({"job_id": earlier.id, "steps": own, "environment": earlier.result["environment"]})
    return [each for each in made if each["steps"]]
