"""Events as pages and as a stream, logs, metrics."""

import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from app import db, jobs
from app.api import events
from app.db import transaction
from tests.app.conftest import Service


def frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """A reader of server-sent events of our own: fields until an empty line; comments under the name ""."""
    frame: dict[str, str] = {}
    for line in lines:
        if not line:
            if frame:
                yield frame
            frame = {}
            continue
        name, _, value = line.partition(":")
        frame[name] = value.strip()


def follow(service: Service, job_id: str, **headers: str) -> list[dict[str, str]]:
    """The whole stream, until the server closes it."""
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events?stream=true", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(frames(answer.iter_lines()))


def test_a_page_of_events(service: Service) -> None:
    """In order, from the one after `after` on; `ended` once no more will come."""
    job_id = service.job()
    service.worker.finish(job_id)
    path = f"/v1/jobs/{job_id}/events"
    page = service.client.get(path).json()
    assert [(event["seq"], event["type"]) for event in page["items"]] == [
        (1, "state"),
        (2, "state"),
        (3, "artifact"),
        (4, "state"),
    ]
    assert (page["after"], page["ended"]) == (4, True)
    assert page["items"][-1]["data"]["state"] == "succeeded"
    part = service.client.get(f"{path}?after=1&page_size=2").json()
    assert [event["seq"] for event in part["items"]] == [2, 3]
    assert (part["after"], part["ended"]) == (3, False)


def test_a_stream_follows_the_job_to_its_end(service: Service) -> None:
    """Events come while the job runs, with the ids of the page; the server closes after the last."""
    job_id = service.job()
    seen: list[dict[str, str]] = []
    follower = threading.Thread(target=lambda: seen.extend(follow(service, job_id)))
    follower.start()
    claim = service.worker.claim(job_id)
    with transaction() as session:
        jobs.record(session, claim, events=[("log", {"level": "info", "message": "line\nbreak \N{SNOWMAN}"})])
    time.sleep(0.6)
    with transaction() as session:
        jobs.finish(session, claim, {})
    follower.join(10)
    assert not follower.is_alive()
    told = [frame for frame in seen if "id" in frame]
    assert [(frame["id"], frame["event"]) for frame in told] == [
        ("1", "state"),
        ("2", "state"),
        ("3", "log"),
        ("4", "state"),
    ]
    assert json.loads(told[2]["data"])["message"] == "line\nbreak \N{SNOWMAN}"
    assert json.loads(told[3]["data"])["state"] == "succeeded"


def test_a_client_that_reconnects_misses_nothing(service: Service) -> None:
    """Last-Event-ID: only what came after it; nothing at all after the last."""
    job_id = service.job()
    service.worker.finish(job_id)
    rest = follow(service, job_id, **{"Last-Event-ID": "2"})
    assert [frame["id"] for frame in rest if "id" in frame] == ["3", "4"]
    assert [frame for frame in follow(service, job_id, **{"Last-Event-ID": "4"}) if "id" in frame] == []
    asked = service.client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert asked.text.count("\nid: ") == 4


