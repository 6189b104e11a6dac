"""Files that jobs share are there whole or not at all, whoever wrote them, however they were damaged."""

import errno
import os
import threading
from pathlib import Path

import pytest

from app.storage import disk
from worker import shared_files
from worker.shared_files import SharedFiles, shared_name


@pytest.fixture
def files(tmp_path: Path) -> SharedFiles:
    return SharedFiles(tmp_path / "shared")


def test_what_is_kept_is_read_and_copied(files: SharedFiles, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"labels" * 1000)
    assert files.read("a") is None
    assert not files.copy("a", tmp_path / "target")
    assert files.keep_file("a", tmp_path / "source")
    assert files.keep("b", b"")
    assert files.copy("a", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == files.read("a") == b"labels" * 1000
    assert files.read("b") == b""


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "lengthened"])
def test_a_damaged_file_is_none(files: SharedFiles, tmp_path: Path, harm: str) -> None:
    files.keep("a", b"0123456789" * 10)
    path = tmp_path / "shared" / "a"
    content = path.read_bytes()
    flipped = content[:50] + bytes([content[50] ^ 1]) + content[51:]
    changed = {"cut": content[:-1], "flipped": flipped, "emptied": b"", "lengthened": content + b"\0"}
    path.write_bytes(changed[harm])
    assert files.read("a") is None
    assert not files.copy("a", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert files.keep("a", b"new")
    assert files.read("a") == b"new"


def test_writers_at_once_leave_one_whole_file(files: SharedFiles, tmp_path: Path) -> None:
    contents = {bytes([number]) * 300_000 for number in range(8)}
    threads = [threading.Thread(target=files.keep, args=("a", content)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert files.read("a") in {None, *contents}
    assert files.read("a") in contents
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["a"]


def test_a_full_disk_is_said_and_harms_nothing(
    files: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shared_files.os, "fsync", full)
        assert not files.keep("a", b"content")
    assert list((tmp_path / "shared").iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(disk, "free_bytes", lambda folder: 13)
        assert not files.keep("a", b"content")
    assert files.keep("a", b"content")


def test_whoever_uses_a_file_gives_it_a_new_time(files: SharedFiles, tmp_path: Path) -> None:
    files.keep("a", b"content")
    path = tmp_path / "shared" / "a"
    for use in (lambda: files.read("a"), lambda: files.copy("a", tmp_path / "target")):
        os.utime(path, (1.0, 1.0))
        use()
        assert path.stat().st_mtime > 1.0


def test_a_name_is_that_of_everything_that_decides() -> None:
    assert shared_name("labels", {"a": 1, "b": 2}) == shared_name("labels", {"b": 2, "a": 1})
    names = {
        shared_name("labels", {"a": 1}),
        shared_name("labels", {"a": 2}),
        shared_name("measured", {"a": 1}),
        shared_name("labels", {"b": 1}),
    }
    assert len(names) == 4
