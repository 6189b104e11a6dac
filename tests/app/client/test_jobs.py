"""Jobs: waiting, and events over lines that break."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app import jobs
from app.client import Client, FewbytesError
from app.client.answers import EventView
from app.client.events import parse
from app.db import transaction
from app.errors import Problem
from tests.app.client.conftest import BreakingLine
from tests.app.conftest import Service


def later(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_job_is_submitted_looked_at_and_deleted(client: Client, sqlite_service: Service) -> None:
    spec = sqlite_service.job_spec(name="mine", labels={"team": "a"})
    job = client.jobs.submit(spec)
    assert (job.state, job.name) == ("queued", "mine")
    assert client.jobs.get(job.id).spec["name"] == "mine"
    assert [found.id for found in client.jobs.all(labels={"team": "a"})] == [job.id]
    assert list(client.jobs.all(labels={"team": "b"})) == []
    assert list(client.jobs.all(state="failed")) == []
    assert client.jobs.cancel(job.id).state == "cancelled"
    client.jobs.delete(job.id)
    with pytest.raises(FewbytesError, match="NOT_FOUND"):
        client.jobs.get(job.id)


def test_a_plan_is_made_without_a_job(client: Client, sqlite_service: Service) -> None:
    plan = client.jobs.validate(sqlite_service.job_spec())
    assert plan.estimates[0]["method"] == "distill"
    assert [job for job in client.jobs.all() if job.kind == "compress"] == []
    with pytest.raises(FewbytesError, match="INVALID_SPEC") as caught:
        client.jobs.validate(sqlite_service.job_spec(seeds=0))
    assert caught.value.errors[0]["pointer"] == "/seeds"


def test_waiting_ends_with_the_job(client: Client, sqlite_service: Service) -> None:
    job_id = sqlite_service.job()
    states: list[str] = []

    def work() -> None:
        time.sleep(0.3)
        sqlite_service.worker.finish(job_id)

    thread = later(work)
    done = client.jobs.wait(job_id, on_change=lambda job: states.append(job.state))
    thread.join()
    assert done.state == "succeeded"
    assert states[0] == "queued"
    assert states[-1] == "succeeded"
    assert client.jobs.wait(job_id).state == "succeeded"  # one that has ended already


def test_waiting_may_have_an_end_of_its_own(client: Client, sqlite_service: Service) -> None:
    began = time.monotonic()
    with pytest.raises(FewbytesError, match=r"WAIT_TIMEOUT.*queued after 0.5 seconds"):
        client.jobs.wait(sqlite_service.job(), timeout=0.5)
    assert time.monotonic() - began < 5


def test_nothing_new_is_not_sent_again(client: Client, sqlite_service: Service, line: BreakingLine) -> None:
    """The second look says what is known; the answer is 304, and the job is given again."""
    changes = client.jobs.changes(sqlite_service.job(), poll_seconds=0.1)
    first, second = next(changes), next(changes)
    assert first is second
    assert "if-none-match" in line.requests[-1].headers


def record(service: Service, claim: jobs.Claim, number: int) -> None:
    with transaction() as session:
        jobs.record(session, claim, events=[("log", {"level": "info", "message": f"line {number}"})])


def test_events_come_each_once_over_a_line_that_breaks(
    client: Client, sqlite_service: Service, line: BreakingLine
) -> None:
    """The stream is cut again and again, in the middle of events."""
    job_id = sqlite_service.job()
    claim = sqlite_service.worker.claim(job_id)
    line.cut_receiving = [60, 200, 333, 90]

    def work() -> None:
        for number in range(20):
            record(sqlite_service, claim, number)
            time.sleep(0.02)
        with transaction() as session:
            jobs.finish(session, claim, {})

    thread = later(work)
    events = list(client.jobs.events(job_id))
    thread.join()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.data["message"] for event in events if event.type == "log"] == [
        f"line {number}" for number in range(20)
    ]
    assert events[-1].data["state"] == "succeeded"
    streams = [request for request in line.requests if "last-event-id" in request.headers]
    assert len(streams) >= 5
    assert int(streams[-1].headers["last-event-id"]) > 0
    assert client.jobs.event_page(job_id).items == events
    assert "line 19" in client.jobs.logs(job_id)


def test_events_go_on_after_a_number(client: Client, sqlite_service: Service) -> None:
    job_id = sqlite_service.job()
    sqlite_service.worker.finish(job_id)
    assert [event.seq for event in client.jobs.events(job_id, after=2)] == [3, 4]
    assert list(client.jobs.events(job_id, after=4)) == []


def test_of_a_job_that_is_not_there_no_events_are_waited_for(client: Client) -> None:
    with pytest.raises(FewbytesError, match="NOT_FOUND"):
        next(client.jobs.events("job_none"))


def test_the_lines_of_a_stream() -> None:
    """Comments and what has no number are none; data over several lines is one."""
    lines = [
        *(": hello", "", "event: log", "id: 3", 'data: {"at": "now",', 'data:  "message": "a: b"}', ""),
        *("data: {}", "", "id: 4", 'data: {"at": "then"}', "", "id: 5", "event: x"),
    ]
    assert list(parse(lines)) == [
        EventView(seq=3, at="now", type="log", data={"message": "a: b"}),
        EventView(seq=4, at="then", type="message", data={}),
    ]


def test_metrics_and_failures(client: Client, sqlite_service: Service) -> None:
    job_id = sqlite_service.job()
    claim = sqlite_service.worker.claim(job_id)
    metric: dict[str, Any] = {
        "step": 1,
        "epoch": 2,
        "split": "val",
        "name": "accuracy",
        "value": 0.5,
        "unit": "1",
    }
    with transaction() as session:
        jobs.record(session, claim, metrics=[metric])
        jobs.fail(session, claim, Problem(422, "TOO_SMALL", "It cannot be."))
    [found] = client.jobs.metrics(job_id).items
    assert (found.epoch, found.value, found.seed) == (2, 0.5, None)
    assert client.jobs.metrics_csv(job_id).splitlines()[1].startswith("1,2,val,accuracy,0.5")
    failed = client.jobs.wait(job_id)
    assert failed.error is not None
    assert failed.error["code"] == "TOO_SMALL"
    assert client.jobs.retry(job_id).state == "queued"
    assert client.jobs.pause(job_id).paused
    assert not client.jobs.resume(job_id).paused
