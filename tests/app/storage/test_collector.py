"""What nobody needs goes; what anybody needs stays, whoever begins to need it just now."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import jobs, resources
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.db import db_now, reading, transaction
from app.errors import Problem
from app.settings import Settings
from app.spec.resources import TeacherSpec
from app.storage import collector, leftovers, removal
from app.storage.collector import Collector, ForeignFolderError
from app.storage.objects import Storage
from app.storage.uploads import Parts
from app.tables import Artifact, Attempt, Duty, Event, Job, Metric, Upload, Worker

DAYS = 86400.0


@pytest.fixture
def config(database: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", collect_after_hours=24.0, keep_work_days=7.0)


@pytest.fixture
def store(config: Settings) -> Storage:
    """Of a service that has had files before."""
    list(collector.collect(config))
    return Storage(config.resolved_data_dir)


def put(store: Storage, content: bytes, *, age_hours: float = 0.0) -> str:
    with store.writer() as writer:
        writer.write(content)
        sha256, _ = writer.commit()
    age(store.path(sha256), age_hours)
    return sha256


def age(path: Path, hours: float) -> None:
    at = time.time() - hours * 3600
    os.utime(path, (at, at))


def name(sha256: str, file: str = "f.pt") -> None:
    with tenancy.transaction(DEFAULT) as session:
        resources.save_file(session, name=file, sha256=sha256, size_bytes=1)


def removed(config: Settings, *, dry_run: bool = False) -> list[str]:
    return sorted(thing.what for thing in collector.collect(config, dry_run=dry_run))


# ---- objects


def test_an_object_that_no_row_names_goes_when_it_is_old(config: Settings, store: Storage) -> None:
    old, new, named = (
        put(store, b"old", age_hours=25),
        put(store, b"new", age_hours=23),
        put(store, b"named", age_hours=99),
    )
    name(named)
    assert removed(config, dry_run=True) == [f"object {old}"]
    assert store.exists(old)
    assert removed(config) == [f"object {old}"]
    assert not store.exists(old)
    assert store.exists(new)
    assert store.exists(named)


def artifact(store: Storage, job_id: str, content: bytes) -> str:
    sha256 = put(store, content, age_hours=99)
    with transaction() as session:
        claim = jobs.claim(session, job_id, worker="w:1")
        assert claim is not None
        new = jobs.NewArtifact(1, "final", "final.pt", sha256, len(content), {})
        jobs.finish(session, claim, {"metrics": {}}, [new])
    return sha256


def submit(kind: str = "compress", **spec: object) -> str:
    with tenancy.transaction(DEFAULT) as session:
        return jobs.submit(session, kind=kind, spec=dict(spec))[0].id


def test_every_kind_of_row_keeps_what_it_names(config: Settings, store: Storage) -> None:
    """A file, a teacher (three objects), a data set (three), an artifact."""
    job_id = submit()
    kept = [artifact(store, job_id, b"artifact")]
    kept += [put(store, f"{n}".encode(), age_hours=99) for n in range(7)]
    name(kept[1])
    with tenancy.transaction(DEFAULT) as session:
        teacher = resources.register_teacher(session, TeacherSpec(file="f.pt"))
        teacher.file_sha256, teacher.artifact_sha256, teacher.tensors_sha256 = kept[2:5]
        session.add(
            resources.Dataset(
                id="dst_1",
                spec={},
                state="ready",
                job_id=teacher.job_id,
                file_sha256=kept[5],
                index_sha256=kept[6],
                pack_sha256=kept[7],
                created_at=1.0,
            )
        )
    assert removed(config) == []
    with transaction() as session:
        dataset = session.get(resources.Dataset, "dst_1")
        session.delete(dataset)
    assert removed(config) == sorted(f"object {sha256}" for sha256 in kept[5:])


def test_bytes_put_again_are_new_again(config: Settings, store: Storage) -> None:
    """Before its collection: whoever puts them has a day to name them."""
    sha256 = put(store, b"once more", age_hours=99)
    put(store, b"once more")
    assert removed(config) == []
    age(store.path(sha256), 99)
    assert removed(config) == [f"object {sha256}"]
    assert put(store, b"once more") == sha256  # after it
    assert store.exists(sha256)


def test_an_object_counts_as_new_from_its_end_on(config: Settings, store: Storage) -> None:
    """However long ago its last byte came: making it durable may take its time."""
    with store.writer() as writer:
        writer.write(b"slow")
        writer._file.flush()
        age(writer._partial, 99)
        writer.commit()
    assert removed(config) == []


def test_bytes_put_again_while_they_are_being_collected_stay(
    config: Settings, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decision and the deletion somebody puts the same content, and has it afterwards."""
    sha256 = put(store, b"contested", age_hours=99)
    delete = Storage.delete_if_old

    def late(self: Storage, digest: str, seconds: float) -> bool:
        put(store, b"contested")
        return delete(self, digest, seconds)

    monkeypatch.setattr(Storage, "delete_if_old", late)
    assert removed(config) == []
    assert store.path(sha256).read_bytes() == b"contested"


