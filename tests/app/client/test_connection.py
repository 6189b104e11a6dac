"""Requests: problems as exceptions, and how often what is asked again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from app.client import Client, FewbytesError
from app.client import connection as connections

JOB = {
    "id": "job_a",
    "kind": "compress",
    "labels": {},
    "state": "succeeded",
    "paused": False,
    "version": 1,
    "created_at": "now",
    "links": {},
    "attempts": [],
    "spec": {},
} | dict.fromkeys(
    [
        *("name", "passed", "sweep_id", "point", "phase", "progress", "error", "started_at", "finished_at"),
        *("after_job_id", "begun_steps", "queue", "result_key", "result"),
    ]
)
BUSY = {"code": "RATE_LIMITED", "detail": "Too many.", "retryable": True, "errors": [], "request_id": "req_1"}

Answer = httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Answers in order; the last again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def problem(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json=BUSY, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def ok() -> httpx.Response:
    return httpx.Response(200, json=JOB)


class Run:
    """A client of a script, with a clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> None:
        self.script = Script(*answers)
        self.slept: list[float] = []
        self.now = 0.0
        monkeypatch.setattr(connections.time, "monotonic", lambda: self.now)
        self.client = Client("http://fewbytes.test", "fb_key", transport=self.script, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def num_asked(self) -> int:
        return len(self.script.requests)


def test_the_key_goes_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, ok())
    run.client.jobs.get("job_a")
    assert run.script.requests[0].headers["authorization"] == "Bearer fb_key"
    assert str(run.script.requests[0].url) == "http://fewbytes.test/v1/jobs/job_a"


def test_a_problem_is_an_exception_with_all_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    body = BUSY | {"code": "INVALID_SPEC", "errors": [{"pointer": "/a", "code": "X", "detail": "no"}]}
    run = Run(monkeypatch, httpx.Response(422, json=body))
    with pytest.raises(FewbytesError, match="INVALID_SPEC: Too many") as caught:
        run.client.jobs.get("job_a")
    error = caught.value
    assert (error.status, error.code, error.detail, error.retryable) == (
        422,
        "INVALID_SPEC",
        "Too many.",
        True,
    )
    assert error.errors == body["errors"]
    assert error.request_id == "req_1"
    assert run.num_asked == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    run = Run(monkeypatch, problem(status, retry_after="7"), problem(status, retry_after="2"), ok())
    assert run.client.jobs.get("job_a").id == "job_a"
    assert run.slept == [7, 2]


def test_retry_after_may_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    run = Run(monkeypatch, problem(503, retry_after=date), ok())
    run.client.jobs.get("job_a")
    assert 6 < run.slept[0] <= 9


def test_without_a_date_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, *[problem(503)] * 5, ok())
    run.client.jobs.get("job_a")
    assert len(run.slept) == 5
    assert all(later > earlier for earlier, later in zip(run.slept, run.slept[1:], strict=False))
    assert max(run.slept) < 1.25 * connections.LONGEST_PAUSE_SECONDS


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never longer than was said, and not at all for a Retry-After beyond it."""
    run = Run(monkeypatch, problem(503))
    with pytest.raises(FewbytesError, match="RATE_LIMITED"):
        run.client.jobs.get("job_a")
    assert 20 < sum(run.slept) <= 30
    run = Run(monkeypatch, problem(429, retry_after="31"))
    with pytest.raises(FewbytesError):
        run.client.jobs.get("job_a")
    assert run.slept == []


SPEC: dict[str, Any] = {}
Ask = Callable[[Client], object]


@pytest.mark.parametrize(
    ("ask", "is_repeated"),
    [
        (lambda client: client.jobs.get("job_a"), True),
        (lambda client: client.jobs.submit(SPEC), True),
        (lambda client: client.jobs.cancel("job_a"), False),
        (lambda client: client.jobs.retry("job_a"), False),
        (lambda client: client.jobs.delete("job_a"), False),
    ],
    ids=["get", "submit", "cancel", "retry", "delete"],
)
@pytest.mark.parametrize(
    "trouble", [problem(503), httpx.ReadError("broken"), httpx.ReadTimeout("late")], ids=str
)
def test_only_what_does_no_harm_is_repeated(
    monkeypatch: pytest.MonkeyPatch, ask: Ask, is_repeated: bool, trouble: Answer
) -> None:
    """A broken line leaves open whether a request was heard: looks and keyed submissions are repeated, nothing else."""
    run = Run(monkeypatch, ok(), trouble, ok())
    run.client.jobs.get("job_a")
    if is_repeated:
        ask(run.client)
        assert run.num_asked == 3
    else:
        with pytest.raises(FewbytesError):
            ask(run.client)
        assert run.num_asked == 2


def test_what_was_never_sent_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is just restarting refuses the connection: nothing was heard, whatever was asked."""
    run = Run(monkeypatch, ok(), httpx.ConnectError("refused"), ok())
    run.client.jobs.get("job_a")
    run.client.jobs.cancel("job_a")
    assert run.num_asked == 3


def test_a_refused_request_was_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 is about the number of requests: the same again, whatever it asks."""
    run = Run(monkeypatch, problem(429, retry_after="1"), ok())
    run.client.jobs.cancel("job_a")
    assert run.num_asked == 2


def test_an_address_that_never_answered_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, httpx.ConnectError("refused"))
    with pytest.raises(FewbytesError, match=r"UNREACHABLE.*fewbytes up.*FEWBYTES_URL"):
        run.client.jobs.get("job_a")
    assert (run.num_asked, run.slept) == (1, [])


def test_one_submission_has_one_key_however_often_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, ok(), httpx.ReadError("broken"), ok())
    run.client.jobs.get("job_a")
    run.client.jobs.submit(SPEC)
    run.client.jobs.submit(SPEC)
    run.client.jobs.submit(SPEC, idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in run.script.requests[1:]]
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] == "mine"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, json={"id": "job_a"}), "kind is not as documented"),
        (httpx.Response(200, text="<html>"), "not as documented"),
        (httpx.Response(502, text="<html>bad gateway"), "no problem document"),
        (httpx.Response(404, json=["x"]), "no problem document"),
        (httpx.Response(307, headers={"Location": "https://elsewhere"}), "points to https://elsewhere"),
    ],
)
def test_what_is_no_fewbytes_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, said: str
) -> None:
    run = Run(monkeypatch, answer)
    with pytest.raises(FewbytesError, match="UNEXPECTED_ANSWER") as caught:
        run.client.jobs.get("job_a")
    assert said in caught.value.detail
    assert "http://fewbytes.test/v1/jobs/job_a" in caught.value.detail


def test_a_newer_service_may_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, httpx.Response(200, json=JOB | {"colour": "red"}))
    assert run.client.jobs.get("job_a").model_dump()["colour"] == "red"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("https://fewbytes.example/service/", "https://fewbytes.example/service"),
        (None, "http://127.0.0.1:8000"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, given: str | None, url: str) -> None:
    monkeypatch.delenv("FEWBYTES_URL", raising=False)
    assert Client(given).url == url


@pytest.mark.parametrize("text", ["ftp://a", "http://", "http://a:b@c", "http://[", "file:///etc"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(FewbytesError, match="INVALID_URL"):
        Client(text)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBYTES_URL", "http://fewbytes.test")
    monkeypatch.setenv("FEWBYTES_KEY", "fb_environment")
    script = Script(ok())
    Client(transport=script).jobs.get("job_a")
    assert script.requests[0].headers["authorization"] == "Bearer fb_environment"
    assert script.requests[0].url.host == "fewbytes.test"
