"""What is known of a sweep while it is watched, and how it is said."""

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli import figures
from app.cli.tables import Column, Row, columns_of, console, terminal_table
from app.cli.terminal import printable
from app.cli.watching import bar
from app.client import Client
from app.client.sweep_answers import SweepView, TableView

TABLE_EVERY_SECONDS = 3.0
AROUND_THE_TABLE = 8
"""Lines that a picture needs beside its rows."""
_ENDED = ("succeeded", "failed", "infeasible", "cancelled")
_NUMBERS = ("test_accuracy", "val_accuracy", "size_bytes", "parameters", "macs")


class SweepWatch:
    """A sweep, and its table as far as it goes."""

    def __init__(self, client: Client, sweep_id: str) -> None:
        self._client = client
        self._sweep_id = sweep_id
        self._table_at = 0.0
        self._found: TableView | None = None
        self.sweep: SweepView | None = None

    def follow(self, poll_seconds: float) -> Iterator[SweepView]:
        """Every change, until it has ended; then the table is whole."""
        for sweep in self._client.sweeps.changes(self._sweep_id, poll_seconds=poll_seconds):
            self.sweep = sweep
            if sweep.state in _ENDED or time.monotonic() >= self._table_at:
                began = time.monotonic()
                self._found = self._client.sweeps.table(self._sweep_id)
                # A large table is asked for less often: watching must not become the service's work.
                now = time.monotonic()
                self._table_at = now + max(TABLE_EVERY_SECONDS, 10 * (now - began))
            yield sweep

    def headline(self) -> str:
        """State and counts: what a line is printed for."""
        sweep = self.sweep
        assert sweep is not None, "look first"
        name = f" ({sweep.name})" if sweep.name else ""
        counts = ", ".join(f"{number} {state}" for state, number in _counts(sweep) if number)
        return f"{sweep.id}{name} {sweep.state}: {counts or 'no jobs'}"

    def shared_words(self) -> str:
        """What is done once for several jobs; empty where nothing is."""
        shared = self.sweep.shared if self.sweep is not None else None
        if shared is None or not shared.stage_jobs:
            return ""
        stages, jobs, saved = shared.stage_jobs, shared.children_served, shared.steps_saved
        return f"shared stages: {stages}, for {jobs} jobs; steps not done again: {saved}"

    def picture(self) -> RenderableType:
        sweep = self.sweep
        assert sweep is not None, "look first"
        parts: list[RenderableType] = [Text(printable(self.headline()), style="bold")]
        if sweep.state not in _ENDED:
            eta = sweep.progress.eta_seconds
            left = "" if eta is None else f"about {figures.duration(eta)} left"
            parts.append(bar(sweep.progress.fraction or 0.0, left))
        if words := self.shared_words():
            parts.append(Text(words, style="dim"))
        room = None if sweep.state in _ENDED else max(5, console().height - AROUND_THE_TABLE)
        return Group(*parts, self.table(room))

    def table(self, room: int | None = None) -> Table:
        """A row a job; of more than `room` those that run, then those that ended last."""
        found = self._found
        if found is None:
            return Table()
        rows = list(found.rows)
        if room is not None and len(rows) > room:
            order = sorted(range(len(rows)), key=lambda position: _interest(rows[position]))
            rows = [rows[position] for position in sorted(order[:room])]
        return terminal_table(sweep_columns(found), rows)


def sweep_columns(table: TableView) -> list[Column]:
    """Of the table of answers those that tell the jobs apart, and the numbers that people ask for first."""
    names = ["job_id", *(axis.column for axis in table.axes), "seed", "state", "code", *_NUMBERS]
    always = {"job_id", "state"}
    found = columns_of(names, table.rows)
    return found if found else [Column(name, name.replace("_", " ")) for name in names if name in always]


def _interest(row: Row) -> int:
    """Lower is shown rather."""
    state = row.get("state")
    return 0 if state == "running" else 1 if state in _ENDED else 2


def _counts(sweep: SweepView) -> list[tuple[str, int]]:
    order = ("running", "queued", *_ENDED)
    counts: dict[str, Any] = sweep.counts.model_dump()
    return [(state, counts.get(state, 0)) for state in order]
