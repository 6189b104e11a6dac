"""From a child's last word to the verb that ends its attempt.

`finish` and `finish_cancel` put files into the storage at once and return the verb, to be called in the
transaction: an object that no row names costs disk, a row that names no object would be a lie.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app import gates, jobs, resources
from app.errors import Problem
from app.jobs import Claim, NewArtifact
from app.storage.objects import storage
from worker.receipts import with_receipts

Verb = Callable[[Session], None]

# Kinds of artifacts that are networks of ours; others are exports and what steps offer beside theirs.
_ANSWERS = ("final", "stage", "best_so_far")

# How a process ends that met its limits or was broken by the file it read. SIGKILL is none of them: that may
# have been anybody, so the attempt is repeated.
_LIMIT_SIGNALS = (
    signal.SIGXCPU,
    signal.SIGXFSZ,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGABRT,
    signal.SIGILL,
)


def finish(claim: Claim, order: dict[str, Any], last: dict[str, Any]) -> Verb:
    """The job succeeded: its artifacts, or what its inspection found."""
    if claim.kind == "inspect":
        found = _with_stored_files(order, last)

        def settled(session: Session) -> None:
            jobs.finish(session, claim, found)
            resources.settle(session, claim.spec, found)

        return settled
    artifacts = _store_artifacts(order, last.get("artifacts", []))
    result = gates.judged(claim.spec, _naming_the_artifact(last["result"], artifacts))
    missed = gates.warnings_of(result["gates"])

    def finished(session: Session) -> None:
        if missed:
            lines = [("log", {"level": "warning", "message": message}) for message in missed]
            jobs.record(session, claim, events=lines)
        jobs.finish(session, claim, result, with_receipts(session, claim, order, last, artifacts))

    return finished


def finish_cancel(claim: Claim, order: dict[str, Any], last: dict[str, Any], *, detail: str) -> Verb:
    """The job was cancelled; what it had by then is kept."""
    if claim.kind == "inspect":
        problem = Problem(409, "INSPECTION_CANCELLED", "The inspection was cancelled: register it again.")

        def settled(session: Session) -> None:
            jobs.finish_cancel(session, claim, None, detail=detail)
            resources.settle(session, claim.spec, problem)

        return settled
    result, artifacts = _what_there_was(order, last)

    def cancelled(session: Session) -> None:
        kept = with_receipts(session, claim, order, last, artifacts)
        jobs.finish_cancel(session, claim, result, kept, detail=detail)

    return cancelled


def fail(claim: Claim, problem: Problem) -> Verb:
    """The job failed for a reason that another attempt would meet again."""

    def failed(session: Session) -> None:
        jobs.fail(session, claim, problem)
        if claim.kind == "inspect":
            resources.settle(session, claim.spec, problem)

    return failed


def fail_late(claim: Claim, order: dict[str, Any], last: dict[str, Any], *, detail: str) -> Verb:
    """The job's time is over; what it had by then is kept."""
    result, artifacts = _what_there_was(order, last)
    problem = deadline_exceeded(order["asked_seconds"])

    def failed(session: Session) -> None:
        kept = with_receipts(session, claim, order, last, artifacts)
        jobs.fail(session, claim, problem, detail=detail, result=result, artifacts=kept)

    return failed


def release(claim: Claim, *, outcome: str, detail: str) -> Verb:
    """The attempt was lost or handed back (`app.retries`): another one, if there is to be one."""

    def released(session: Session) -> None:
        jobs.release(session, claim, outcome=outcome, detail=detail)

    return released


def problem_of(last: dict[str, Any]) -> Problem:
    """The Problem that a child's error message carries."""
    return Problem(
        last["status"],
        last["code"],
        last["detail"],
        errors=last.get("errors"),
        retryable=last.get("retryable", False),
    )


def deadline_exceeded(asked_seconds: float) -> Problem:
    return Problem(
        504,
        "DEADLINE_EXCEEDED",
        f"The job did not end within deadline_seconds ({asked_seconds:g}): raise it, or take fewer epochs. "
        "The best student so far, if there was one, is among its artifacts.",
    )


def killed_by_its_limits(code: int | None, order: dict[str, Any]) -> Problem | None:
    """An inspection that broke its process says something about the file: a verdict, no crash to repeat."""
    if code is None or -code not in _LIMIT_SIGNALS:
        return None
    how = (
        "took too long"
        if -code == signal.SIGXCPU
        else f"ended the reading process ({signal.Signals(-code).name})"
    )
    what = {"teacher": "CHECKPOINT_UNREADABLE", "dataset": "DATASET_UNREADABLE"}.get(
        order["do"], "INSPECTION_FAILED"
    )
    return Problem(
        422, what, f"The file {how}: it is damaged, or made to do harm. Save it again and upload that."
    )


# How a process ends when libraries, not Python, are refused memory; 127 is the loader of shared libraries.
_STARVED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, 127)


def starved(code: int | None, order: dict[str, Any]) -> Problem | None:
    """A trainer with a memory limit that broke down: every further attempt would meet the same limit."""
    memory = order.get("limits", {}).get("memory_bytes")
    if not memory or code not in _STARVED:
        return None
    return Problem(
        507,
        "OUT_OF_MEMORY",
        f"The trainer broke down under its limit of {memory} bytes of memory (FEWBYTES_TRAINER_MEMORY_BYTES), exit code "
        f"{code}: lower batch_size or the image size, or take a smaller student.",
    )


def _what_there_was(
    order: dict[str, Any], last: dict[str, Any]
) -> tuple[dict[str, Any] | None, list[NewArtifact]]:
    """Result and artifacts of a child that was asked to stop."""
    artifacts = _store_artifacts(order, last.get("artifacts", []))
    result = last.get("result")
    return (_naming_the_artifact(result, artifacts) if result is not None else None), artifacts


def _store_artifacts(order: dict[str, Any], files: list[dict[str, Any]]) -> list[NewArtifact]:
    stored = []
    for file in files:
        sha256, size_bytes = _store(order, file["file"])
        stored.append(
            NewArtifact(
                step=file["step"],
                kind=file["kind"],
                name=file["name"],
                sha256=sha256,
                size_bytes=size_bytes,
                metrics=file["metrics"],
            )
        )
    return stored


def _naming_the_artifact(result: dict[str, Any], artifacts: list[NewArtifact]) -> dict[str, Any]:
    """The result with `artifact`: step, digest and size of the file that is the answer."""
    answers = [artifact for artifact in artifacts if artifact.kind in _ANSWERS]
    if not answers:
        return result | {"artifact": None}
    answer = answers[-1]
    return result | {
        "artifact": {"step": answer.step, "sha256": answer.sha256, "size_bytes": answer.size_bytes}
    }


def _with_stored_files(order: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """An inspection's result; for each of its `files` {"artifact": name} also "artifact_sha256", "…_size_bytes"."""
    result: dict[str, Any] = dict(last["result"])
    for key, name in last.get("files", {}).items():
        stored = _store(order, name) if name is not None else (None, None)
        result[f"{key}_sha256"], result[f"{key}_size_bytes"] = stored
    return result


def _store(order: dict[str, Any], name: str) -> tuple[str, int]:
    work_dir = Path(order["work_dir"]).resolve()
    path = (work_dir / name).resolve()
    # The child reads strangers' files: what it names is believed only inside its own folder.
    assert path.is_relative_to(work_dir), name
    return storage().put_file(path)
