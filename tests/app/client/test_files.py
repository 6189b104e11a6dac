"""Uploads over lines that break."""

import random
from pathlib import Path

import httpx
import pytest

from app.client import Client, FewbytesError, files
from tests.app.client.conftest import BreakingLine
from tests.app.conftest import Service

KIB = 1 << 10


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large in life is some hundred kibibytes here."""
    monkeypatch.setattr(files, "IN_PIECES_BYTES", 100 * KIB)
    monkeypatch.setattr(files, "BLOCK_BYTES", 16 * KIB)


def write(path: Path, num_bytes: int) -> Path:
    path.write_bytes(random.Random(num_bytes).randbytes(num_bytes))
    return path


@pytest.mark.parametrize("num_bytes", [0, 1, 100 * KIB - 1, 100 * KIB, 600 * KIB + 1])
def test_a_file_arrives_whole(client: Client, tmp_path: Path, num_bytes: int) -> None:
    path = write(tmp_path / "a.bin", num_bytes)
    stored = client.files.upload(path, "b.bin")
    assert (stored.name, stored.size_bytes) == ("b.bin", num_bytes)
    assert stored.sha256 == files.digest_of(path)[0]
    assert client.files.get("b.bin") == stored


def test_what_is_there_is_not_sent_again(client: Client, line: BreakingLine, tmp_path: Path) -> None:
    """The same name with the same bytes; other bytes are sent."""
    path = write(tmp_path / "a.bin", 300)
    first = client.files.upload(path)
    again = client.files.upload(path)
    assert first.sha256 == again.sha256
    assert len(line.asked("PUT")) == 1
    client.files.upload(write(path, 301))
    assert len(line.asked("PUT")) == 2


def test_a_broken_line_costs_only_what_was_under_way(
    client: Client, line: BreakingLine, tmp_path: Path
) -> None:
    """It is cut three times, and each time the upload goes on where the service had got to."""
    path = write(tmp_path / "a.bin", 900 * KIB)
    line.cut_sending = [300 * KIB, 200 * KIB, 10]
    done: list[int] = []
    stored = client.files.upload(path, on_progress=lambda at, total: done.append(at))
    assert stored.sha256 == files.digest_of(path)[0]
    ranges = [request.headers["content-range"] for request in line.asked("PUT")]
    starts = [int(text.removeprefix("bytes ").split("-")[0]) for text in ranges]
    assert len(starts) >= 4  # more when the service still holds what a broken request left
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] > 0
    sent = sum(len(request.content) if request.stream is None else 0 for request in line.asked("POST"))
    assert sent == 0
    assert done[-1] == 900 * KIB


def test_a_line_through_which_nothing_gets_is_given_up(
    client: Client, line: BreakingLine, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.bin", 200 * KIB)
    line.cut_sending = [0] * 100
    with pytest.raises(FewbytesError, match="UNREACHABLE"):
        client.files.upload(path)
    assert len(line.asked("PUT")) == files.WITHOUT_GAIN


def test_another_process_goes_on_where_one_stopped(
    sqlite_service: Service, line: BreakingLine, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.bin", 500 * KIB)
    begun: list[str] = []
    url = str(sqlite_service.client.base_url)

    def interrupt(done: int, total: int) -> None:
        if done > 200 * KIB:
            raise KeyboardInterrupt

    with Client(url) as first, pytest.raises(KeyboardInterrupt):
        first.files.upload(path, on_begin=begun.append, on_progress=interrupt)
    with Client(url, transport=line) as second:
        stored = second.files.upload(path, resume=begun[0])
    assert stored.sha256 == files.digest_of(path)[0]
    assert not line.asked("POST")
    assert int(line.asked("PUT")[-1].headers["content-length"]) < 500 * KIB


def test_an_upload_is_of_one_file(client: Client, tmp_path: Path) -> None:
    begun = client.uploads.begin("a.bin", size_bytes=200 * KIB)
    with pytest.raises(FewbytesError, match="OTHER_FILE"):
        client.files.upload(write(tmp_path / "a.bin", 201 * KIB), resume=begun.id)


def test_a_file_that_changes_meanwhile_is_refused(client: Client, tmp_path: Path) -> None:
    """The digest was told first; what arrives has another."""
    path = write(tmp_path / "a.bin", 200 * KIB)
    begun = client.uploads.begin("a.bin", size_bytes=200 * KIB, sha256="0" * 64)
    with pytest.raises(FewbytesError, match="DIGEST_MISMATCH"):
        client.files.upload(path, resume=begun.id)


def test_a_busy_service_is_waited_for(client: Client, line: BreakingLine, tmp_path: Path) -> None:
    problem = {"code": "RATE_LIMITED", "detail": "Later.", "retryable": True, "errors": []}
    path = write(tmp_path / "a.bin", 200 * KIB)
    begun = client.uploads.begin("a.bin", size_bytes=200 * KIB)
    line.refusals = [httpx.Response(429, json=problem, headers={"Retry-After": "1"}) for _ in range(2)]
    assert client.files.upload(path, resume=begun.id).size_bytes == 200 * KIB


def test_what_the_service_refuses_is_said(client: Client, tmp_path: Path) -> None:
    """Here: a file beyond its limit, and a name that none may have."""
    with pytest.raises(FewbytesError) as caught:
        client.files.upload(write(tmp_path / "a.bin", (1 << 20) + 1))
    assert caught.value.status == 413
    with pytest.raises(FewbytesError) as caught:
        client.files.upload(write(tmp_path / "a.bin", 5), "no such name")
    assert caught.value.status == 422


def test_files_are_listed_and_deleted(client: Client, tmp_path: Path) -> None:
    for number in range(3):
        client.files.upload(write(tmp_path / f"{number}.bin", number + 1))
    assert [file.name for file in client.files.all()] == ["2.bin", "1.bin", "0.bin"]
    page = client.files.list(page_size=2)
    assert len(page.items) == 2
    assert [file.name for file in client.files.list(page_token=page.next_page_token).items] == ["0.bin"]
    client.files.delete("1.bin")
    assert [file.name for file in client.files.all()] == ["2.bin", "0.bin"]
