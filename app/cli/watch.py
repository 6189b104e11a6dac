"""The command `fewbytes watch`, and watching what was just submitted."""

import sys
import time
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from app.cli.options import FAILED, STOPPED, Key, Quiet, Url, error_line, service
from app.cli.stages import stage_columns, stage_row
from app.cli.sweep_watching import SweepWatch
from app.cli.tables import console, terminal_table
from app.cli.terminal import refuse, say, tell
from app.cli.watching import LINE_EVERY_SECONDS, JobWatch
from app.client import Client
from app.client.answers import JobView
from app.client.sweep_answers import SweepView

app = typer.Typer()

_LIVE_POLL_SECONDS = 5.0


@app.command(
    epilog="Example: fewbytes watch job_06fn3c && fewbytes get job_06fn3c -o student.pt\n\nExit code: 0 succeeded, 1 "
    "failed or cancelled, 2 there is no such job, 3 the service does not answer, 130 Ctrl-C, which stops the watching alone."
)
def watch(
    ident: Annotated[str, typer.Argument(metavar="ID", help="A job or a sweep.")],
    quiet: Quiet = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Follow a job or a sweep to its end."""
    with service(url, key) as client:
        follow(client, ident, quiet=quiet)


def follow(client: Client, ident: str, *, quiet: bool) -> None:
    """Until it has ended; raises typer.Exit unless it succeeded."""
    try:
        if ident.startswith("swp_"):
            _end_of_sweep(_watched_sweep(client, ident, quiet), quiet)
        elif ident.startswith(("job_", "ins_")):
            _end_of_job(_watched_job(client, ident, quiet), quiet)
        else:
            refuse(f"{ident!r} is no job and no sweep: give an id that begins with job_ or swp_.")
    except KeyboardInterrupt:
        say(
            f"\nStopped watching; {ident} goes on. Watch again: fewbytes watch {ident}. Stop it: fewbytes cancel {ident}."
        )
        raise typer.Exit(STOPPED) from None


# ---- jobs


def _watched_job(client: Client, job_id: str, quiet: bool) -> JobView:
    if quiet:
        return client.jobs.wait(job_id)
    watched = JobWatch(client, job_id)
    if sys.stdout.isatty():
        _as_picture(watched)
    else:
        _as_lines(watched)
    assert watched.job is not None, "following begins with a look"
    return watched.job


def _as_picture(watched: JobWatch) -> None:
    """Redrawn four times a second: what is left counts down between two looks."""

    def picture() -> object:
        return watched.picture() if watched.job is not None else Text("…")

    with Live(get_renderable=picture, console=console(), refresh_per_second=4):  # type: ignore[arg-type]
        for _ in watched.follow(_LIVE_POLL_SECONDS):
            pass


def _as_lines(watched: JobWatch) -> None:
    """A line for each new state, phase and stage, and now and then one that says how far it is."""
    said, said_at = "", 0.0
    for events in watched.follow(LINE_EVERY_SECONDS):
        assert watched.job is not None
        for event in events:
            if event.type == "log" and event.data.get("level") in ("warning", "error"):
                tell(f"{event.data['level']}: {event.data.get('message')}")
        progress = watched.progress_words()
        now = time.monotonic()
        if watched.headline() != said:
            said, said_at = watched.headline(), now
            tell(said)
        elif progress and now - said_at >= LINE_EVERY_SECONDS:
            said_at = now
            tell("  " + "; ".join(part for part in (progress, watched.newest_words()) if part))
        for event in events:
            if event.type == "stage":
                tell(f"  {_stage_words(event.data)}")
    if records := watched.records():
        console().print(terminal_table(stage_columns(records), [stage_row(record) for record in records]))


def _stage_words(record: dict[str, object]) -> str:
    from app.cli.tables import shown

    row = stage_row(record)
    parts = [
        f"{column.title} {shown(column.name, row[column.name])}"
        for column in stage_columns([record])
        if column.name not in ("step", "seed") and row[column.name] is not None
    ]
    seed = f"seed {record['seed']}, " if "seed" in record else ""
    return f"{seed}step {row['step']} done: {', '.join(parts)}"


def _end_of_job(job: JobView, quiet: bool) -> None:
    if job.state == "succeeded":
        if not quiet:
            gates = {True: " It met all its limits.", False: " It missed some of its limits.", None: ""}[
                job.passed
            ]
            say(f"{job.id} succeeded.{gates} Fetch the answer: fewbytes get {job.id} -o student.pt")
        return
    say_failure(job)
    raise typer.Exit(FAILED)


def say_failure(job: JobView) -> None:
    """Why a job ended without success, and what can be done."""
    error = job.error or {}
    if job.state == "cancelled":
        say(f"{job.id} was cancelled. Its best student so far, if any, is among: fewbytes get {job.id}")
        return
    say(f"{job.id} failed: {error.get('code')}: {error.get('detail')}")
    for entry in (error.get("errors") or [])[:20]:
        say(f"  {error_line(entry)}")
    if error.get("retryable"):
        say(f"Try it again, from its last checkpoint: fewbytes retry {job.id}")


# ---- sweeps


def _watched_sweep(client: Client, sweep_id: str, quiet: bool) -> SweepView:
    if quiet:
        return client.sweeps.wait(sweep_id)
    watched = SweepWatch(client, sweep_id)
    if sys.stdout.isatty():

        def picture() -> object:
            return watched.picture() if watched.sweep is not None else Text("…")

        with Live(get_renderable=picture, console=console(), refresh_per_second=2):  # type: ignore[arg-type]
            for _ in watched.follow(_LIVE_POLL_SECONDS):
                pass
    else:
        said = ""
        for _ in watched.follow(LINE_EVERY_SECONDS):
            if watched.headline() != said:
                said = watched.headline()
                tell(said)
        console().print(watched.table())
    assert watched.sweep is not None, "following begins with a look"
    return watched.sweep


def _end_of_sweep(sweep: SweepView, quiet: bool) -> None:
    if sweep.state == "succeeded":
        if not quiet:
            say(
                f"{sweep.id} succeeded. Its table: fewbytes compare {sweep.id}; its report: "
                f"fewbytes get {sweep.id} -o report.html"
            )
        return
    say(
        f"{sweep.id} {'was cancelled' if sweep.state == 'cancelled' else 'failed'}. What failed: fewbytes compare {sweep.id}"
    )
    raise typer.Exit(FAILED)
