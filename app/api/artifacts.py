"""Artifacts: the files that jobs leave."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app import reads, receipts
from app.api.content import DOWNLOAD, content_response, document_response
from app.api.context import CurrentCaller, CurrentStorage
from app.api.jobs import JobId
from app.api.views import ArtifactView, CheckView, Page, VerdictView, artifact_view
from app.errors import Problem
from app.storage.objects import Storage
from app.tables import TERMINAL, Artifact

router = APIRouter(tags=["artifacts"])

ArtifactId = Annotated[str, Path(pattern="^art_[0-9a-z]{1,40}$")]


@router.get("/v1/jobs/{job_id}/artifacts", response_model=Page[ArtifactView])
def list_artifacts(job_id: JobId, caller: CurrentCaller) -> Page[ArtifactView]:
    """All files of a job: the answer, and those of earlier steps."""
    with caller.reading() as session:
        reads.find_job(session, job_id)
        return Page(items=[artifact_view(artifact) for artifact in reads.artifacts(session, job_id)])


@router.get("/v1/jobs/{job_id}/download", response_class=Response, responses=DOWNLOAD)
def download(job_id: JobId, request: Request, caller: CurrentCaller, storage: CurrentStorage) -> Response:
    """The answer of a job, as a file: `curl -OJ`. 409 while there is none."""
    with caller.reading() as session:
        job = reads.find_job(session, job_id)
        artifact = reads.final_artifact(session, job_id)
    if artifact is None:
        detail = f"The job is {job.state} and has no final artifact"
        way_out = (
            f"; see GET /v1/jobs/{job_id}/artifacts."
            if job.state in TERMINAL
            else " yet: wait until it succeeded."
        )
        raise Problem(409, "NOT_FINISHED", detail + way_out, retryable=job.state not in TERMINAL)
    return _content(artifact, request, storage)


@router.get("/v1/artifacts/{artifact_id}", response_model=ArtifactView)
def get_artifact(artifact_id: ArtifactId, caller: CurrentCaller) -> ArtifactView:
    with caller.reading() as session:
        return artifact_view(reads.find_artifact(session, artifact_id))


@router.get("/v1/artifacts/{artifact_id}/content", response_class=Response, responses=DOWNLOAD)
def get_content(
    artifact_id: ArtifactId, request: Request, caller: CurrentCaller, storage: CurrentStorage
) -> Response:
    """The bytes; `curl -C - -o FILE` goes on after a break. Repr-Digest is the sha256 of the whole."""
    with caller.reading() as session:
        artifact = reads.find_artifact(session, artifact_id)
    return _content(artifact, request, storage)


@router.get(
    "/v1/artifacts/{artifact_id}/receipt",
    response_model=dict[str, Any],
    responses={304: {"description": "Unchanged."}},
)
def get_receipt(artifact_id: ArtifactId, request: Request, caller: CurrentCaller) -> Response:
    """What the file was made of and what was measured of it, as canonical JSON; the ETag is its sha256.

    `python load_artifact.py FILE verify RECEIPT` counts it again. It stays when teachers and data set are deleted.
    """
    with caller.reading() as session:
        artifact = reads.find_artifact(session, artifact_id)
    content, sha256 = receipts.canonical(receipts.receipt_of(artifact))
    filename = f"{artifact.name}.receipt.json"
    return document_response(request, content, sha256=sha256, filename=_safe(filename))


@router.post("/v1/artifacts/{artifact_id}/verify", response_model=VerdictView)
def verify_artifact(artifact_id: ArtifactId, caller: CurrentCaller, storage: CurrentStorage) -> VerdictView:
    """Read the stored bytes again and compare them with the receipt. 413 for a file too large to wait for."""
    with caller.reading() as session:
        artifact = reads.find_artifact(session, artifact_id)
    checks = [CheckView(**check) for check in receipts.verify(artifact, storage)]
    return VerdictView(ok=all(check.ok for check in checks), checks=checks)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _filename(artifact: Artifact) -> str:
    """Nothing that a user typed: the pipeline and the steps name artifacts."""
    if artifact.kind in ("final", "stage", "best_so_far"):
        return f"{artifact.job_id}-{artifact.kind}.pt"
    return f"{artifact.job_id}-{_safe(artifact.name)}"


def _content(artifact: Artifact, request: Request, storage: Storage) -> Response:
    return content_response(
        request,
        storage.path(artifact.sha256),
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        filename=_filename(artifact),
        media_type="application/octet-stream",
    )
