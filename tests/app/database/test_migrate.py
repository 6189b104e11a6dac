"""The migrations lead to the schema that the tables describe, from several processes at once too."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from app import db
from app.database.migrate import SCRIPTS, _migration_engine, upgrade
from app.tables import Base


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, Base.metadata))


def test_the_migrated_schema_is_that_of_the_tables(empty_database: str) -> None:
    engine = db.connect(empty_database)
    assert differences(engine)  # the comparison sees something where nothing is
    upgrade(empty_database)
    assert differences(engine) == []
    assert inspect(engine).get_pk_constraint("events")["constrained_columns"] == ["job_id", "seq"]
    engine.dispose()


def test_upgrading_again_changes_nothing(empty_database: str) -> None:
    upgrade(empty_database)
    engine = db.connect(empty_database)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO files VALUES ('file_1', 'a.pt', '00', 5000000000, 1, 1, 'ten_default')")
        )
    upgrade(empty_database)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT size_bytes FROM files")) == 5_000_000_000
    engine.dispose()


def test_metrics_of_before_there_were_seeds_are_the_jobs_own(empty_database: str) -> None:
    upgrade(empty_database, "0001")
    engine = db.connect(empty_database)
    columns = (
        "id, kind, queue, labels, spec, fingerprint, state, version, last_seq, attempt, failures, created_at"
    )
    with engine.begin() as connection:
        values = "'job_1', 'compress', 'compress', '{}', '{}', '', 'queued', 1, 0, 0, 0, 0"
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))
        row = "'job_1', 1, -1, 'val', 'accuracy', 0.5, '1'"
        insert = "INSERT INTO metrics (job_id, step, epoch, split, name, value, unit) VALUES "
        connection.execute(text(f"{insert}({row})"))
    upgrade(empty_database)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT seed, value FROM metrics")).all() == [(0, 0.5)]
    engine.dispose()


def test_processes_that_start_at_once_all_find_the_newest_schema(empty_database: str) -> None:
    program = "import sys; from app.database.migrate import upgrade; upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty_database], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    engine = db.connect(empty_database)
    assert differences(engine) == []
    engine.dispose()


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    source = Path("migrations")
    (scripts / "env.py").write_text((source / "env.py").read_text())
    [first] = source.glob("versions/0001_*.py")
    broken = first.read_text().replace(
        "def downgrade", '    op.execute("SELECT * FROM no_such_table")\n\n\ndef downgrade'
    )
    (scripts / "versions" / first.name).write_text(broken)
    monkeypatch.setattr("app.database.migrate.SCRIPTS", scripts)
    with pytest.raises(Exception, match="no_such_table"):
        upgrade(empty_database)
    engine = db.connect(empty_database)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


ROWS_OF_BEFORE = (
    "INSERT INTO files (id, name, sha256, size_bytes, created_at, updated_at) VALUES ('file_1', 'a.pt', '00', 7, 1, 2)",
    "INSERT INTO jobs (id, kind, queue, name, labels, spec, fingerprint, idempotency_key, state, version, last_seq,"
    " attempt, failures, created_at) VALUES ('job_1', 'compress', 'compress', 'é', '{\"a\": \"b\"}', '{}', 'f', 'k',"
    " 'running', 4, 3, 1, 0, 5.5)",
    "INSERT INTO attempts (job_id, n, worker, started_at) VALUES ('job_1', 1, 'w', 6)",
    "INSERT INTO events (job_id, seq, at, type, data) VALUES ('job_1', 1, 5, 'state', '{}')",
    "INSERT INTO metrics (job_id, seed, step, epoch, split, name, value, unit) VALUES"
    " ('job_1', 2, 1, -1, 'val', 'accuracy', 0.5, '1')",
    "INSERT INTO artifacts (id, job_id, step, kind, name, sha256, size_bytes, metrics, created_at) VALUES"
    " ('art_1', 'job_1', 1, 'final', 'a', '11', 9, '{}', 8)",
    "INSERT INTO uploads (id, name, size_bytes, created_at, expires_at) VALUES ('upl_1', 'u', 3, 1, 2)",
    "INSERT INTO teachers (id, spec, state, file_sha256, file_size_bytes, job_id, created_at) VALUES"
    " ('tch_1', '{}', 'ready', '00', 7, 'job_1', 1)",
    "INSERT INTO datasets (id, spec, state, job_id, created_at) VALUES ('dst_1', '{}', 'ready', 'job_1', 1)",
)
OWNED = ("files", "jobs", "artifacts", "uploads", "teachers", "datasets")
OTHERS = ("attempts", "events", "metrics")


def test_what_was_there_before_tenants_is_the_default_ones_and_else_unchanged(empty_database: str) -> None:
    """The rows of every table; the new constraints hold afterwards."""
    upgrade(empty_database, "0003")
    engine = db.connect(empty_database)
    with engine.begin() as connection:
        for row in ROWS_OF_BEFORE:
            connection.exec_driver_sql(row)
    before = rows(engine)
    upgrade(empty_database)
    for table, old in before.items():
        [new] = rows(engine)[table]
        assert new.items() >= old[0].items(), table
        assert new.get("tenant_id") == ("ten_default" if table in OWNED else None)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id, name FROM tenants")).all() == [("ten_default", "default")]
        connection.execute(text("INSERT INTO tenants (id, name, created_at) VALUES ('ten_2', 'two', 0)"))
        again = (
            ROWS_OF_BEFORE[0].replace("updated_at)", "updated_at, tenant_id)").replace("'file_1'", "'file_2'")
        )
        connection.exec_driver_sql(again.replace("1, 2)", "1, 2, 'ten_2')"))

    def breaks(statement: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    for broken in (
        again.replace("file_2", "file_3").replace("1, 2)", "1, 2, 'ten_default')"),  # its name is taken there
        again.replace("file_2", "file_3")
        .replace("a.pt", "b.pt")
        .replace("1, 2)", "1, 2, 'ten_9')"),  # nobody
        ROWS_OF_BEFORE[0].replace("file_1", "file_4").replace("a.pt", "c.pt"),  # no owner
    ):
        with pytest.raises(IntegrityError):
            breaks(broken)
    engine.dispose()


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    with engine.begin() as connection:
        return {
            table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
            for table in (*OWNED, *OTHERS)
        }


def test_one_tenant_can_go_back_to_before(empty_database: str) -> None:
    """And forward again."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    upgrade(empty_database, "0003")
    engine = db.connect(empty_database)
    with engine.begin() as connection:
        for row in ROWS_OF_BEFORE:
            connection.exec_driver_sql(row)
    before = rows(engine)
    upgrade(empty_database)
    migrating = _migration_engine(empty_database)
    with migrating.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    migrating.dispose()
    assert rows(engine) == before
    upgrade(empty_database)
    assert differences(engine) == []
    engine.dispose()
