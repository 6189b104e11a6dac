"""The receipts of a job's artifacts, from what it was ordered and what it measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import db_now, rfc3339
from app.jobs import Claim, NewArtifact
from app.receipts import FORMAT
from app.tables import Job

_TEACHER = {
    "id": "id",
    "file_sha256": "file_sha256",
    "artifact_sha256": "sha256",
    "tensors_sha256": "tensors_sha256",
}
_ENVIRONMENT = ("fewbytes", "python", "torch", "cpu", "precision")
_MEASURED = ("splits", "parameters", "macs", "latency_ms")


def with_receipts(
    session: Session,
    claim: Claim,
    order: dict[str, Any],
    last: dict[str, Any],
    artifacts: Sequence[NewArtifact],
) -> list[NewArtifact]:
    """The artifacts, each with its receipt. `last`: the child's last word."""
    if not artifacts:
        return []
    fingerprint, now = session.execute(select(Job.fingerprint, db_now()).where(Job.id == claim.job_id)).one()
    common = _of_job(claim, order, last) | {"fingerprint": fingerprint, "created_at": rfc3339(now)}
    return [replace(artifact, receipt=common | _of_artifact(artifact)) for artifact in artifacts]


def _of_job(claim: Claim, order: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    result = last.get("result") or {}
    environment, data = result.get("environment", {}), order["data"]
    # Only where it is so: a receipt of a job that did all itself says nothing of others.
    shared = {"taken_over": result["taken_over"]["made_by"]} if "taken_over" in result else {}
    return {
        **shared,
        "format": FORMAT,
        "job_id": claim.job_id,
        "spec": claim.spec,
        "teachers": [
            {name: teacher.get(key) for name, key in _TEACHER.items()} for teacher in order["teachers"]
        ],
        "dataset": {
            "id": data["id"],
            "index_sha256": data["index_sha256"],
            "pack_sha256": data["pack_sha256"],
            "splits": result.get("splits", {}),
            "class_order": last.get("class_order"),
        },
        "seed": result.get("seed"),
        "device": environment.get("device"),
        "num_threads": order["num_threads"],
        "environment": {name: environment.get(name) for name in _ENVIRONMENT},
    }


def _of_artifact(artifact: NewArtifact) -> dict[str, Any]:
    return {
        "artifact": {
            "name": artifact.name,
            "kind": artifact.kind,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
        },
        "step": artifact.step,
        # Empty for a file that holds no network, and for one that was kept in a hurry.
        "measured": {name: artifact.metrics[name] for name in _MEASURED if name in artifact.metrics},
    }