def test_a_writer_waits_for_a_deletion_under_way_and_a_deletion_for_writers(
    config: Settings, store: Storage
) -> None:
    sha256 = put(store, b"contested", age_hours=99)
    folder = store.path(sha256).parent
    done = threading.Event()

    def in_thread(action: Callable[[], object]) -> threading.Thread:
        done.clear()
        thread = threading.Thread(target=lambda: (action(), done.set()))
        thread.start()
        return thread

    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # a deletion
    writer = in_thread(lambda: put(store, b"contested"))
    assert not done.wait(0.1)
    fcntl.flock(held, fcntl.LOCK_SH)  # now another writer: both may
    assert done.wait(5)
    writer.join()
    age(store.path(sha256), 99)
    deletion = in_thread(lambda: store.delete_if_old(sha256, 3600))
    assert not done.wait(0.1)
    os.close(held)
    assert done.wait(5)
    deletion.join()
    assert not store.exists(sha256)


def test_a_file_deleted_while_a_teacher_is_made_of_it_leaves_the_teacher_its_bytes(
    config: Settings, store: Storage
) -> None:
    """The deletion waits until the teacher is there, so the old bytes have a name at every moment."""
    sha256 = put(store, b"weights", age_hours=99)
    name(sha256)
    order: list[str] = []

    def delete() -> None:
        with tenancy.transaction(DEFAULT) as session:
            resources.delete_file(session, "f.pt")
            session.flush()
            order.append("deleted")

    with tenancy.transaction(DEFAULT) as session:
        resources.register_teacher(session, TeacherSpec(file="f.pt"))
        session.flush()
        thread = threading.Thread(target=delete)
        thread.start()
        time.sleep(0.3)
        assert removed_in_thread(config) == []
        order.append("registered")
    thread.join()
    assert order == ["registered", "deleted"]
    assert removed(config) == []
    assert store.exists(sha256)


def removed_in_thread(config: Settings) -> list[str]:
    """The collector only reads where it removes nothing, so it waits for nobody."""
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.extend(t.what for t in leftovers.objects(config, dry_run=False))
    )
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return found


def test_a_folder_of_another_database_is_left_alone(config: Settings, store: Storage) -> None:
    """To an empty database everything looks needless."""
    sha256 = put(store, b"somebody's", age_hours=99)
    with transaction() as session:
        session.execute(update(Duty).where(Duty.name == "data folder").values(owner="another database"))
    with pytest.raises(ForeignFolderError, match="belongs to another database"):
        removed(config)
    (config.resolved_data_dir / "objects" / "belongs-to").unlink()
    with pytest.raises(ForeignFolderError, match="names none of the objects"):
        removed(config)
    assert store.exists(sha256)
    name(sha256)
    assert removed(config) == []


# ---- uploads, partial objects, workers


def test_what_killed_writers_left_goes(config: Settings, store: Storage) -> None:
    left, under_way = store.partial / "tmpleft", store.partial / "tmpnew"
    store.partial.mkdir(parents=True)
    left.write_bytes(b"half")
    under_way.write_bytes(b"half")
    age(left, 25)
    assert removed(config) == ["unfinished object tmpleft"]
    assert under_way.exists()


