"""The result of an earlier job, served again to a job that would do the same work on the same bytes.

Equal keys mean equal work: `result_key` is over what decides a result, and no more. Only within a tenant: nobody learns
what another has run.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import gates, jobs
from app.canonical import fingerprint
from app.jobs import NewArtifact
from app.spec.job import GATES, JobSpec
from app.storage.objects import Storage
from app.tables import SUCCEEDED, Artifact, Dataset, Event, Job, Teacher
from app.version import version

# What a job is called, when and where it runs, and what is asked of its answer: the answer is the same.
UNDECISIVE = (
    *("name", "labels", "priority", "memory_bytes", "deadline_seconds", "reuse_result"),
    *GATES,
)
# Of the jobs with the key, so many are looked at: a job whose files are gone stands in nobody's way.
_MAX_CANDIDATES = 20


def result_key(spec: JobSpec, teachers: Sequence[Teacher], dataset: Dataset) -> str:
    """sha256 over the job less what does not decide, the bytes of what it names, and the version of fewbytes.

    Other ids of the same bytes make no difference. What a teacher was declared to be counts: the result speaks of it.
    """
    decisive = {
        name: value
        for name, value in spec.model_dump(mode="json").items()
        if name not in (*UNDECISIVE, "teachers", "dataset")
    }
    named = [
        {
            "artifact_sha256": teacher.artifact_sha256,
            "class_names": (teacher.report or {}).get("class_names"),
            "size_bytes": teacher.file_size_bytes,
            "declared_accuracy": teacher.spec.get("declared_accuracy"),
        }
        for teacher in teachers
    ]
    data = {"index_sha256": dataset.index_sha256, "pack_sha256": dataset.pack_sha256}
    return fingerprint({"spec": decisive, "teachers": named, "dataset": data, "fewbytes": version()})


def reuse(session: Session, job: Job, storage: Storage) -> bool:
    """Finish the queued job with the result of an earlier one of its key, if one has all its files; whether it was done.

    The other job and its artifacts are locked until this commits, so a deletion comes before or after.
    """
    done = select(Job.id).where(Job.result_key == job.result_key, Job.state == SUCCEEDED)
    newest = done.order_by(Job.finished_at.desc(), Job.id.desc()).limit(_MAX_CANDIDATES)
    for ident in session.scalars(newest).all():
        source = session.scalar(select(Job).where(Job.id == ident).with_for_update())
        if source is None:  # deleted just now
            continue
        artifacts = _artifacts(session, source)
        if artifacts and all(storage.exists(artifact.sha256) for artifact in artifacts):
            jobs.reuse(session, job, _result_for(job, source), [_again(artifact) for artifact in artifacts])
            return True
    return False


def _artifacts(session: Session, source: Job) -> list[Artifact]:
    """All that the job left, in its order; none if a part of it is gone. Its events name what there was."""
    left = select(Event.data).where(Event.job_id == source.id, Event.type == "artifact").order_by(Event.seq)
    # A job that was cancelled and tried again left some files twice; the last of a name counts.
    ids = {
        (data["step"], data["kind"], data["name"]): data["id"]
        for data in session.scalars(left)
        if data["kind"] != "best_so_far"
    }
    rows = session.scalars(
        select(Artifact).where(Artifact.job_id == source.id).order_by(Artifact.id).with_for_update()
    )
    found = {artifact.id: artifact for artifact in rows}
    is_whole = all(ident in found for ident in ids.values())
    has_answer = any(kind == "final" for _, kind, _ in ids)
    return [found[ident] for ident in ids.values()] if is_whole and has_answer else []


def _again(artifact: Artifact) -> NewArtifact:
    """The same bytes and the same receipt, which names the job that made them."""
    fields = ("step", "kind", "name", "sha256", "size_bytes", "metrics", "receipt")
    return NewArtifact(**{name: getattr(artifact, name) for name in fields})


def _result_for(job: Job, source: Job) -> dict[str, Any]:
    """The source's result under this job's names for the same things, against this job's own limits."""
    was = dict(source.result or {})
    # A limit that was missed is that job's own.
    missed = gates.warnings_of(was.get("gates", []))
    was["warnings"] = [warning for warning in was.get("warnings", []) if warning not in missed]
    names = dict(zip(source.spec["teachers"], job.spec["teachers"], strict=True))
    names[source.spec["dataset"]] = job.spec["dataset"]
    result = gates.judged(job.spec, _renamed(was, names))
    return result | {"reused_from": was.get("reused_from", source.id)}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """With the ids of `names` replaced by what they stand for, also within sentences."""
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, str):
        # In one pass: two teachers of the same bytes may have changed places.
        return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], value)
    return value
