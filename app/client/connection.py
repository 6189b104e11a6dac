"""Requests to one service: the key, problems as exceptions, and patience with a service that is busy or just restarting."""

import email.utils
import random
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from app.client.answers import JobView
from app.client.errors import FewbytesError, problem_of, unexpected, unreachable
from app.client.sweep_answers import SweepView

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", JobView, SweepView)

DEFAULT_URL = "http://127.0.0.1:8000"
SLACK_SECONDS = 30.0
"""What an answer may take beyond the time that the service was asked to wait."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 60.0
"""That the service waits for a change."""


class Patience:
    """When to try again: ever longer pauses, or as Retry-After says, for `seconds` altogether."""

    def __init__(self, seconds: float, sleep: Callable[[float], None]) -> None:
        self._until = time.monotonic() + seconds
        self._pause = FIRST_PAUSE_SECONDS
        self._sleep = sleep

    def wait(self, error: FewbytesError) -> None:
        """Until the next try. Raises the error when its turn would come too late."""
        asked = _retry_after(error.headers)
        pause = self._pause * random.uniform(0.75, 1.25) if asked is None else asked
        if time.monotonic() + pause > self._until:
            raise error
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._sleep(pause)


class Connection:
    """One service and the key that opens it.

    A request that may be repeated without harm is repeated on 429, 503 and a broken line, for `patience_seconds` at most;
    an address that never answered is given up at once.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        patience_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(SLACK_SECONDS, connect=5.0)
        self.url = base_url.rstrip("/")
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        self._patience_seconds = patience_seconds
        self.sleep = sleep
        self._has_answered = False

    def close(self) -> None:
        self.http.close()

    def patience(self) -> Patience:
        return Patience(self._patience_seconds, self.sleep)

    # ---- one request

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Ask, with patience; returns an answer of 2xx or 304. Raises FewbytesError.

        `wait`: seconds that the service was asked to wait before it answers. `repeatable`: asking twice is as good as once,
        as it is with GET anyway. Parameters that are None are left out.
        """

        def ask() -> httpx.Response:
            timeout = httpx.Timeout(wait + SLACK_SECONDS, connect=5.0)
            query = known(params)
            return self.http.request(
                method, path, params=query, json=json, headers=headers or {}, timeout=timeout
            )

        return self.patiently(ask, repeatable=repeatable or method in ("GET", "HEAD"))

    def patiently(self, ask: Callable[[], httpx.Response], *, repeatable: bool) -> httpx.Response:
        """`ask` until it is answered well. Raises FewbytesError."""
        patience = self.patience()
        while True:
            try:
                return self.checked(ask())
            except httpx.TransportError as error:
                trouble = unreachable(self.url, error)
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                again = (repeatable or unsent) and self._has_answered
            except FewbytesError as error:
                trouble = error
                again = self.may_come_again(error, repeatable=repeatable)
            if not again:
                raise trouble
            patience.wait(trouble)

    def may_come_again(self, error: FewbytesError, *, repeatable: bool) -> bool:
        """Whether the same request may be sent again soon. 429: it was not even looked at."""
        return error.status == 429 or (repeatable and error.status == 503)

    def checked(self, answer: httpx.Response) -> httpx.Response:
        """The answer, if it is one of 2xx or 304; else raises FewbytesError."""
        self._has_answered = True
        if answer.is_success or answer.status_code == 304:
            return answer
        answer.read()
        if answer.is_error:
            raise problem_of(answer)
        raise unexpected(answer, f"it points to {answer.headers.get('location', 'nowhere')}")

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = SLACK_SECONDS,
    ) -> Iterator[httpx.Response]:
        """GET an answer whose body is read bit by bit. Raises FewbytesError; httpx.TransportError when the line breaks."""
        with self.http.stream(
            "GET",
            path,
            params=known(params),
            headers=headers or {},
            timeout=httpx.Timeout(timeout, connect=5.0),
        ) as answer:
            yield self.checked(answer)

    # ---- typed

    def get(self, answer: type[M], path: str, **params: Any) -> M:
        """`wait` among the parameters is what the service is asked to wait."""
        wait = params.get("wait") or 0.0
        return parsed(answer, self.request("GET", path, params=params, wait=wait))

    def post(self, answer: type[M], path: str, body: Any = None, *, repeatable: bool = False) -> M:
        return parsed(answer, self.request("POST", path, json=body, repeatable=repeatable))

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    # ---- until something changes

    def changes(self, kind: type[S], path: str, terminal: Container[str], poll_seconds: float) -> Iterator[S]:
        """What `path` answers now and after every change, until its `state` is terminal. The same again where nothing
        changed for `poll_seconds`."""
        etag: str | None = None
        found: S | None = None
        while found is None or found.state not in terminal:
            headers = {"If-None-Match": etag} if etag else {}
            wait = min(poll_seconds, LONGEST_WAIT_SECONDS) if etag else 0.0
            answer = self.request("GET", path, params={"wait": wait}, headers=headers, wait=wait)
            if answer.status_code != 304:
                found, etag = parsed(kind, answer), answer.headers.get("etag")
            assert found is not None, "nothing was asked for that could be unchanged"
            yield found

    def wait(
        self,
        kind: type[S],
        path: str,
        terminal: Container[str],
        *,
        timeout: float | None,
        on_change: Callable[[S], None] | None,
    ) -> S:
        """What `path` answers once its `state` is terminal. Raises FewbytesError WAIT_TIMEOUT after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        poll = LONGEST_WAIT_SECONDS if timeout is None else max(0.1, min(timeout, LONGEST_WAIT_SECONDS))
        for found in self.changes(kind, path, terminal, poll):
            if on_change:
                on_change(found)
            if until is not None and found.state not in terminal and time.monotonic() >= until:
                detail = (
                    f"{path} is {found.state} after {timeout:g} seconds: wait longer, or look again later."
                )
                raise FewbytesError("WAIT_TIMEOUT", detail, retryable=True)
        return found


def parsed(kind: type[M], answer: httpx.Response) -> M:
    """The answer's body as a model. Raises FewbytesError UNEXPECTED_ANSWER."""
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "/".join(map(str, first["loc"])) or "its body"
        raise unexpected(answer, f"{where} is not as documented: {first['msg']}") from None


def known(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parameters that have a value, as a query writes them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in (params or {}).items()
        if value is not None
    }


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds; None where nothing sensible is said. A number or a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
