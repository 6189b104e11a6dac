"""Sweeps: many jobs from one spec or preset, and what they say together."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from app.client.answers import Page
from app.client.connection import Connection, parsed
from app.client.jobs import LONG_POLL_SECONDS, TERMINAL
from app.client.operations import operation
from app.client.pages import LARGEST_PAGE, walk
from app.client.sweep_answers import (
    ComparisonView,
    ParetoView,
    PresetView,
    SummaryView,
    SweepPlanView,
    SweepSummaryView,
    SweepView,
    TableView,
)

Kind = Literal["answers", "stages", "iterations"]
FileFormat = Literal["csv", "parquet"]


class Sweeps:
    """Many jobs from one spec."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # ---- begin

    @operation("POST /v1/sweeps", sets=("validate_only",))
    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> SweepView:
        """Queue all its jobs. `spec`: a job with axes, or a preset with teachers and data. A line that breaks
        meanwhile makes no second sweep: the request carries a key of its own, unless one is given."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        answer = self._connection.request("POST", "/v1/sweeps", json=spec, headers=headers, repeatable=True)
        return parsed(SweepView, answer)

    @operation("POST /v1/sweeps", sets=("validate_only", "Idempotency-Key"))
    def validate(self, spec: Mapping[str, Any]) -> SweepPlanView:
        """The sweep as it would run; nothing is stored. Raises FewbytesError with what is wrong."""
        params = {"validate_only": True}
        answer = self._connection.request("POST", "/v1/sweeps", params=params, json=spec, repeatable=True)
        return parsed(SweepPlanView, answer)

    # ---- look

    @operation("GET /v1/sweeps")
    def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> Page[SweepSummaryView]:
        """A page, the newest first."""
        params: dict[str, Any] = {"page_size": page_size, "page_token": page_token}
        params |= {f"label.{name}": value for name, value in (labels or {}).items()}
        return parsed(Page[SweepSummaryView], self._connection.request("GET", "/v1/sweeps", params=params))

    def all(self, **filters: Any) -> Iterator[SweepSummaryView]:
        """Every sweep, the newest first; `filters` as `list` takes them."""
        return walk(lambda token: self.list(page_size=LARGEST_PAGE, page_token=token, **filters))

    @operation("GET /v1/sweeps/{sweep_id}", sets=("If-None-Match",))
    def get(self, sweep_id: str, *, wait: float | None = None) -> SweepView:
        """The sweep; with `wait` when it changes, or after so many seconds (60 at most)."""
        return self._connection.get(SweepView, f"/v1/sweeps/{sweep_id}", wait=wait)

    def changes(self, sweep_id: str, *, poll_seconds: float = LONG_POLL_SECONDS) -> Iterator[SweepView]:
        """The sweep now and after every change, until it has ended. The same again where nothing changed for so long."""
        return self._connection.changes(SweepView, f"/v1/sweeps/{sweep_id}", TERMINAL, poll_seconds)

    def wait(
        self,
        sweep_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[SweepView], None] | None = None,
    ) -> SweepView:
        """The sweep when all its jobs have ended. Raises FewbytesError WAIT_TIMEOUT after `timeout` seconds."""
        return self._connection.wait(
            SweepView, f"/v1/sweeps/{sweep_id}", TERMINAL, timeout=timeout, on_change=on_change
        )

    # ---- what it says

    @operation("GET /v1/sweeps/{sweep_id}/table", sets=("format", "Accept"))
    def table(self, sweep_id: str, *, rows: Kind = "answers") -> TableView:
        """One row a job, stage, or iteration of pruning; while the sweep runs with what there is."""
        return self._connection.get(TableView, f"/v1/sweeps/{sweep_id}/table", rows=rows, format="json")

    @operation("GET /v1/sweeps/{sweep_id}/table", sets=("Accept",))
    def table_file(self, sweep_id: str, *, rows: Kind = "answers", format: FileFormat = "csv") -> bytes:
        """The same as CSV or Parquet."""
        params = {"rows": rows, "format": format}
        return self._connection.request("GET", f"/v1/sweeps/{sweep_id}/table", params=params).content

    @operation("GET /v1/sweeps/{sweep_id}/summary")
    def summary(
        self, sweep_id: str, *, metric: str | None = None, baseline: int | None = None
    ) -> SummaryView:
        """Means and intervals over seeds, differences to the baseline, the winner or why there is none."""
        path = f"/v1/sweeps/{sweep_id}/summary"
        return self._connection.get(SummaryView, path, metric=metric, baseline=baseline)

    @operation("GET /v1/sweeps/{sweep_id}/pareto")
    def pareto(
        self,
        sweep_id: str,
        *,
        x: str = "size_bytes",
        y: str = "test_accuracy",
        over: Literal["points", "rows"] = "points",
    ) -> ParetoView:
        """What nothing else beats in both numbers."""
        return self._connection.get(ParetoView, f"/v1/sweeps/{sweep_id}/pareto", x=x, y=y, over=over)

    # ---- change

    @operation("POST /v1/sweeps/{sweep_id}/cancel")
    def cancel(self, sweep_id: str) -> SweepView:
        """Stop all its jobs that have not ended."""
        return self._connection.post(SweepView, f"/v1/sweeps/{sweep_id}/cancel")

    @operation("POST /v1/sweeps/{sweep_id}/pause")
    def pause(self, sweep_id: str) -> SweepView:
        return self._connection.post(SweepView, f"/v1/sweeps/{sweep_id}/pause")

    @operation("POST /v1/sweeps/{sweep_id}/resume")
    def resume(self, sweep_id: str) -> SweepView:
        return self._connection.post(SweepView, f"/v1/sweeps/{sweep_id}/resume")

    @operation("POST /v1/sweeps/{sweep_id}/retry")
    def retry(self, sweep_id: str) -> SweepView:
        """Queue its failed and cancelled jobs again."""
        return self._connection.post(SweepView, f"/v1/sweeps/{sweep_id}/retry")

    @operation("POST /v1/sweeps/{sweep_id}/extend", local=("seeds",))
    def extend(self, sweep_id: str, *, seeds: int) -> SweepView:
        """Run every point with more seeds: `seeds` is how many each has then."""
        body = {"seeds": seeds}
        return self._connection.post(SweepView, f"/v1/sweeps/{sweep_id}/extend", body, repeatable=True)

    @operation("DELETE /v1/sweeps/{sweep_id}")
    def delete(self, sweep_id: str) -> None:
        """Delete one that has ended, with its jobs."""
        self._connection.delete(f"/v1/sweeps/{sweep_id}")


class Presets:
    """Sweeps that are ready to run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/presets")
    def list(self) -> Page[PresetView]:
        """All of them, on one page."""
        return self._connection.get(Page[PresetView], "/v1/presets")

    @operation("GET /v1/presets/{name}")
    def spec(
        self,
        name: str,
        *,
        teachers: Sequence[str] | None = None,
        dataset: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The sweep that it stands for, to read, to edit and to submit."""
        params: dict[str, Any] = {"teachers": ",".join(teachers) if teachers else None, "dataset": dataset}
        params |= {f"option.{option}": json.dumps(value) for option, value in (options or {}).items()}
        spec: dict[str, Any] = self._connection.request(
            "GET", f"/v1/presets/{quote(name, safe='')}", params=params
        ).json()
        return spec


class Comparisons:
    """Any jobs side by side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @operation("GET /v1/compare", sets=("format", "Accept"))
    def compare(
        self, job: Sequence[str], *, rows: Kind = "answers", metric: str | None = None
    ) -> ComparisonView:
        """The jobs' table and what it says; the first job is the baseline."""
        params = {"job": [*job], "rows": rows, "metric": metric, "format": "json"}
        return parsed(ComparisonView, self._connection.request("GET", "/v1/compare", params=params))

    @operation("GET /v1/compare", sets=("Accept",))
    def compare_file(
        self,
        job: Sequence[str],
        *,
        rows: Kind = "answers",
        metric: str | None = None,
        format: FileFormat = "csv",
    ) -> bytes:
        """The same as CSV or Parquet."""
        params = {"job": [*job], "rows": rows, "metric": metric, "format": format}
        return self._connection.request("GET", "/v1/compare", params=params).content