def test_an_upload_goes_when_it_expires_and_not_while_a_request_writes_to_it(
    config: Settings, store: Storage
) -> None:
    parts = Parts(config.resolved_data_dir)
    with tenancy.transaction(DEFAULT) as session:
        upload = resources.begin_upload(session, name="f", size_bytes=9, sha256=None, settings=config)
    parts.begin(upload.id)
    (config.resolved_data_dir / "uploads" / "upl_unknown").write_bytes(b"abc")
    assert removed(config) == []
    age(parts.path("upl_unknown"), 25)
    with transaction() as session:
        session.execute(update(Upload).values(expires_at=1.0))
    with parts.append(upload.id):
        assert removed(config) == ["bytes of the upload upl_unknown"]
    assert removed(config) == [f"upload {upload.id}"]
    assert parts.offset(upload.id) is None
    with reading() as session:
        assert session.scalar(select(func.count(Upload.id))) == 0


def test_rows_of_workers_that_fell_silent_go(config: Settings, store: Storage) -> None:
    with transaction() as session:
        for ident, at in (("old:1", 1.0), ("new:2", db_now())):
            session.add(Worker(id=ident, queues=[], device="cpu", started_at=at, seen_at=at))
    assert removed(config) == ["row of the worker old:1"]


# ---- work folders


def folder_of(config: Settings, job_id: str) -> Path:
    folder = config.resolved_data_dir / "jobs" / job_id / "attempt-1"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"state")
    return folder.parent


def ended(state: str, days_ago: float, kind: str = "compress") -> str:
    job_id = submit(kind)
    with transaction() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(state=state, finished_at=db_now() - days_ago * DAYS)
        )
    return job_id


def test_the_folder_of_a_job_stays_as_long_as_the_job_may_go_on(config: Settings, store: Storage) -> None:
    queued = submit()
    running = submit()
    with transaction() as session:
        assert jobs.claim(session, running, worker="w:1")
    stay = [queued, running, ended("failed", 6.9), ended("cancelled", 6.9)]
    go = [
        ended("failed", 7.1),
        ended("cancelled", 7.1),
        ended("succeeded", 0),
        "job_gone",
        ended("failed", 0, "inspect"),
    ]
    for job_id in stay + go:
        folder_of(config, job_id)
    (config.resolved_data_dir / "jobs" / "job_x.deleted").mkdir()  # of a collector that was killed
    what = removed(config)
    assert what == sorted([f"work folder of {job_id}" for job_id in go] + ["work folder job_x"])
    assert sorted(path.name for path in (config.resolved_data_dir / "jobs").iterdir()) == sorted(stay)


