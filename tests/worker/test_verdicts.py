"""Which of a job's files is called its answer."""

from app.jobs import NewArtifact
from worker.verdicts import _naming_the_artifact


def file(kind: str, step: int = 1) -> NewArtifact:
    return NewArtifact(step, kind, f"{kind}.bin", f"{step}" * 64, step, {})


def test_the_answer_is_the_last_network() -> None:
    """Not an export, and no file that a step offers beside its network."""
    files = [file("stage"), file("final", 2), file("export", 2), file("soft_labels", 1)]
    assert _naming_the_artifact({}, files)["artifact"] == {"step": 2, "sha256": "2" * 64, "size_bytes": 2}


def test_files_without_a_network_are_no_answer() -> None:
    assert _naming_the_artifact({}, [file("soft_labels")])["artifact"] is None
