"""The service itself: what can be asked of it, who works for it, what one has and may have."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.client.answers import (
    ArchitectureView,
    AuditView,
    KeyView,
    NewKeyView,
    Page,
    QueueView,
    Readiness,
    StepView,
    UsageView,
    WorkerView,
)
from app.client.connection import Connection, parsed
from app.client.downloads import download
from app.client.operations import operation
from app.client.pages import LARGEST_PAGE, walk


class Catalogue:
    """What a job may name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/architectures")
    def architectures(self) -> Page[dict[str, Any]]:
        """All of them, on one page."""
        return self._connection.get(Page[dict[str, Any]], "/v1/architectures")

    @operation("GET /v1/architectures/{name}", sets=("Prefer",))
    def architecture(
        self,
        name: str,
        *,
        num_classes: int | None = None,
        image_size: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ArchitectureView:
        """One with its layer table, which is null until a worker has built the network: ask again then."""
        params = {"num_classes": num_classes, "image_size": image_size}
        params |= {f"option.{option}": value for option, value in (options or {}).items()}
        answer = self._connection.request(
            "GET", f"/v1/architectures/{quote(name)}", params=params, wait=120.0
        )
        return parsed(ArchitectureView, answer)

    @operation("GET /v1/steps")
    def steps(self) -> Page[StepView]:
        """The methods, with the JSON schemas of their fields, on one page."""
        return self._connection.get(Page[StepView], "/v1/steps")


class Service:
    """Is it well, and who works."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /readyz")
    def readiness(self) -> Readiness:
        return self._connection.get(Readiness, "/readyz")

    @operation("GET /v1/workers")
    def workers(self) -> Page[WorkerView]:
        """Those that reported lately, on one page."""
        return self._connection.get(Page[WorkerView], "/v1/workers")

    @operation("GET /v1/queues")
    def queues(self) -> Page[QueueView]:
        return self._connection.get(Page[QueueView], "/v1/queues")

    @operation("GET /v1/tools/{tool}", local=("target",))
    def download_tool(self, tool: str, target: Path | None = None) -> Path:
        """load_artifact.py, which opens an artifact with torch alone, or trace_network.py; returns where it lies."""
        return download(self._connection, f"/v1/tools/{quote(tool)}", target)


class Account:
    """A tenant's own affairs. Keys and audit log need a key with the scope admin."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/usage")
    def usage(self) -> UsageView:
        return self._connection.get(UsageView, "/v1/usage")

    @operation("GET /v1/keys")
    def keys(self, *, page_size: int | None = None, page_token: str | None = None) -> Page[KeyView]:
        """A page, the newest first."""
        return self._connection.get(Page[KeyView], "/v1/keys", page_size=page_size, page_token=page_token)

    def all_keys(self) -> Iterator[KeyView]:
        return walk(lambda token: self.keys(page_size=LARGEST_PAGE, page_token=token))

    @operation("POST /v1/keys", local=("name", "scope", "days"))
    def make_key(self, name: str, scope: str, *, days: int | None = None) -> NewKeyView:
        """Make a key; `secret` is told this once. `scope`: read, write or admin."""
        return self._connection.post(NewKeyView, "/v1/keys", {"name": name, "scope": scope, "days": days})

    @operation("DELETE /v1/keys/{key_id}")
    def revoke_key(self, key_id: str) -> None:
        self._connection.delete(f"/v1/keys/{key_id}")

    @operation("GET /v1/audit")
    def audit(self, *, page_size: int | None = None, page_token: str | None = None) -> Page[AuditView]:
        """A page of what was changed and by which key, the newest first."""
        return self._connection.get(Page[AuditView], "/v1/audit", page_size=page_size, page_token=page_token)