def test_a_job_that_is_tried_again_just_now_keeps_its_folder(
    config: Settings, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ended("failed", 8)
    folder = folder_of(config, job_id)
    transaction = leftovers.transaction

    def retried_first() -> AbstractContextManager[Session]:
        """Between the look at the row and the lock on it."""
        with tenancy.transaction(DEFAULT) as session:
            jobs.retry(session, job_id)
        return transaction()

    monkeypatch.setattr(leftovers, "transaction", retried_first)
    assert [t.what for t in leftovers.work_folders(config, dry_run=False)] == []
    assert (folder / "attempt-1" / "checkpoint.pt").exists()


# ---- decoded images


def test_decoded_images_go_when_no_job_used_them_for_days(config: Settings, store: Storage) -> None:
    cache = config.resolved_data_dir / "cache"
    cache.mkdir()
    for file, days in (("old.u8", 8), ("new.u8", 6), ("used.u8", 8), ("half.part", 2)):
        (cache / file).write_bytes(b"pixels")
        age(cache / file, days * 24)
    with (cache / "used.u8").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as every process that uses it has
        assert removed(config) == ["decoded images old.u8", "half-decoded images half.part"]
    assert removed(config) == ["decoded images used.u8"]


def test_shared_answers_go_when_no_job_used_them_for_days(config: Settings, store: Storage) -> None:
    folder = config.resolved_data_dir / "cache" / "tenants" / "ten_1"
    folder.mkdir(parents=True)
    for file, days in (("a.labels", 8), ("b.labels", 6), ("a.measured", 8), ("b.measured", 6), ("c.part", 2)):
        (folder / file).write_bytes(b"answers")
        age(folder / file, days * 24)
    assert removed(config, dry_run=True) == removed(config)
    assert sorted(path.name for path in folder.iterdir()) == ["b.labels", "b.measured"]


# ---- jobs


def job_with_everything(store: Storage, content: bytes) -> tuple[str, str]:
    job_id = submit()
    sha256 = artifact(store, job_id, content)
    with transaction() as session:
        session.add(Metric(job_id=job_id, seed=0, step=1, name="loss", value=1.0))
    return job_id, sha256


def rows_of(job_id: str) -> int:
    with reading() as session:
        found = [
            session.scalar(select(func.count()).select_from(table).where(table.job_id == job_id))
            for table in (Event, Metric, Attempt, Artifact)
        ]
        return sum(number or 0 for number in found)


def test_a_deleted_job_leaves_nothing_but_bytes_that_others_have(config: Settings, store: Storage) -> None:
    first, shared = job_with_everything(store, b"the same student")
    second, _ = job_with_everything(store, b"the same student")
    age(store.path(shared), 99)
    assert rows_of(first) > 4
    with tenancy.transaction(DEFAULT) as session:
        removal.remove(session, first)
    assert rows_of(first) == 0
    assert removed(config) == []
    with tenancy.transaction(DEFAULT) as session:
        removal.remove(session, second)
    assert removed(config) == [f"object {shared}"]


def test_only_an_ended_job_can_be_deleted(config: Settings, store: Storage) -> None:
    job_id = submit()
    with pytest.raises(Problem) as refusal, tenancy.transaction(DEFAULT) as session:
        removal.remove(session, job_id)
    assert (refusal.value.status, refusal.value.code) == (409, "JOB_NOT_FINISHED")


def test_an_inspection_goes_with_what_it_inspected_and_not_before(config: Settings, store: Storage) -> None:
    name(put(store, b"weights"))
    with tenancy.transaction(DEFAULT) as session:
        teacher = resources.register_teacher(session, TeacherSpec(file="f.pt"))
    with transaction() as session:
        session.execute(update(Job).values(state="succeeded", finished_at=1.0))
    keep_a_day = config.model_copy(update={"keep_jobs_days": 1.0})
    with pytest.raises(Problem) as refusal, tenancy.transaction(DEFAULT) as session:
        removal.remove(session, teacher.job_id)
    assert refusal.value.code == "IN_USE"
    assert removed(keep_a_day) == []
    with tenancy.transaction(DEFAULT) as session:
        resources.remove(session, "teacher", teacher.id)
    assert removed(keep_a_day) == [f"job {teacher.job_id}"]


def test_ended_jobs_are_kept_for_the_days_the_operator_says(config: Settings, store: Storage) -> None:
    old, new, waiting = ended("succeeded", 31), ended("failed", 29), submit()
    assert removed(config) == []  # 0: for ever
    keep_a_month = config.model_copy(update={"keep_jobs_days": 30.0})
    assert removed(keep_a_month, dry_run=True) == [f"job {old}"]
    assert removed(keep_a_month) == [f"job {old}"]
    with reading() as session:
        assert set(session.scalars(select(Job.id))) == {new, waiting}


# ---- the thread


def test_one_of_two_services_collects_and_the_other_takes_over(
    config: Settings, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "_FIRST_AFTER_SECONDS", 0.01)
    monkeypatch.setattr(collector, "COLLECT_SECONDS", 0.05)
    sha256 = put(store, b"old", age_hours=99)
    first, second = Collector(config), Collector(config)
    first.start()
    until(lambda: not store.exists(sha256))
    second.start()
    until(lambda: holders() == [first._owner])
    first.stop()
    sha256 = put(store, b"older", age_hours=99)
    until(lambda: not store.exists(sha256))
    assert holders() == [second._owner]
    second.stop()
    assert holders() == []


def holders() -> list[str]:
    with reading() as session:
        return list(session.scalars(select(Duty.owner).where(Duty.name == "collect")))


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)
