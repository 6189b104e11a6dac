"""Downloads over lines that break."""

from pathlib import Path

import httpx
import pytest

from app.client import Client, FewbytesError, downloads
from tests.app.client.conftest import BreakingLine, BreakingStream
from tests.app.conftest import Service

CONTENT = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def job_id(sqlite_service: Service) -> str:
    """A job whose answer is `CONTENT`."""
    ident = sqlite_service.job()
    sqlite_service.worker.finish(ident, CONTENT)
    return ident


def test_an_answer_is_fetched_under_the_name_that_one_wants(client: Client, job_id: str, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    target = tmp_path / "student.pt"
    found = client.jobs.download(job_id, target, on_progress=lambda at, total: done.append((at, total)))
    assert found == target
    assert target.read_bytes() == CONTENT
    assert done[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt"]


def test_into_a_folder_it_goes_under_the_services_own_name(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    assert client.jobs.download(job_id, tmp_path) == tmp_path / f"{job_id}-final.pt"


def test_a_broken_line_costs_only_what_was_under_way(
    client: Client, job_id: str, tmp_path: Path, line: BreakingLine
) -> None:
    line.cut_receiving = [100_000, 50_000]
    target = client.jobs.download(job_id, tmp_path / "student.pt")
    assert target.read_bytes() == CONTENT
    ranges = [request.headers.get("range") for request in line.asked("GET")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_another_process_goes_on_where_one_stopped(
    client: Client, job_id: str, tmp_path: Path, line: BreakingLine
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.jobs.download(job_id, tmp_path / "student.pt", on_progress=interrupt)
    [left] = tmp_path.iterdir()
    size = left.stat().st_size
    assert 0 < size
    line.requests.clear()
    assert client.jobs.download(job_id, tmp_path / "student.pt").read_bytes() == CONTENT
    if size < len(CONTENT):
        assert line.asked("GET")[0].headers["range"] == f"bytes={size}-"
    assert not left.exists()


def test_damaged_bytes_are_no_download(
    client: Client, job_id: str, tmp_path: Path, line: BreakingLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is thrown away, and a file that was there stays as it was."""
    handle = line.handle_request

    def damaging(request: httpx.Request) -> httpx.Response:
        answer = handle(request)
        if request.method == "GET":
            answer.stream = httpx.ByteStream(b"X" + answer.read()[1:])
        return answer

    monkeypatch.setattr(line, "handle_request", damaging)
    target = tmp_path / "student.pt"
    target.write_bytes(b"before")
    with pytest.raises(FewbytesError, match="DIGEST_MISMATCH"):
        client.jobs.download(job_id, target)
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt"]


def test_a_line_through_which_nothing_comes_is_given_up(
    client: Client, job_id: str, tmp_path: Path, line: BreakingLine
) -> None:
    line.cut_receiving = [0] * 100
    with pytest.raises(FewbytesError, match="UNREACHABLE"):
        client.jobs.download(job_id, tmp_path / "student.pt")
    assert len(line.asked("GET")) == downloads.WITHOUT_GAIN


def test_while_there_is_no_answer_the_service_says_so(
    client: Client, sqlite_service: Service, tmp_path: Path
) -> None:
    with pytest.raises(FewbytesError, match="NOT_FINISHED"):
        client.jobs.download(sqlite_service.job(), tmp_path / "student.pt")
    assert list(tmp_path.glob("*.pt")) == []


def test_artifacts_tensors_and_tools_are_fetched_the_same_way(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    [artifact] = client.jobs.artifacts(job_id).items
    assert client.artifacts.download(artifact.id, tmp_path / "a").read_bytes() == CONTENT
    assert client.artifacts.get(artifact.id) == artifact
    reader = client.service.download_tool("load_artifact.py", tmp_path)
    assert "def load" in reader.read_text()


def test_a_stream_breaks_where_it_is_told_to() -> None:
    """The tests above stand on it."""
    stream = BreakingStream(httpx.ByteStream(b"12345"), 3, lambda: httpx.ReadError("cut"))
    got = []
    with pytest.raises(httpx.ReadError):
        for block in stream:
            got.append(block)
    assert got == [b"123"]
