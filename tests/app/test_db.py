"""The database's two kinds of transaction, its clock, ids, and what JSON may hold."""

import json
import re
import threading
import time

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from app import db
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.jobs import submit
from app.tables import Job


def count_jobs() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def test_a_transaction_is_kept_whole_or_not_at_all(database: str) -> None:
    with tenancy.transaction(DEFAULT) as session:
        submit(session, kind="compress", spec={})

    def fails_halfway() -> None:
        with tenancy.transaction(DEFAULT) as session:
            submit(session, kind="compress", spec={})
            raise KeyError("half way")

    with pytest.raises(KeyError):
        fails_halfway()
    assert count_jobs() == 1


def test_a_reading_cannot_write_and_the_connection_can_again_afterwards(database: str) -> None:
    def writes() -> None:
        with db.reading() as session:
            session.execute(text("DELETE FROM jobs"))

    with pytest.raises(DBAPIError, match=r"read-?only"):
        writes()
    with db.transaction() as session:
        session.execute(text("DELETE FROM jobs"))


def test_a_reading_sees_one_moment_and_never_waits_for_a_writer(database: str) -> None:
    with tenancy.transaction(DEFAULT) as session:
        submit(session, kind="compress", spec={})
    with db.reading() as reader:
        before = reader.scalar(select(func.count()).select_from(Job))
        with tenancy.transaction(DEFAULT) as writer:
            submit(writer, kind="compress", spec={})
            started = time.monotonic()
            assert count_jobs() == 1  # while the writer holds its lock
            assert time.monotonic() - started < 1.0
        assert reader.scalar(select(func.count()).select_from(Job)) == before == 1
    assert count_jobs() == 2


def test_writers_wait_for_each_other_and_none_fails(database: str) -> None:
    with tenancy.transaction(DEFAULT) as session:
        job_id = submit(session, kind="compress", spec={})[0].id
    errors: list[Exception] = []

    def add() -> None:
        try:
            for _ in range(25):
                with db.transaction() as session:
                    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
                    job.failures += 1
        except DBAPIError as error:
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with db.reading() as session:
        assert session.scalar(select(Job.failures)) == 100


def test_the_clock_counts_milliseconds_since_the_epoch_within_one_transaction_too(database: str) -> None:
    with db.transaction() as session:
        before, first = time.time(), session.scalar(select(db.db_now()))
        time.sleep(0.05)
        second = session.scalar(select(db.db_now()))
    assert first is not None
    assert second is not None
    assert first == pytest.approx(before, abs=0.5)  # both servers run on this machine
    assert 0.045 < second - first < 1.0


def test_threads_that_open_the_database_at_once_share_one_engine(database: str) -> None:
    db.close()
    engines: list[object] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        engines.append(db.engine())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 8
    assert len({id(engine) for engine in engines}) == 1


def test_foreign_keys_hold(database: str) -> None:
    def orphan() -> None:
        with db.transaction() as session:
            session.execute(
                text("INSERT INTO attempts (job_id, n, worker, started_at) VALUES ('no', 1, 'w', 0)")
            )

    with pytest.raises(DBAPIError, match=r"(?i)foreign key"):
        orphan()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_gets_the_installed_driver(scheme: str) -> None:
    engine = db.connect(f"{scheme}://user@example/db")
    assert engine.url.drivername == "postgresql+psycopg"


def test_ids_match_the_pattern_of_the_api_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(db.new_id("job"))
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"job_[0-9a-z]{26}", one) for one in ids)
    assert len({db.new_id("job") for _ in range(1000)}) == 1000


def test_json_holds_what_it_was_given_where_it_can() -> None:
    value = {"text": "é🙂", "list": [1, 2.5, None, True], "nested": {"a": (1, 2)}, "big": 2**53}
    assert json.loads(db.dumps(value)) == value | {"nested": {"a": [1, 2]}}
    assert db.dumps({"a\x00": float("inf")}) == '{"a\ufffd":null}'
