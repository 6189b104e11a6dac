"""Objects: whole or not at all, named by what is in them."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.errors import Problem
from app.storage.objects import Storage


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def put(store: Storage, *chunks: bytes, limit_bytes: int | None = None) -> tuple[str, int]:
    with store.writer(limit_bytes) as writer:
        for chunk in chunks:
            writer.write(chunk)
        return writer.commit()


def test_an_object_is_found_by_the_sha256_of_its_bytes(store: Storage, tmp_path: Path) -> None:
    source = tmp_path / "teacher.pt"
    source.write_bytes(b"weights" * 300_000)  # longer than one chunk
    sha256, size_bytes = store.put_file(source)
    assert sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert size_bytes == 2_100_000
    assert store.path(sha256).read_bytes() == source.read_bytes()
    with store.open(sha256) as opened:
        assert opened.read(7) == b"weights"


def test_the_same_content_twice_is_one_object(store: Storage, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"same")
    assert store.put_file(source) == store.put_file(source)
    assert len(files_under(tmp_path / "objects")) == 1


def test_an_empty_file_is_an_object_too(store: Storage) -> None:
    sha256, size_bytes = put(store)
    assert (sha256, size_bytes) == (hashlib.sha256(b"").hexdigest(), 0)
    assert store.exists(sha256)


def test_a_writer_left_without_commit_leaves_nothing(store: Storage, tmp_path: Path) -> None:
    def broken_upload() -> None:
        with store.writer() as writer:
            writer.write(b"half of it")
            raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        broken_upload()
    assert files_under(tmp_path) == []


def test_one_byte_over_the_limit_is_refused_and_leaves_nothing(store: Storage, tmp_path: Path) -> None:
    put(store, b"0123456789", limit_bytes=10)
    with pytest.raises(Problem) as refusal:
        put(store, b"0123456789", b"!", limit_bytes=10)
    assert (refusal.value.status, refusal.value.code) == (413, "FILE_TOO_LARGE")
    assert len(files_under(tmp_path)) == 1


def test_a_missing_object_says_so(store: Storage) -> None:
    with pytest.raises(Problem) as missing:
        store.path("0" * 64)
    assert (missing.value.status, missing.value.code) == (410, "OBJECT_MISSING")


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_sha256_becomes_a_path(store: Storage, name: str) -> None:
    with pytest.raises(AssertionError):
        store.path(name)


def test_a_deleted_object_is_gone_and_deleting_it_again_is_harmless(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    sha256, _ = store.put_file(tmp_path / "a")
    store.delete(sha256)
    store.delete(sha256)
    assert not store.exists(sha256)


def test_a_full_disk_leaves_no_object(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(store, b"bytes")
    assert files_under(tmp_path) == []


def test_a_process_killed_while_writing_leaves_no_object_under_a_final_name(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from app.storage.objects import Storage\n"
        "writer = Storage(Path(sys.argv[1])).writer(); writer.write(b'x' * 3_000_000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    assert not (tmp_path / "objects" / "sha256").exists()
    assert len(files_under(tmp_path / "objects" / "partial")) == 1


def test_many_writers_of_the_same_content_at_once_all_succeed(store: Storage, tmp_path: Path) -> None:
    content = b"the same student" * 10_000
    results: list[tuple[str, int]] = []

    threads = [threading.Thread(target=lambda: results.append(put(store, content))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(hashlib.sha256(content).hexdigest(), len(content))] * 8
    assert store.path(results[0][0]).read_bytes() == content
