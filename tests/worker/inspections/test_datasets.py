"""The process that looks at a data set: small, bounded, and gone without a trace when it refuses."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import db, jobs, resources
from app.access import tenancy, tenants
from app.settings import Settings, settings
from app.spec.resources import DatasetSpec
from app.storage.objects import storage
from app.tables import Dataset
from tests.corpus.photos import data_set, zipped
from tests.worker.inspections.test_teachers import child
from worker import supervisor, verdicts

# Enough for Python and Pillow, and less than the 96 MB that 24 megapixels take.
PROCESS_BYTES = 80 << 20


def order(folder: Path, content: bytes, **limits: int) -> dict[str, Any]:
    (folder / "upload").write_bytes(content)
    return {
        "do": "dataset",
        "spec": {"file": "photos.zip"},
        "file": str(folder / "upload"),
        "work_dir": str(folder / "work"),
        "limits": limits,
    }


def large_photos(side: int = 4900) -> bytes:
    """24 megapixels in 80 KB."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return zipped(data_set() | {f"cat/large{n}.png": file.getvalue() + bytes([n]) for n in range(2)})


def last_word(said: bytes) -> dict[str, Any]:
    word: dict[str, Any] = json.loads(said.splitlines()[-1])
    return word


def test_it_never_loads_torch() -> None:
    code = "import sys, worker.child, worker.inspections.datasets; print('torch' in sys.modules, 'PIL' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts memory on Linux alone")
def test_its_memory_is_limited_and_too_little_is_no_verdict_on_an_image(tmp_path: Path) -> None:
    """Not a bad image that is skipped: the data set is refused for want of memory, and once."""
    said, code = child(order(tmp_path, large_photos(), memory_bytes=PROCESS_BYTES))
    assert code == 0
    assert (last_word(said)["status"], last_word(said)["code"]) == (422, "OUT_OF_MEMORY")
    said, code = child(order(tmp_path, large_photos(), memory_bytes=4 * PROCESS_BYTES))
    assert last_word(said)["result"]["report"]["bad_images"]["count"] == 0


def test_what_would_unpack_to_more_than_it_may_write_is_refused_as_such(tmp_path: Path) -> None:
    """EFBIG would be an error of the disk, and tried again."""
    said, code = child(order(tmp_path, zipped(data_set(per_class=40)), file_bytes=4000))
    assert code == 0
    assert last_word(said)["code"] == "ARCHIVE_UNSAFE"
    assert "4000 bytes" in last_word(said)["detail"]


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGBUS", "SIGXCPU", "SIGABRT"])
def test_the_death_of_a_decoder_is_a_verdict(signal: str) -> None:
    import signal as signals

    problem = verdicts.killed_by_its_limits(-getattr(signals, signal), {"do": "dataset"})
    assert problem is not None
    assert (problem.status, problem.code) == (422, "DATASET_UNREADABLE")


# ---- with its supervisor


class Inspection:
    """A data set that was registered, and its inspection in a thread."""

    def __init__(self, content: bytes) -> None:
        sha256, size = _stored(content)
        with tenancy.transaction(tenants.DEFAULT) as session:
            resources.save_file(session, name="photos.zip", sha256=sha256, size_bytes=size)
            row = resources.register_dataset(session, DatasetSpec(file="photos.zip"), settings())
            self.ident, self.job_id = row.id, row.job_id
        with db.transaction() as session:
            claim = jobs.claim(session, self.job_id, worker="test")
        assert claim is not None
        self.claim = claim

    def run(self, command: list[str] = supervisor.CHILD) -> str:
        return supervisor.run(self.claim, command=command, preempt=threading.Event())

    @property
    def row(self) -> Dataset:
        with db.reading() as session:
            found = session.get(Dataset, self.ident)
            assert found is not None
            return found


def _stored(content: bytes) -> tuple[str, int]:
    writer = storage().writer()
    writer.write(content)
    return writer.commit()


def left_behind() -> list[str]:
    folder = settings().resolved_data_dir / "jobs"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture
def _database(sqlite_database: str, data_dir: Path) -> None:
    """A database and a storage of this test's own."""


@pytest.mark.usefixtures("_database")
def test_a_refusal_leaves_its_reason_and_no_file() -> None:
    inspection = Inspection(zipped(data_set() | {"../evil.png": b"x"}))
    assert inspection.run() == "user_error"
    assert inspection.row.state == "rejected"
    assert inspection.row.error is not None
    assert inspection.row.error["code"] == "ARCHIVE_UNSAFE"
    assert left_behind() == []


@pytest.mark.usefixtures("_database")
def test_a_good_one_leaves_index_and_pack_in_the_storage_alone() -> None:
    inspection = Inspection(zipped(data_set()))
    assert inspection.run() == "succeeded"
    row = inspection.row
    assert (row.state, row.report and row.report["class_names"]) == ("ready", ["cat", "dog"])
    assert row.pack_sha256 is not None
    assert storage().path(row.pack_sha256).stat().st_size == sum(map(len, data_set().values()))
    assert left_behind() == []


_STUCK = """
import sys, time, json, pathlib
order = json.loads(sys.stdin.readline())
pathlib.Path(order["work_dir"], "pack").write_bytes(b"half of it")
print(json.dumps({"type": "phase", "phase": "reading"}), flush=True)
"""


@pytest.mark.usefixtures("_database")
def test_a_cancelled_or_killed_one_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBYTES_CANCEL_GRACE_SECONDS", "0.2")
    settings.cache_clear()
    killed = Inspection(zipped(data_set()))
    assert killed.run([sys.executable, "-c", _STUCK + "import os; os.kill(os.getpid(), 9)"]) == "trainer_lost"
    assert left_behind() == []
    cancelled = Inspection(zipped(data_set("other/")))
    thread = threading.Thread(target=cancelled.run, args=([sys.executable, "-c", _STUCK + "time.sleep(60)"],))
    thread.start()
    give_up = time.monotonic() + 10
    while not left_behind() and time.monotonic() < give_up:
        time.sleep(0.02)
    with db.transaction() as session:
        jobs.cancel(session, cancelled.job_id)
    thread.join(20)
    assert not thread.is_alive()
    assert cancelled.row.state == "rejected"
    assert left_behind() == []


def test_inspections_have_a_memory_limit_by_default() -> None:
    """Eight threads of 25 megapixels need 3 GB."""
    assert Settings.model_fields["inspection_memory_bytes"].default >= 4 << 30
