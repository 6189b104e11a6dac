"""The command `fewbytes upload`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import figures
from app.cli.fetching import bar
from app.cli.options import AsJson, Key, Quiet, Set, Url, service, spec_of
from app.cli.terminal import refuse, say, tell
from app.client import Client, FewbytesError
from app.client.answers import DatasetView, TeacherView
from app.client.specs import set_field

app = typer.Typer()


class Kind(StrEnum):
    teacher = "teacher"
    dataset = "dataset"


@app.command(
    epilog="Example: fewbytes upload photos.zip --as dataset --name food\n\nExample: fewbytes upload teacher.pt --as "
    'teacher --name big --architecture resnet18 --set preprocessing.resize=64 --set \'class_names=\\["cat","dog"]\''
)
def upload(
    file: Annotated[Path, typer.Argument(help="A checkpoint, or an archive of photos.", show_default=False)],
    kind: Annotated[Kind | None, typer.Option("--as", help="Register it, too.")] = None,
    name: Annotated[
        str | None, typer.Option(help="What jobs may call it by, in place of its id; with --as.")
    ] = None,
    file_name: Annotated[
        str | None, typer.Option(help="What the service stores it under. Default: the file's own name.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of a teacher whose file does not bring its graph.")
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            help="A file with the other fields of the registration, JSON or YAML; - reads standard input."
        ),
    ] = None,
    set_: Set = [],  # noqa: B006  # typer reads the default and changes nothing
    resume: Annotated[
        str | None, typer.Option(metavar="UPLOAD", help="Go on with an upload that was interrupted: its id.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Upload a file, and register it as a teacher or a data set."""
    if kind is None and (name or architecture or spec or set_):
        refuse("--name, --architecture, --spec and --set go with --as teacher or --as dataset.")
    if kind is Kind.dataset and architecture:
        refuse("--architecture goes with --as teacher.")
    with service(url, key) as client:
        body = _registration(name, architecture, spec, set_)
        stored = _sent(client, file, file_name or file.name, resume, quiet=quiet)
        if kind is None:
            _say(
                stored.name, stored.model_dump_json(indent=2), f"{stored.size_bytes:,} bytes", quiet, as_json
            )
            return
        if not quiet:
            say(f"{stored.name} is there, {figures.size(stored.size_bytes)}. It is being looked at …")
        row = _registered(client, kind, body | {"file": stored.name})
        _say(row.id, row.model_dump_json(indent=2), _facts(row), quiet, as_json)


def _registration(
    name: str | None, architecture: str | None, spec: str | None, assignments: list[str]
) -> dict[str, Any]:
    body = spec_of(spec, []) if spec is not None else {}
    if not isinstance(body, dict):
        refuse(f"{spec} holds no object: give fields such as preprocessing and class_names.")
    body |= {field: value for field, value in (("name", name), ("architecture", architecture)) if value}
    for assignment in assignments:
        # "preprocessing.resize=64" shall do without an empty preprocessing being named first.
        outer = assignment.split("=")[0].split(".")[0]
        if "." in assignment.split("=")[0] and outer not in body:
            body = set_field(body, f"{outer}={{}}")
        body = set_field(body, assignment)
    return dict(body)


def _sent(client: Client, file: Path, name: str, resume: str | None, *, quiet: bool) -> Any:
    """Upload, with progress on standard error where that is a terminal; an interrupted one can go on."""
    begun: list[str] = []
    try:
        with bar(file.name, quiet=quiet) as on_progress:
            return client.files.upload(
                file, name, on_progress=on_progress, on_begin=begun.append, resume=resume
            )
    except (FewbytesError, KeyboardInterrupt):
        if begun:
            say(
                f"\nWhat arrived is kept for a day. Go on: fewbytes upload {file} --resume {begun[0]} "
                "(and the options as before)"
            )
        raise


def _registered(client: Client, kind: Kind, body: dict[str, Any]) -> TeacherView | DatasetView:
    return client.teachers.register(body) if kind is Kind.teacher else client.datasets.register(body)


def _facts(row: TeacherView | DatasetView) -> str:
    report = row.report or {}
    if isinstance(row, TeacherView):
        return (
            f"{figures.count(report.get('parameters'))} parameters, {figures.count(report.get('macs'))} MACs"
        )
    splits = ", ".join(f"{name} {split['num_images']}" for name, split in report.get("splits", {}).items())
    return f"{len(report.get('class_names', []))} classes; {splits}"


def _say(ident: str, document: str, facts: str, quiet: bool, as_json: bool) -> None:
    tell(document if as_json else ident if quiet else f"{ident}  {facts}")
