"""The commands that show what there is: `fewbytes get`, `list`, `logs`, `presets`."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from app.cli import figures
from app.cli.fetching import fetch
from app.cli.options import AsJson, Key, Quiet, Url, service
from app.cli.sweep_watching import SweepWatch
from app.cli.tables import Column, console, terminal_table
from app.cli.terminal import printable, refuse, say, tell
from app.cli.watch import say_failure
from app.cli.watching import JobWatch
from app.client import Client
from app.client.answers import DatasetView, JobView, TeacherView
from app.client.names import Names
from app.client.specs import set_field
from app.client.sweep_answers import PresetView

app = typer.Typer()

_KINDS = ("job_", "ins_", "swp_", "tch_", "dst_", "art_")


@app.command(
    epilog="Example: fewbytes get job_06fn3c -o student.pt\n\nWhat -o fetches: a job's answer (FILE.html, FILE.md: its "
    "report); a sweep's table (FILE.csv, FILE.parquet, FILE.json) or report (FILE.html, FILE.md); an artifact; a "
    "teacher's tensors; a data set's list of images (FILE.csv). A download that broke goes on where it was."
)
def get(
    ident: Annotated[
        str,
        typer.Argument(metavar="ID", help="A job, sweep, teacher, data set or artifact.", show_default=False),
    ],
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Fetch what it made, into this file."),
    ] = None,
    quiet: Quiet = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show a job, sweep, teacher, data set or artifact; with -o, fetch what it made."""
    if not ident.startswith(_KINDS):
        refuse(f"{ident!r} is no id: those of jobs begin with job_, others with swp_, tch_, dst_, art_.")
    with service(url, key) as client:
        if output is not None:
            path = fetch(client, ident, output)
            if quiet:
                tell(str(path))
            else:
                say(f"{path}: {figures.size(path.stat().st_size)}")
            return
        found = _found(client, ident)
        if as_json:
            tell(found.model_dump_json(indent=2))
        elif quiet:
            tell(ident)
        else:
            _show(client, found)


def _found(client: Client, ident: str) -> BaseModel:
    match ident[:4]:
        case "job_" | "ins_":
            return client.jobs.get(ident)
        case "swp_":
            return client.sweeps.get(ident)
        case "tch_":
            return client.teachers.get(ident)
        case "dst_":
            return client.datasets.get(ident)
        case _:
            return client.artifacts.get(ident)


def _show(client: Client, found: Any) -> None:
    if isinstance(found, JobView):
        _show_job(client, found)
    elif isinstance(found, TeacherView | DatasetView):
        _show_ingredient(found)
    elif found.id.startswith("swp_"):
        watched = SweepWatch(client, found.id)
        next(watched.follow(0.0))
        console().print(watched.picture())
    else:
        for name in ("id", "name", "kind", "job_id", "step", "size_bytes", "sha256", "created_at"):
            tell(f"{name:12} {figures.value(getattr(found, name))}")


def _show_job(client: Client, job: JobView) -> None:
    watched = JobWatch(client, job.id)
    next(watched.follow(0.0))
    console().print(watched.picture())
    for artifact in client.jobs.artifacts(job.id).items:
        tell(f"{artifact.id}  {artifact.kind:12} {artifact.size_bytes:>12,}  {artifact.name}")
    for warning in (job.result or {}).get("warnings") or []:
        tell(f"warning: {warning}")
    for gate in (job.result or {}).get("gates") or []:
        verdict = {True: "met", False: "missed"}.get(gate.get("passed"), "not measured")
        tell(
            f"limit {gate['gate']} {figures.value(gate['limit'])}: {figures.value(gate['value'])}, {verdict}"
        )
    if job.state in ("failed", "cancelled"):
        say_failure(job)


def _show_ingredient(row: TeacherView | DatasetView) -> None:
    report = row.report or {}
    tell(f"{row.id} {row.state}{f' ({row.name})' if row.name else ''}")
    if row.error is not None:
        tell(f"{row.error.get('code')}: {row.error.get('detail')}")
    elif isinstance(row, TeacherView):
        facts = (
            f"{figures.count(report.get('parameters'))} parameters, {figures.count(report.get('macs'))} MACs"
        )
        tell(f"{report.get('architecture') or 'its own graph'}: {facts}")
    else:
        tell(f"classes: {', '.join(report.get('class_names') or [])}")
        for split, facts in (report.get("splits") or {}).items():
            tell(f"{split:10} {facts.get('num_images'):>9,} images")
    for warning in report.get("warnings") or []:
        tell(f"warning: {warning}")


# ---- lists


class What(StrEnum):
    jobs = "jobs"
    sweeps = "sweeps"
    teachers = "teachers"
    datasets = "datasets"
    files = "files"


@app.command(name="list", epilog="Example: fewbytes list jobs --state failed --label team=vision")
def list_(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.jobs,
    state: Annotated[str | None, typer.Option(help="Jobs in this state alone.")] = None,
    label: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="With this label alone. May be repeated.")
    ] = [],  # noqa: B006  # typer reads the default and changes nothing
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many at most.")] = 20,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, sweeps, teachers, data sets or files, the newest first."""
    if (state and what is not What.jobs) or (label and what not in (What.jobs, What.sweeps)):
        refuse("--state chooses among jobs, --label among jobs and sweeps.")
    labels = dict(_name_and_value(text) for text in label)
    with service(url, key) as client:
        rows = list(islice(_all(client, what, state, labels), limit))
        if as_json:
            tell(f"[{', '.join(row.model_dump_json() for row in rows)}]")
        elif quiet:
            for row in rows:
                tell(row.name if what is What.files else row.id)
        else:
            console().print(terminal_table(_LIST_COLUMNS[what], [_list_row(row) for row in rows]))


