"""The doorbell: Celery's settings, and sending "look at this row" by the task's name. All share it.

A message says "look for work in this queue"; the id in it is a hint for logs. It may be lost, late or doubled: the
rows decide (`app.scheduling.schedule`).
"""

import threading
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from sqlalchemy.engine import make_url

from app.settings import settings

TASK = "run_job"
QUEUES = ("compress", "gpu", "inspect")
"""Jobs for any device, jobs that ask for a GPU by name, inspections."""

# While sending, each connection to the broker and each of its answers may take this long. Two of them can add
# up (connect, then the first command), and a send is to give up within two seconds.
SEND_TIMEOUT_SECONDS = 0.8

_TRANSPORT: dict[str, Any] = {
    # Other applications may share the broker.
    "global_keyprefix": "fewbytes:",
    # A message taken but not acknowledged comes again after this. The lease, not the message, guards a job.
    "visibility_timeout": 3600,
    # How often that is looked for. By default every 100 s: a redelivery took 91 s in place of 10.5 s.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Without these a frozen broker or a lost route blocks a process for ever.
    "socket_timeout": 10,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


@lru_cache(maxsize=1)
def celery_app() -> Celery:
    """The Celery application for the settings' broker. The worker adds its task to this very object."""
    if not settings().broker_url:
        # Celery would quietly try a RabbitMQ on this machine.
        raise RuntimeError(
            "No broker: set BROKER_URL, e.g. redis://localhost:6379/0, or start with `fewbytes up`."
        )
    app = Celery("fewbytes", broker=broker_url(settings().broker_url), set_as_current=False)
    app.conf.update(
        # Each with its own exchange: by default both would be bound to the first, under one key.
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,  # a misspelt queue is an error, not a queue that nobody reads
        task_acks_late=True,  # a worker that dies leaves the message to another
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # a message held ready by a busy worker waits while another is idle
        task_ignore_result=True,  # the row is the result; a result backend would be a second truth
        task_publish_retry=False,  # the outbox tries again
        task_serializer="json",
        accept_content=["json"],  # never pickle: whoever reaches the broker could run code in the worker
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a broker's restart stops no training
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker as long as it takes
        worker_soft_shutdown_timeout=60,  # time to hand the job back with its checkpoint
        worker_send_task_events=False,
        worker_enable_remote_control=False,  # no revoke, no pidbox: cancelling goes through the row
        worker_hijack_root_logger=False,
        broker_transport_options=_TRANSPORT,
    )
    # No time limits of Celery's: they belong to the supervisor, which can save a checkpoint first.
    return app


def send(job_id: str, queue: str) -> None:
    """Ring once, by the task's name. Raises within two seconds when the broker is dead or frozen."""
    with _sending:
        connection = _connection()
        try:
            celery_app().send_task(TASK, args=(job_id,), queue=queue, connection=connection, retry=False)
        except Exception:
            _disconnect()  # whatever state it is in, the next send begins anew
            raise


def depth(queue: str) -> int:
    """How many messages wait in the broker. Raises like `send`."""
    with _sending:
        try:
            channel = _connection().default_channel
            return int(channel.queue_declare(queue=queue).message_count)
        except Exception:
            _disconnect()
            raise


def reset() -> None:
    """Forget the broker and its connection; the next call reads the settings again."""
    with _sending:
        _disconnect()
        celery_app.cache_clear()


def broker_url(url: str) -> str:
    """The URL as kombu needs it. `rediss://` checks the server's certificate unless the URL forbids it."""
    if url.startswith("rediss://") and "ssl_cert_reqs" not in make_url(url).query:
        # kombu's own default is to check nothing.
        return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
    return url


# One connection for sending, shared by the process's threads: sends are rare and take a millisecond.
_sending = threading.Lock()
_open: Connection | None = None


def _connection() -> Connection:
    global _open
    if _open is None:
        quick = {
            "socket_timeout": SEND_TIMEOUT_SECONDS,
            "socket_connect_timeout": SEND_TIMEOUT_SECONDS,
            "max_retries": 0,
        }
        _open = celery_app().connection_for_write(transport_options=_TRANSPORT | quick)
    return _open


def _disconnect() -> None:
    global _open
    connection, _open = _open, None
    if connection is not None:
        connection.release()
