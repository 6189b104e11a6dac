"""Jobs: submit, look, wait, follow, pause, cancel, try again."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.client.answers import (
    ArtifactView,
    EventPage,
    EventView,
    JobSummary,
    JobView,
    MetricView,
    Page,
    PlanView,
)
from app.client.connection import Connection, parsed
from app.client.downloads import Progress, download
from app.client.events import follow
from app.client.operations import operation
from app.client.pages import LARGEST_PAGE, walk

TERMINAL = ("succeeded", "failed", "cancelled")
LONG_POLL_SECONDS = 30.0


class Jobs:
    """What compresses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # ---- begin

    @operation("POST /v1/jobs", sets=("validate_only", "Prefer"))
    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> JobView:
        """Queue a job. A line that breaks meanwhile makes no second one: the request carries a key of its own, unless one is
        given."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer = self._connection.request("POST", "/v1/jobs", json=spec, headers=headers, repeatable=True)
        return parsed(JobView, answer)

    @operation("POST /v1/jobs", sets=("validate_only", "Idempotency-Key", "Prefer"))
    def validate(self, spec: Mapping[str, Any]) -> PlanView:
        """The job as it would run; nothing is stored. Raises FewbytesError with everything that is wrong."""
        params = {"validate_only": True}
        answer = self._connection.request("POST", "/v1/jobs", params=params, json=spec, repeatable=True)
        return parsed(PlanView, answer)

    # ---- look

    @operation("GET /v1/jobs")
    def list(
        self,
        *,
        state: str | None = None,
        passed: bool | None = None,
        paused: bool | None = None,
        sweep: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: str | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> Page[JobSummary]:
        """A page, the newest first. `created_after`: an RFC 3339 time."""
        params = {
            "state": state,
            "passed": passed,
            "paused": paused,
            "sweep": sweep,
            "created_after": created_after,
            "page_size": page_size,
            "page_token": page_token,
        }
        params |= {f"label.{name}": value for name, value in (labels or {}).items()}
        return parsed(Page[JobSummary], self._connection.request("GET", "/v1/jobs", params=params))

    def all(self, **filters: Any) -> Iterator[JobSummary]:
        """Every job, the newest first; `filters` as `list` takes them."""
        return walk(lambda token: self.list(page_size=LARGEST_PAGE, page_token=token, **filters))

    @operation("GET /v1/jobs/{job_id}", sets=("If-None-Match",))
    def get(self, job_id: str, *, wait: float | None = None) -> JobView:
        """The job; with `wait` when it changes, or after so many seconds (60 at most)."""
        return self._connection.get(JobView, f"/v1/jobs/{job_id}", wait=wait)

    def changes(self, job_id: str, *, poll_seconds: float = LONG_POLL_SECONDS) -> Iterator[JobView]:
        """The job now and after every change, until it has ended. The same again where nothing changed for so long."""
        return self._connection.changes(JobView, f"/v1/jobs/{job_id}", TERMINAL, poll_seconds)

    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[JobView], None] | None = None,
    ) -> JobView:
        """The job when it has ended, however it did. Raises FewbytesError WAIT_TIMEOUT after `timeout` seconds."""
        return self._connection.wait(
            JobView, f"/v1/jobs/{job_id}", TERMINAL, timeout=timeout, on_change=on_change
        )

    @operation("GET /v1/jobs/{job_id}/events", sets=("stream", "Accept", "Last-Event-ID"))
    def event_page(self, job_id: str, *, after: int = 0, page_size: int | None = None) -> EventPage:
        """Events after number `after`, those that there are."""
        path = f"/v1/jobs/{job_id}/events"
        return self._connection.get(EventPage, path, after=after, page_size=page_size)

    def events(self, job_id: str, *, after: int = 0) -> Iterator[EventView]:
        """Events as they happen, until the job has ended; a line that breaks is taken up again, and none is lost."""
        return follow(self._connection, job_id, after)

    @operation("GET /v1/jobs/{job_id}/logs")
    def logs(self, job_id: str, *, after: int = 0) -> str:
        """The log, a line each: time, level, message."""
        return self._connection.request("GET", f"/v1/jobs/{job_id}/logs", params={"after": after}).text

    @operation("GET /v1/jobs/{job_id}/metrics", sets=("format",))
    def metrics(self, job_id: str, *, seed: int | None = None) -> Page[MetricView]:
        """Every number that was measured, by seed, step and epoch, on one page."""
        return self._connection.get(Page[MetricView], f"/v1/jobs/{job_id}/metrics", seed=seed)

    @operation("GET /v1/jobs/{job_id}/metrics", sets=("format",))
    def metrics_csv(self, job_id: str, *, seed: int | None = None) -> str:
        params = {"format": "csv", "seed": seed}
        return self._connection.request("GET", f"/v1/jobs/{job_id}/metrics", params=params).text

    # ---- what it leaves

    @operation("GET /v1/jobs/{job_id}/artifacts")
    def artifacts(self, job_id: str) -> Page[ArtifactView]:
        """All its files, on one page."""
        return self._connection.get(Page[ArtifactView], f"/v1/jobs/{job_id}/artifacts")

    @operation("GET /v1/jobs/{job_id}/download", local=("target", "on_progress"))
    def download(
        self, job_id: str, target: Path | None = None, *, on_progress: Progress | None = None
    ) -> Path:
        """Fetch the answer; returns where it lies. Raises FewbytesError NOT_FINISHED while there is none."""
        return download(self._connection, f"/v1/jobs/{job_id}/download", target, on_progress=on_progress)

    # ---- change

    @operation("POST /v1/jobs/{job_id}/cancel")
    def cancel(self, job_id: str) -> JobView:
        """Stop it. A running one keeps its best student so far as an artifact."""
        return self._connection.post(JobView, f"/v1/jobs/{job_id}/cancel")

    @operation("POST /v1/jobs/{job_id}/pause")
    def pause(self, job_id: str) -> JobView:
        """Hold it until `resume`."""
        return self._connection.post(JobView, f"/v1/jobs/{job_id}/pause")

    @operation("POST /v1/jobs/{job_id}/resume")
    def resume(self, job_id: str) -> JobView:
        return self._connection.post(JobView, f"/v1/jobs/{job_id}/resume")

    @operation("POST /v1/jobs/{job_id}/retry")
    def retry(self, job_id: str) -> JobView:
        """Queue a failed or cancelled one again; it goes on from its last checkpoint."""
        return self._connection.post(JobView, f"/v1/jobs/{job_id}/retry")

    @operation("DELETE /v1/jobs/{job_id}")
    def delete(self, job_id: str) -> None:
        """Delete one that has ended, with its artifacts."""
        self._connection.delete(f"/v1/jobs/{job_id}")
