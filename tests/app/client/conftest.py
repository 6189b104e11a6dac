"""The client of a real server in a thread; and a line that breaks where a test wants it to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from app.client import Client
from tests.app.conftest import Service


class BreakingStream(httpx.SyncByteStream):
    """So many bytes of a stream, then an error."""

    def __init__(self, stream: httpx.SyncByteStream, num_bytes: int, error: Callable[[], Exception]) -> None:
        self._stream = stream
        self._left = num_bytes
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        for block in self._stream:
            if len(block) >= self._left:
                yield block[: self._left]
                raise self._error()
            self._left -= len(block)
            yield block

    def close(self) -> None:
        self._stream.close()


@dataclass
class BreakingLine(httpx.BaseTransport):
    """A line to a service. `cut_sending` and `cut_receiving` say, one use each, after how many bytes the next body of an
    upload or a download is cut off; `refusals` are answered in place of the service."""

    cut_sending: list[int] = field(default_factory=list)
    cut_receiving: list[int] = field(default_factory=list)
    refusals: list[httpx.Response] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    inner: httpx.HTTPTransport = field(default_factory=httpx.HTTPTransport)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.refusals:
            return self.refusals.pop(0)
        if request.method == "PUT" and self.cut_sending:
            cut = self.cut_sending.pop(0)
            request.stream = BreakingStream(request.stream, cut, lambda: httpx.WriteError("cut"))  # type: ignore[arg-type]
        answer = self.inner.handle_request(request)
        if request.method == "GET" and self.cut_receiving:
            cut = self.cut_receiving.pop(0)
            answer.stream = BreakingStream(answer.stream, cut, lambda: httpx.ReadError("cut"))  # type: ignore[arg-type]
        return answer

    def close(self) -> None:
        self.inner.close()

    def asked(self, method: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.method == method]


@pytest.fixture
def line() -> BreakingLine:
    return BreakingLine()


@pytest.fixture
def client(sqlite_service: Service, line: BreakingLine) -> Iterator[Client]:
    """Of a service with a worker that accepts everything; it does not sleep between two tries."""
    with Client(str(sqlite_service.client.base_url), transport=line, sleep=lambda seconds: None) as made:
        yield made
