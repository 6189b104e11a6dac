"""How uvicorn runs the API: the same in `fewbytes api`, in the tests and in the benchmarks."""

import resource
from typing import Any

import uvicorn

from app.api.wire import wire
from app.settings import Settings

# A follower of events or a download holds a connection and a file; the rest are the database's and our own.
_FILES_OF_OUR_OWN = 256
_MOST_CONNECTIONS = 4096


def config(app: Any, settings: Settings, **changes: Any) -> uvicorn.Config:
    """uvicorn's configuration. `changes` are its own arguments."""
    arguments: dict[str, Any] = {
        "http": wire(settings, max_connections()),
        "ws": "none",
        "log_config": None,
        "access_log": False,  # the front writes one, which forges no lines
        "server_header": False,
        "proxy_headers": False,  # nothing asks where a request came from, so nobody needs to be believed
        # Followers of a job's events hold their connections open for hours; they reconnect elsewhere.
        "timeout_graceful_shutdown": 3,
    }
    return uvicorn.Config(app, **(arguments | changes))


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as it may: 1,024 is common, and a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_CONNECTIONS + _FILES_OF_OUR_OWN
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def max_connections() -> int:
    """As many as the limit of open files leaves, each with a file of its own beside it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(64, min(_MOST_CONNECTIONS, (soft - _FILES_OF_OUR_OWN) // 2))
