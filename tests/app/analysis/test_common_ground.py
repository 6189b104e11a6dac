"""Whether jobs may be compared at all."""

from typing import Any

import pytest

from app.access import tenancy
from app.access.tenants import DEFAULT
from app.analysis.common_ground import CommonGround, common_ground
from app.analysis.reads import Gathered
from app.tables import Teacher
from tests.app.analysis.made import child, result, stage


def ground(*results: dict[str, Any] | None, teachers: list[list[str]] | None = None) -> CommonGround:
    """Of jobs with these results, none of whose teachers the database has, unless a test put them there."""
    children = []
    for number, each in enumerate(results):
        made = child(number, {"n": number}, result=each, state="succeeded" if each else "queued")
        if teachers:
            made.job.spec = {**made.job.spec, "teachers": teachers[number]}
        children.append(made)
    gathered = Gathered(children, {each.job.id: each.job.result for each in children}, {})
    with tenancy.reading(DEFAULT) as session:
        return common_ground(session, gathered)


@pytest.fixture(autouse=True)
def _database(sqlite_database: str) -> None:
    """Teachers are looked up."""


def test_jobs_on_the_same_ground_have_no_warning() -> None:
    found = ground(result(stage(1, "distill")), result(stage(1, "train")), None)
    assert found.warnings == []
    assert vars(found.shared) == {"teacher": True, "splits": True, "version": True}
    assert found.digests.teacher == [["tch_1"]]
    assert found.digests.splits["test"] == ["t" * 64]
    assert found.digests.version == ["0.1.0"]


def test_nothing_is_said_of_jobs_without_results() -> None:
    assert vars(ground(None, None).shared) == {"teacher": None, "splits": None, "version": None}


def test_other_test_images_are_told() -> None:
    other = result(stage(1, "distill"))
    other["splits"] = {**other["splits"], "test": {"digest": "0" * 64}}
    found = ground(result(stage(1, "distill")), other)
    assert (found.shared.teacher, found.shared.splits, found.shared.version) == (True, False, True)
    [warning] = found.warnings
    assert "Not the same test images" in warning
    assert found.digests.splits["test"] == ["0" * 64, "t" * 64]


def test_a_split_that_one_does_not_have_is_another() -> None:
    other = result(stage(1, "distill"))
    other["splits"] = {name: split for name, split in other["splits"].items() if name != "test"}
    assert ground(result(stage(1, "distill")), other).shared.splits is False


def test_other_training_photos_are_told_but_measure_the_same() -> None:
    other = result(stage(1, "distill"))
    other["splits"] = {**other["splits"], "train": {"digest": "0" * 64}}
    found = ground(result(stage(1, "distill")), other)
    assert found.shared.splits is True
    [warning] = found.warnings
    assert "Not the same train images" in warning


def test_another_version_is_told() -> None:
    other = result(stage(1, "distill"), environment={"fewbytes": "0.2.0"})
    found = ground(result(stage(1, "distill")), other)
    assert found.shared.version is False
    assert "0.1.0, 0.2.0" in found.warnings[0]


def test_teachers_are_told_by_their_bytes() -> None:
    """Two ids of the same file are one teacher; the order of an ensemble counts."""
    with tenancy.transaction(DEFAULT) as session:
        for ident, sha256 in (("tch_a", "a" * 64), ("tch_b", "a" * 64), ("tch_c", "c" * 64)):
            session.add(
                Teacher(
                    id=ident,
                    spec={},
                    state="ready",
                    file_sha256=sha256,
                    file_size_bytes=1,
                    job_id=_job(session, ident),
                    artifact_sha256=sha256,
                    created_at=0.0,
                )
            )
    done = result(stage(1, "distill"))
    assert ground(done, done, teachers=[["tch_a"], ["tch_b"]]).shared.teacher is True
    found = ground(done, done, teachers=[["tch_a"], ["tch_a", "tch_c"]])
    assert found.shared.teacher is False
    assert found.digests.teacher == [["a" * 64], ["a" * 64, "c" * 64]]
    assert "Not the same teacher" in found.warnings[0]
    assert ground(done, done, teachers=[["tch_a"], ["tch_gone"]]).digests.teacher == [
        ["a" * 64],
        ["tch_gone"],
    ]


def _job(session: Any, ident: str) -> str:
    made = child(0, {})
    made.job.id, made.job.kind = f"ins_{ident}", "inspect"
    made.job.queue, made.job.labels, made.job.fingerprint, made.job.created_at = "inspect", {}, "f" * 64, 0.0
    session.add(made.job)
    session.flush()
    return made.job.id


def test_latencies_of_other_devices_are_told() -> None:
    elsewhere = stage(1, "train")
    elsewhere["latency_ms"] = {**elsewhere["latency_ms"], "device": "a GPU"}
    found = ground(result(stage(1, "train")), result(elsewhere))
    [warning] = found.warnings
    assert "a CPU with 1 threads; a GPU with 1 threads" in warning


def test_leaks_are_told() -> None:
    leaked = stage(1, "train")
    leaked["splits"]["test"]["leaked"] = True
    found = ground(result(stage(1, "train")), result(leaked))
    assert found.warnings == ["1 of 2 jobs trained on test: their test figures say nothing of other photos."]
