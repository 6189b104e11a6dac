"""The commands `fewbytes collect` and `fewbytes verify`, for the operator: they work on database and data folder."""

from typing import Annotated

import typer

from app.cli.installation import DataDir, database
from app.cli.terminal import refuse, say
from app.storage import collector, verification

app = typer.Typer()


@app.command()
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Remove what nobody needs any more, one line each: bytes, what. The service does it by itself every five minutes."""
    num_things = num_bytes = 0
    with database(data_dir) as config:
        try:
            for removed in collector.collect(config, dry_run=dry_run):
                print(removed.size_bytes, removed.what, sep="\t")
                num_things, num_bytes = num_things + 1, num_bytes + removed.size_bytes
        except collector.ForeignFolderError as error:
            refuse(str(error))
    say(f"{'Would remove' if dry_run else 'Removed'} {num_things} things, {num_bytes} bytes.")


@app.command()
def verify(data_dir: DataDir = None) -> None:
    """Read every object that a row names and compare it with its digest. Exit code 1: some are missing or damaged."""
    num_objects = num_bytes = num_bad = 0
    with database(data_dir) as config:
        for checked in verification.verify(config):
            num_objects, num_bytes = num_objects + 1, num_bytes + checked.size_bytes
            if checked.fault:
                num_bad += 1
                needed_by = ", ".join(map(str, checked.needed_by))
                print(checked.fault, checked.sha256, f"needed by {needed_by}", sep="\t")
    say(f"Read {num_objects} objects, {num_bytes} bytes: {num_bad or 'none'} missing or damaged.")
    if num_bad:
        raise typer.Exit(1)
