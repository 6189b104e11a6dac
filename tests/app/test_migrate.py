"""The migrations lead to the schema that the tables describe, from several processes at once too."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from app import db
from app.migrate import upgrade
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
    program = "import sys; from app.migrate import upgrade; upgrade(sys.argv[1])"
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
    monkeypatch.setattr("app.migrate.SCRIPTS", scripts)
    with pytest.raises(Exception, match="no_such_table"):
        upgrade(empty_database)
    engine = db.connect(empty_database)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