def test_a_silent_stream_pings(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies close what says nothing."""
    monkeypatch.setattr(events, "PING_SECONDS", 0.2)
    job_id = sqlite_service.job()
    with sqlite_service.client.stream("GET", f"/v1/jobs/{job_id}/events?stream=true") as answer:
        for frame in frames(answer.iter_lines()):
            if frame.get("") == "ping":
                break


def test_followers_hold_no_database_connections(service: Service) -> None:
    """With more streams than connections in the pool (30) and threads (40), the API still answers."""
    job_id = service.job()
    limits = httpx.Limits(max_connections=100)
    with httpx.Client(base_url=service.client.base_url, timeout=20, limits=limits) as client:
        streams = [client.stream("GET", f"/v1/jobs/{job_id}/events?stream=true") for _ in range(50)]
        answers = [stream.__enter__() for stream in streams]
        assert {answer.status_code for answer in answers} == {200}
        time.sleep(0.3)
        assert service.client.get(f"/v1/jobs/{job_id}", timeout=5).status_code == 200
        assert db.engine().pool.checkedout() < 30  # type: ignore[attr-defined]
        service.worker.finish(job_id)
        for stream, answer in zip(streams, answers, strict=True):
            assert answer.read().count(b"\nid: ") == 4
            stream.__exit__(None, None, None)


def test_head_of_a_stream_ends(sqlite_service: Service) -> None:
    """A HEAD must not wait for the job."""
    answer = sqlite_service.client.head(f"/v1/jobs/{sqlite_service.job()}/events?stream=true", timeout=3)
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_the_log_is_text(service: Service) -> None:
    """A line each: time, level, message."""
    job_id = service.job()
    claim = service.worker.claim(job_id)
    lines = [("log", {"level": "info", "message": f"epoch {n}"}) for n in range(3)]
    with transaction() as session:
        jobs.record(session, claim, events=[*lines, ("progress", {"done": 1})])
    answer = service.client.get(f"/v1/jobs/{job_id}/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert [line.split(" ", 1)[1] for line in answer.text.splitlines()] == [
        f"info    epoch {n}" for n in range(3)
    ]
    assert answer.text.split(" ")[0].endswith("Z")


def test_metrics_as_json_and_csv(service: Service) -> None:
    """By step and epoch; null where a number is of no epoch or no split."""
    job_id = service.job()
    claim = service.worker.claim(job_id)
    with transaction() as session:
        jobs.record(
            session,
            claim,
            metrics=[
                {"step": 1, "epoch": 2, "split": "val", "name": "accuracy", "value": 0.5},
                {"step": 0, "name": "size_bytes", "value": 44e6, "unit": "B", "device": "cpu"},
            ],
        )
    path = f"/v1/jobs/{job_id}/metrics"
    first, second = service.client.get(path).json()["items"]
    assert first == {
        "step": 0,
        "epoch": None,
        "split": None,
        "name": "size_bytes",
        "value": 44e6,
        "unit": "B",
        "device": "cpu",
        "seed": None,
    }
    assert (second["epoch"], second["split"], second["value"]) == (2, "val", 0.5)
    csv = service.client.get(f"{path}?format=csv")
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines() == [
        "step,epoch,split,name,value,unit,device,seed",
        "0,,,size_bytes,44000000.0,B,cpu,",
        "1,2,val,accuracy,0.5,1,,",
    ]


def test_the_metrics_of_a_jobs_seeds_stand_beside_each_other(service: Service) -> None:
    """The same number of two seeds and of the job: three rows, which `?seed=` tells apart by the seed itself."""
    job_id = service.job(seed=40, seeds=2)
    claim = service.worker.claim(job_id)
    number = {"step": 1, "split": "val", "name": "accuracy"}
    for _ in range(2):  # a resumed trainer says it again
        with transaction() as session:
            jobs.record(
                session, claim, metrics=[{**number, "seed": seed, "value": seed / 8} for seed in (0, 1, 2)]
            )
    path = f"/v1/jobs/{job_id}/metrics"
    found = [(item["seed"], item["value"]) for item in service.client.get(path).json()["items"]]
    assert found == [(None, 0.0), (40, 0.125), (41, 0.25)]
    asked = {seed: service.client.get(f"{path}?seed={seed}").json()["items"] for seed in (39, 41)}
    assert (asked[39], [item["value"] for item in asked[41]]) == ([], [0.25])


@pytest.mark.parametrize("what", ["events", "events?stream=true", "logs", "metrics", "artifacts", "download"])
def test_an_unknown_job_is_404_everywhere(sqlite_service: Service, what: str) -> None:
    """Before a stream begins, too."""
    assert sqlite_service.client.get(f"/v1/jobs/job_none/{what}").status_code == 404