def _all(client: Client, what: What, state: str | None, labels: dict[str, str]) -> Iterable[Any]:
    match what:
        case What.jobs:
            return client.jobs.all(state=state, labels=labels)
        case What.sweeps:
            return client.sweeps.all(labels=labels)
        case What.teachers:
            return client.teachers.all()
        case What.datasets:
            return client.datasets.all()
        case What.files:
            return client.files.all()


_ROW = (Column("id", "id"), Column("state", "state"), Column("name", "name"))
_CREATED = Column("created_at", "created")
_LIST_COLUMNS = {
    What.jobs: (*_ROW, Column("progress", "done", right=True), Column("phase", "phase"), _CREATED),
    What.sweeps: (*_ROW, Column("jobs", "jobs", right=True), _CREATED),
    What.teachers: (*_ROW, _CREATED),
    What.datasets: (*_ROW, _CREATED),
    What.files: (Column("name", "name"), Column("size_bytes", "bytes", right=True), _CREATED),
}


def _list_row(row: Any) -> dict[str, Any]:
    fields: dict[str, Any] = row.model_dump()
    if "counts" in fields:
        counts = fields["counts"]
        fields["jobs"] = (
            f"{sum(counts.values()) - counts['queued'] - counts['running']} of {sum(counts.values())}"
        )
    fraction = (fields.get("progress") or {}).get("fraction")
    fields["progress"] = None if fraction is None or fields.get("finished_at") else f"{fraction:.0%}"
    if fields.get("paused") and fields["state"] == "queued":
        fields["state"] = "paused"
    if fields.get("state") == "failed" and fields.get("error"):
        fields["phase"] = fields["error"].get("code")
    return fields


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        refuse(f"--label {text!r}: give NAME=VALUE.")
    return name, value


# ---- logs


@app.command(epilog="Example: fewbytes logs job_06fn3c -f")
def logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="A job.", show_default=False)],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the job has ended.")
    ] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print a job's log."""
    with service(url, key) as client:
        if not follow:
            text = client.jobs.logs(job_id)
            sys.stdout.write("".join(f"{printable(line)}\n" for line in text.splitlines()))
            return
        for event in client.jobs.events(job_id):
            if event.type == "log":
                data = event.data
                tell(f"{event.at} {data.get('level', 'info'):7} {printable(str(data.get('message', '')))}")


# ---- presets


@app.command(
    epilog="Example: fewbytes presets alpha --option epochs=5 --json > alpha.json && fewbytes sweep alpha.json"
)
def presets(
    name: Annotated[str | None, typer.Argument(help="Only this one, with its options.")] = None,
    teacher: Annotated[list[str], typer.Option(help="With --json, by id or name. May be repeated.")] = [],  # noqa: B006  # typer reads the default and changes nothing
    dataset: Annotated[str | None, typer.Option(help="With --json, by id or name.")] = None,
    option: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="With --json: an option. May be repeated.")
    ] = [],  # noqa: B006  # typer reads the default and changes nothing
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show the sweeps that are ready to run. With --json, one as the spec that it stands for."""
    if (teacher or dataset or option) and not (as_json and name):
        refuse("--teacher, --dataset and --option go with the name of one preset and --json.")
    with service(url, key) as client:
        if name and as_json:
            tell(_expanded(client, name, teacher, dataset, option))
            return
        found = [preset for preset in client.presets.list().items if name in (None, preset.name)]
        if name and not found:
            refuse(f"There is no preset {name!r}. `fewbytes presets` shows those there are.")
        if as_json:
            tell(f"[{', '.join(preset.model_dump_json() for preset in found)}]")
        elif quiet:
            for preset in found:
                tell(preset.name)
        elif name:
            _show_preset(found[0])
        else:
            columns = (
                Column("name", "name"),
                Column("teachers", "teachers", right=True),
                Column("asks", "asks"),
            )
            rows = [{"name": p.name, "teachers": _least(p), "asks": p.asks} for p in found]
            console().print(terminal_table(columns, rows))


def _expanded(client: Client, name: str, teachers: list[str], dataset: str | None, options: list[str]) -> str:
    from app.cli.submit import as_text

    given: Any = {}
    for option in options:
        given = set_field(given, option)
    names = Names(client)
    ids = [names.id_of("teacher", teacher) for teacher in teachers]
    data = None if dataset is None else names.id_of("dataset", dataset)
    return as_text(client.presets.spec(name, teachers=ids, dataset=data, options=given))


def _show_preset(preset: PresetView) -> None:
    tell(f"{preset.name}: {preset.title}\n\nAsks: {preset.asks}\nThe report found: {preset.found}")
    tell(
        f"Needs: {_least(preset)} teacher(s); a data set with {', '.join(preset.splits)} beside val or test.\n"
    )
    rows = [
        {
            "name": name,
            "default": _default(field),
            "short": preset.short.get(name),
            "is": (field.get("description") or "").split("\n")[0],
        }
        for name, field in (preset.options.get("properties") or {}).items()
    ]
    columns = (
        Column("name", "option"),
        Column("default", "default"),
        Column("short", "short"),
        Column("is", "is"),
    )
    console().print(terminal_table(columns, rows))


def _default(field: dict[str, Any]) -> Any:
    return field.get("default") if field.get("default") is not None else None


def _least(preset: PresetView) -> str:
    needed = preset.teachers
    return str(needed.min) if needed.min == needed.max else f"{needed.min}+"
