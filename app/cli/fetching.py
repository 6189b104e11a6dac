"""What `fewbytes get ID -o FILE` fetches: by the kind of the id, and where there is a choice by the file's suffix."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.cli.tables import console
from app.cli.terminal import printable, refuse
from app.client import Client

REPORTS = {".html": "html", ".md": "md"}
TABLES = {".csv": "csv", ".parquet": "parquet", ".json": "json"}


def fetch(client: Client, ident: str, target: Path) -> Path:
    """Returns where it lies. Raises FewbytesError, OSError; ends the command where the suffix says nothing."""
    suffix = target.suffix.lower()
    match ident[:4]:
        case "swp_":
            return _written(target, _of_sweep(client, ident, suffix))
        case "dst_":
            return _written(target, client.datasets.images_csv(ident).encode())
        case "job_" | "ins_" if suffix in REPORTS:
            return _written(
                target, client.reports.job(ident, format="md" if suffix == ".md" else "html").encode()
            )
    with bar(target.name) as on_progress:
        match ident[:4]:
            case "tch_":
                return client.teachers.download_tensors(ident, target, on_progress=on_progress)
            case "art_":
                return client.artifacts.download(ident, target, on_progress=on_progress)
            case _:
                return client.jobs.download(ident, target, on_progress=on_progress)


def _of_sweep(client: Client, sweep_id: str, suffix: str) -> bytes:
    if suffix in REPORTS:
        return client.reports.sweep(sweep_id, format="md" if suffix == ".md" else "html").encode()
    if suffix == ".json":
        return client.sweeps.table(sweep_id).model_dump_json(indent=2).encode()
    if suffix in (".csv", ".parquet"):
        return client.sweeps.table_file(sweep_id, format="parquet" if suffix == ".parquet" else "csv")
    known = ", ".join([*TABLES, *REPORTS])
    refuse(f"A sweep makes tables and a report: give a file that ends in one of {known}.")


def _written(target: Path, content: bytes) -> Path:
    """There whole, or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.replace(target)
    return target


@contextmanager
def bar(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """How far bytes are, on standard error, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    parts = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(title), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
