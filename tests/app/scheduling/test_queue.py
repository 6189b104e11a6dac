"""Sending: it arrives, by TCP and by socket, or it fails within two seconds."""

import json
import ssl
import time
from collections.abc import Iterator

import pytest
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from app.scheduling import queue
from app.settings import settings
from tests.servers import Broker


@pytest.fixture(params=["tcp", "unix"])
def any_broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    broker: Broker = request.getfixturevalue("broker" if request.param == "tcp" else "unix_broker")
    monkeypatch.setattr(settings(), "broker_url", broker.url)
    queue.reset()
    yield broker
    queue.reset()


def waiting(broker: Broker, name: str) -> list[str]:
    """The job ids in a queue, oldest first, read from Valkey itself."""
    messages = [json.loads(raw) for raw in broker.client().lrange(f"fewbytes:{name}", 0, -1)]
    return [message["headers"]["argsrepr"] for message in reversed(messages)]


def test_a_sent_id_waits_in_its_queue_as_json(any_broker: Broker) -> None:
    queue.send("job_1", "compress")
    queue.send("job_2", "compress")
    queue.send("ins_1", "inspect")
    assert waiting(any_broker, "compress") == ["('job_1',)", "('job_2',)"]
    assert waiting(any_broker, "inspect") == ["('ins_1',)"]
    [raw] = any_broker.client().lrange("fewbytes:inspect", 0, -1)
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "run_job"
    assert (queue.depth("compress"), queue.depth("inspect")) == (2, 1)


def test_a_queue_that_nobody_reads_is_an_error(any_broker: Broker) -> None:
    with pytest.raises(Exception, match="misspelt"):
        queue.send("job_1", "misspelt")


@pytest.mark.parametrize("connected", [False, True], ids=["fresh", "connected"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_broker_that_does_not_answer_fails_the_send_quickly(
    any_broker: Broker, fault: str, connected: bool
) -> None:
    if connected:
        queue.send("job_1", "compress")
    getattr(any_broker, fault)()
    for call in (lambda: queue.send("job_2", "compress"), lambda: queue.depth("compress")):
        started = time.monotonic()
        with pytest.raises((OperationalError, OSError)):
            call()
        assert time.monotonic() - started < 2.0


def test_sending_works_again_once_the_broker_does(any_broker: Broker) -> None:
    queue.send("job_1", "compress")
    any_broker.kill()
    with pytest.raises((OperationalError, OSError)):
        queue.send("job_2", "compress")
    any_broker.start()
    queue.send("job_3", "compress")
    assert "('job_3',)" in waiting(any_broker, "compress")


def test_an_emptied_broker_takes_the_next_message(any_broker: Broker) -> None:
    queue.send("job_1", "compress")
    any_broker.client().flushall()
    queue.send("job_2", "compress")
    assert waiting(any_broker, "compress") == ["('job_2',)"]


def test_a_tls_broker_is_checked_unless_the_url_says_otherwise() -> None:
    checked = Connection(queue.broker_url("rediss://broker.example:6380/0"))
    assert checked.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    unchecked = Connection(queue.broker_url("rediss://broker.example:6380/0?ssl_cert_reqs=none"))
    assert unchecked.ssl == {"ssl_cert_reqs": ssl.CERT_NONE}
    assert queue.broker_url("redis://broker.example/0") == "redis://broker.example/0"
