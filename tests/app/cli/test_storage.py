"""`fewbytes collect` and `fewbytes verify`, as the operator types them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import db, resources
from app.access import tenancy
from app.access.tenants import DEFAULT
from app.database.migrate import upgrade
from app.spec.resources import TeacherSpec
from app.storage.objects import Storage


class Installation:
    """A data folder with its database, as `fewbytes up` leaves them."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.store = Storage(data_dir)
        data_dir.mkdir()
        self.url = f"sqlite:///{data_dir / 'fewbytes.db'}"
        upgrade(self.url)
        db.configure(self.url)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    def put(self, content: bytes, name: str | None = None) -> str:
        with self.store.writer() as writer:
            writer.write(content)
            sha256, size_bytes = writer.commit()
        two_days_ago = time.time() - 2 * 86400
        os.utime(self.store.path(sha256), (two_days_ago, two_days_ago))
        if name is not None:
            with tenancy.transaction(DEFAULT) as session:
                resources.save_file(session, name=name, sha256=sha256, size_bytes=size_bytes)
        return sha256


@pytest.fixture
def installation(tmp_path: Path):  # type: ignore[no-untyped-def]
    yield Installation(tmp_path / "data")
    db.configure(None)


def test_collect_prints_what_goes_and_how_many_bytes(installation: Installation) -> None:
    kept = installation.put(b"kept", "kept.pt")
    gone = installation.put(b"not needed")
    dry = installation.run("collect", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, f"10\tobject {gone}\n"), dry.stderr
    assert "Would remove 1 things, 10 bytes" in dry.stderr
    assert installation.store.exists(gone)
    done = installation.run("collect")
    assert (done.returncode, done.stdout) == (0, dry.stdout)
    assert not installation.store.exists(gone)
    assert installation.store.exists(kept)


def test_collect_refuses_a_folder_that_the_database_does_not_know(installation: Installation) -> None:
    foreign = installation.put(b"somebody else's")
    refused = installation.run("collect")
    assert refused.returncode == 2
    assert "names none of the objects" in refused.stderr
    assert installation.store.exists(foreign)


def test_verify_names_what_is_missing_and_damaged_and_who_needs_it(installation: Installation) -> None:
    sound = installation.put(b"sound", "sound.pt")
    damaged, missing = installation.put(b"damaged", "damaged.pt"), installation.put(b"missing", "missing.pt")
    with tenancy.transaction(DEFAULT) as session:
        teacher = resources.register_teacher(session, TeacherSpec(file="damaged.pt"))
    well = installation.run("verify")
    assert (well.returncode, well.stdout) == (0, ""), well.stderr
    assert "Read 3 objects, 19 bytes: none missing or damaged" in well.stderr
    place = installation.store.path(damaged)
    place.chmod(0o600)
    place.write_bytes(b"damagee")  # as long as before
    installation.store.delete(missing)
    found = installation.run("verify")
    assert found.returncode == 1
    lines = dict(line.split("\t")[1:] for line in found.stdout.splitlines())
    assert lines.keys() == {damaged, missing}
    assert f"damaged\t{damaged}" in found.stdout
    assert f"missing\t{missing}" in found.stdout
    assert f"{teacher.id} (teachers.file_sha256)" in lines[damaged]
    assert "(files.sha256)" in lines[damaged]
    assert sound not in found.stdout


def test_a_damaged_object_is_mended_by_putting_it_again(installation: Installation) -> None:
    sha256 = installation.put(b"damaged", "a.pt")
    installation.store.path(sha256).unlink()
    assert installation.run("verify").returncode == 1
    installation.put(b"damaged")
    assert installation.run("verify").returncode == 0
