"""Downloads over lines that break."""

from pathlib import Path

import httpx
import pytest

from app.client import Client, FewbytesError, downloads
from tests.app.client.conftest import BreakingLine, BreakingStream
from tests.app.conftest import Service

CONTENT = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty; the database of the test lies beside it."""
    made = tmp_path / "downloads"
    made.mkdir()
    return made


@pytest.fixture
def job_id(sqlite_service: Service) -> str:
    """A job whose answer is `CONTENT`."""
    ident = sqlite_service.job()
    sqlite_service.worker.finish(ident, CONTENT)
    return ident


def test_an_answer_is_fetched_under_the_name_that_one_wants(
    client: Client, job_id: str, folder: Path
) -> None:
    done: list[tuple[int, int]] = []
    target = folder / "student.pt"
    found = client.jobs.download(job_id, target, on_progress=lambda at, total: done.append((at, total)))
    assert found == target
    assert target.read_bytes() == CONTENT
    assert done[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in folder.iterdir()] == ["student.pt"]


def test_into_a_folder_it_goes_under_the_services_own_name(client: Client, job_id: str, folder: Path) -> None:
    assert client.jobs.download(job_id, folder) == folder / f"{job_id}-final.pt"


def test_a_broken_line_costs_only_what_was_under_way(
    client: Client, job_id: str, folder: Path, line: BreakingLine
) -> None:
    line.cut_receiving = [100_000, 50_000]
    target = client.jobs.download(job_id, folder / "student.pt")
    assert target.read_bytes() == CONTENT
    ranges = [request.headers.get("range") for request in line.asked("GET")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_another_process_goes_on_where_one_stopped(
    client: Client, job_id: str, folder: Path, line: BreakingLine
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.jobs.download(job_id, folder / "student.pt", on_progress=interrupt)
    [left] = folder.iterdir()
    size = left.stat().st_size
    assert size > 0
    line.requests.clear()
    assert client.jobs.download(job_id, folder / "student.pt").read_bytes() == CONTENT
    if size < len(CONTENT):
        assert line.asked("GET")[0].headers["range"] == f"bytes={size}-"
    assert not left.exists()


def test_damaged_bytes_are_no_download(
    client: Client, job_id: str, folder: Path, line: BreakingLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is thrown away, and a file that was there stays as it was."""
    handle = line.handle_request

    def damaging(request: httpx.Request) -> httpx.Response:
        answer = handle(request)
        if request.method != "GET":
            return answer
        return httpx.Response(200, headers=answer.headers, stream=httpx.ByteStream(b"X" + answer.read()[1:]))

    monkeypatch.setattr(line, "handle_request", damaging)
    target = folder / "student.pt"
    target.write_bytes(b"before")
    with pytest.raises(FewbytesError, match="DIGEST_MISMATCH"):
        client.jobs.download(job_id, target)
    assert target.read_bytes() == b"before"
    assert [path.name for path in folder.iterdir()] == ["student.pt"]


def test_a_line_through_which_nothing_comes_is_given_up(
    client: Client, job_id: str, folder: Path, line: BreakingLine
) -> None:
    line.cut_receiving = [0] * 100
    with pytest.raises(FewbytesError, match="UNREACHABLE"):
        client.jobs.download(job_id, folder / "student.pt")
    assert len(line.asked("GET")) == downloads.WITHOUT_GAIN


def test_while_there_is_no_answer_the_service_says_so(
    client: Client, sqlite_service: Service, folder: Path
) -> None:
    with pytest.raises(FewbytesError, match="NOT_FINISHED"):
        client.jobs.download(sqlite_service.job(), folder / "student.pt")
    assert list(folder.glob("*.pt")) == []


def test_artifacts_tensors_and_tools_are_fetched_the_same_way(
    client: Client, job_id: str, folder: Path
) -> None:
    [artifact] = client.jobs.artifacts(job_id).items
    assert client.artifacts.download(artifact.id, folder / "a").read_bytes() == CONTENT
    assert client.artifacts.get(artifact.id) == artifact
    reader = client.service.download_tool("load_artifact.py", folder)
    assert "def load" in reader.read_text()


def test_a_stream_breaks_where_it_is_told_to() -> None:
    """The tests above stand on it."""
    stream = BreakingStream(httpx.ByteStream(b"12345"), 3, lambda: httpx.ReadError("cut"))
    blocks = iter(stream)
    assert next(blocks) == b"123"
    with pytest.raises(httpx.ReadError):
        next(blocks)
