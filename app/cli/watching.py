"""What is known of a job while it is watched, and how it is said: as a picture that changes, or as lines."""

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli import figures
from app.cli.stages import stage_columns, stage_row
from app.cli.tables import terminal_table
from app.cli.terminal import printable
from app.client import Client
from app.client.answers import EventView, JobView, MetricView

METRICS_EVERY_SECONDS = 5.0
LINE_EVERY_SECONDS = 30.0
"""Of a job that only gets on, a line is printed this often where the output is no terminal."""


class JobWatch:
    """A job, the stages that it has finished, and its newest numbers."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._after = 0
        self._metrics_at = 0.0
        self._seen_at = time.monotonic()
        self.job: JobView | None = None
        self.stages: dict[tuple[int, int], dict[str, Any]] = {}
        self.newest: list[MetricView] = []

    def follow(self, poll_seconds: float) -> Iterator[list[EventView]]:
        """Every change, with the events that came with it, until the job has ended."""
        for job in self._client.jobs.changes(self._job_id, poll_seconds=poll_seconds):
            changed = self.job is None or job.version != self.job.version
            self.job = job
            if changed:
                self._seen_at = time.monotonic()
            events = self._new_events() if changed else []
            for event in events:
                if event.type == "stage":
                    key = (event.data.get("seed") or 0, event.data.get("step") or 0)
                    self.stages = {**self.stages, key: event.data}  # the picture is drawn by another thread
            self._look_at_metrics()
            yield events

    def _new_events(self) -> list[EventView]:
        found: list[EventView] = []
        while True:
            page = self._client.jobs.event_page(self._job_id, after=self._after, page_size=200)
            found += page.items
            if not page.items:
                return found
            self._after = page.after

    def _look_at_metrics(self) -> None:
        """The numbers of the step under way, now and then: they come all at once, and may be many."""
        job = self.job
        now = time.monotonic()
        if job is None or job.state != "running" or now < self._metrics_at:
            return
        step = (job.progress or {}).get("step")
        metrics = [metric for metric in self._client.jobs.metrics(job.id).items if metric.step == step]
        epochs = [metric.epoch for metric in metrics if metric.epoch is not None]
        self.newest = [
            metric
            for metric in metrics
            if epochs and metric.epoch == max(epochs) and metric.name != "learning_rate"
        ]
        took = time.monotonic() - now
        self._metrics_at = now + max(METRICS_EVERY_SECONDS, 10 * took)

    # ---- in words

    def headline(self) -> str:
        """State and phase: what a line is printed for."""
        job = self.job
        assert job is not None, "look first"
        name = f" ({job.name})" if job.name else ""
        state = "paused" if job.paused and job.state == "queued" else job.state
        if job.state == "queued" and job.queue is not None:
            return f"{job.id}{name} {state}: {job.queue.detail}"
        phase = f": {job.phase}" if job.state in ("running", "cancelling") and job.phase else ""
        return f"{job.id}{name} {state}{phase}"

    def progress_words(self) -> str:
        """How far the step is, and what it takes yet; empty where nobody said."""
        progress = self.job.progress if self.job is not None and self.job.state == "running" else None
        if not progress or not progress.get("total"):
            return ""
        words = f"step {progress['step']}" if progress.get("step") else ""
        words += f" of {progress['num_steps']}" if words and progress.get("num_steps") else ""
        done = (
            f"{progress.get('unit') or 'part'} {_short(progress.get('done'))} of {_short(progress['total'])}"
        )
        eta = progress.get("eta_seconds")
        left = "" if eta is None else f"about {figures.duration(max(0.0, eta - self._age()))} left in it"
        return ", ".join(part for part in (words, done, left) if part)

    def _age(self) -> float:
        return time.monotonic() - self._seen_at

    def newest_words(self) -> str:
        """The numbers of the last epoch."""
        if not self.newest:
            return ""
        parts = [f"{_title(metric)} {_number(metric)}" for metric in self.newest]
        return f"epoch {self.newest[0].epoch}: {', '.join(parts)}"

    def attempt_words(self) -> list[str]:
        """The attempts that did not end the job: each with how it ended."""
        assert self.job is not None
        ended = [attempt for attempt in self.job.attempts if attempt.outcome not in (None, "succeeded")]
        return [f"attempt {attempt.n} ({attempt.outcome}): {attempt.detail}" for attempt in ended]

    def records(self) -> list[dict[str, Any]]:
        """The stages, in order; of a job that has ended as its result has them."""
        result = self.job.result if self.job is not None else None
        if result and result.get("stages"):
            return list(result["stages"])
        return [self.stages[key] for key in sorted(self.stages)]

    # ---- as a picture

    def picture(self) -> RenderableType:
        assert self.job is not None
        parts: list[RenderableType] = [Text(printable(self.headline()), style="bold")]
        fraction = (self.job.progress or {}).get("fraction")
        if self.job.state == "running" and fraction is not None:
            parts.append(bar(fraction, self.progress_words()))
        elif words := self.progress_words():
            parts.append(Text(printable(words)))
        if self.job.state == "running" and (words := self.newest_words()):
            parts.append(Text(printable(words), style="dim"))
        parts += [Text(printable(words), style="yellow") for words in self.attempt_words()]
        if records := self.records():
            parts.append(terminal_table(stage_columns(records), [stage_row(record) for record in records]))
        return Group(*parts)


def bar(fraction: float, words: str) -> Table:
    """A bar, how much of it is done, and what is said of it, in one line where there is room."""
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=1.0, completed=fraction, width=30), Text(f"{fraction:4.0%}"), Text(printable(words))
    )
    return line


def _short(number: float | None) -> str:
    return figures.NOTHING if number is None else f"{number:.1f}".removesuffix(".0")


def _title(metric: MetricView) -> str:
    """`val accuracy`; of `train_loss` on train once is enough."""
    name = metric.name.replace("_", " ")
    return f"{metric.split} {name}" if metric.split and not name.startswith(metric.split) else name


def _number(metric: MetricView) -> str:
    if metric.name in ("accuracy", "agreement"):
        return figures.share(metric.value)
    return f"{metric.value:.4g}" + (f" {metric.unit}" if metric.unit not in ("1", "nat") else "")
