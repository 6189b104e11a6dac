"""A job's events as they happen: server-sent events, taken up again after a break without losing one."""

import json
from collections.abc import Iterable, Iterator

import httpx

from app.client.answers import EventPage, EventView
from app.client.connection import Connection
from app.client.errors import FewbytesError, unreachable

SILENCE_SECONDS = 45.0
"""The service speaks every 15 seconds, if only to say that it is there."""


def follow(connection: Connection, job_id: str, after: int) -> Iterator[EventView]:
    """Events after number `after`, until the job has ended and the last was told. Raises FewbytesError."""
    patience = connection.patience()
    while True:
        try:
            for event in _streamed(connection, job_id, after):
                after = event.seq
                patience = connection.patience()
                yield event
            if _has_ended(connection, job_id, after):
                return
            trouble = FewbytesError("STREAM_ENDED", "The stream ended before the job did.", retryable=True)
        except httpx.TransportError as error:
            trouble = unreachable(connection.url, error)
        except FewbytesError as error:
            if error.status not in (429, 503):
                raise
            trouble = error
        patience.wait(trouble)


def _streamed(connection: Connection, job_id: str, after: int) -> Iterator[EventView]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    with connection.stream(f"/v1/jobs/{job_id}/events", headers=headers, timeout=SILENCE_SECONDS) as answer:
        yield from parse(answer.iter_lines())


def _has_ended(connection: Connection, job_id: str, after: int) -> bool:
    """A service that shuts down closes its streams as properly as one whose job has ended."""
    return connection.get(EventPage, f"/v1/jobs/{job_id}/events", after=after, page_size=1).ended


def parse(lines: Iterable[str]) -> Iterator[EventView]:
    """The events in a stream's lines (WHATWG HTML, "Server-sent events"); one without a number is a comment of ours."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
            continue
        if "id" in fields and "data" in fields:
            data = json.loads(fields["data"])
            yield EventView(
                seq=int(fields["id"]), at=data.pop("at"), type=fields.get("event", "message"), data=data
            )
        fields = {}
