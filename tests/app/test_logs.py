"""The log: one line an event, whatever strangers send."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from app import logs
from tests.app.api.test_hostile_requests import answer_to
from tests.app.conftest import Service


@pytest.fixture(params=["text", "json"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What `app` logs from INFO on, in one of the forms."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(request.param))
    logger = logging.getLogger("app")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    stream.form = request.param  # type: ignore[attr-defined]
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_text_that_a_stranger_chose_breaks_no_line(written: io.StringIO) -> None:
    """Line breaks of every kind, the terminal's escape, and halves of surrogate pairs."""
    forged = "a\r\nb\n2026 INFO app: forged\x1b[2J\x85\u2028\u2029\x00\x7f"
    logging.getLogger("app.test").warning("sent %s", forged, extra={"path": forged})
    (line,) = lines(written)
    assert "\x1b" not in line
    if written.form == "json":  # type: ignore[attr-defined]
        entry = json.loads(line)
        assert (entry["message"], entry["path"]) == (f"sent {forged}", forged)
        assert (entry["level"], entry["logger"]) == ("WARNING", "app.test")
        assert entry["at"]


def test_a_traceback_is_part_of_its_event(written: io.StringIO) -> None:
    """In JSON on the same line; in text on lines that are indented, so none passes for an event."""
    try:
        raise ValueError("first\n2026 INFO app: forged")
    except ValueError:
        logging.getLogger("app.test").error("failed", exc_info=sys.exc_info())
    first, *rest = lines(written)
    if written.form == "json":  # type: ignore[attr-defined]
        assert rest == []
        assert "ValueError" in json.loads(first)["exc_info"]
    else:
        assert rest
        assert all(line.startswith("    ") for line in rest)


def test_a_refused_request_is_a_line_without_its_secrets(
    sqlite_service: Service, written: io.StringIO
) -> None:
    """Id, method, path as it was sent, status, time; neither the query nor the body nor a key."""
    client = sqlite_service.client
    client.get("/v1/healthz")
    headers = {"X-Request-Id": "mine", "Authorization": "Bearer hidden-key"}
    client.post("/v1/nothing%0Aforged?hidden-query=1", json={"hidden": "body"}, headers=headers)
    client.get("/v1/jobs")
    text = written.getvalue()
    assert "hidden" not in text
    (line,) = [line for line in lines(written) if "mine" in line and "duration_ms" in line]
    for part in ("mine", "POST", "/v1/nothing%0Aforged", "duration_ms"):
        assert part in line
    assert not any("/v1/jobs" in line for line in lines(written)), "what went well is no news"


def test_a_request_refused_by_the_connection_is_a_line_too(
    sqlite_service: Service, written: io.StringIO
) -> None:
    """Under the request id that its answer has."""
    _, headers, _ = answer_to(b"\x00\r\n\r\n", sqlite_service.port)
    (line,) = [line for line in lines(written) if headers["x-request-id"] in line]
    assert "MALFORMED_REQUEST" in line
