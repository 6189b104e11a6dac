"""The client: one object, and what it has by kind."""

import os
import re
import time
from collections.abc import Callable
from types import TracebackType

import httpx

from app.client.artifacts import Artifacts
from app.client.connection import DEFAULT_URL, Connection
from app.client.errors import FewbytesError
from app.client.files import Files, Uploads
from app.client.ingredients import Datasets, Teachers
from app.client.jobs import Jobs
from app.client.reports import Reports
from app.client.service import Account, Catalogue, Service
from app.client.sweeps import Comparisons, Presets, Sweeps

_HOST = re.compile(r"[\w.:-]+")


class Client:
    """A fewbytes service: `with Client() as client: client.jobs.submit({...})`.

    `base_url` and `key` default to FEWBYTES_URL (else this machine's own service) and FEWBYTES_KEY. `patience_seconds`: how
    long a request that may be repeated is repeated while the service is busy (429, 503) or its line is broken.

    Every method raises FewbytesError. It may be used by one thread at a time.
    """

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        patience_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _url(base_url or os.environ.get("FEWBYTES_URL") or DEFAULT_URL)
        key = key or os.environ.get("FEWBYTES_KEY") or None
        self._connection = Connection(
            self.url, key, patience_seconds=patience_seconds, sleep=sleep, transport=transport
        )
        self.files = Files(self._connection)
        self.uploads = Uploads(self._connection)
        self.teachers = Teachers(self._connection)
        self.datasets = Datasets(self._connection)
        self.jobs = Jobs(self._connection)
        self.sweeps = Sweeps(self._connection)
        self.presets = Presets(self._connection)
        self.comparisons = Comparisons(self._connection)
        self.reports = Reports(self._connection)
        self.artifacts = Artifacts(self._connection)
        self.catalogue = Catalogue(self._connection)
        self.service = Service(self._connection)
        self.account = Account(self._connection)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _url(text: str) -> str:
    """An address with its scheme. Raises FewbytesError INVALID_URL."""
    address = text if "://" in text else f"http://{text}"
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not _HOST.fullmatch(url.host) or url.userinfo:
        raise FewbytesError(
            "INVALID_URL", f"{text!r} is no address of a service: give one like http://127.0.0.1:8000."
        )
    return str(url).rstrip("/")
