"""The commands `fewbytes cancel`, `pause`, `resume` and `retry`, of a job or of a sweep."""

from collections.abc import Callable
from typing import Annotated

import typer

from app.cli.options import Key, Quiet, Url, service
from app.cli.terminal import refuse, tell
from app.client import Client
from app.client.answers import JobView
from app.client.sweep_answers import SweepView

app = typer.Typer()

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs and sweeps.", show_default=False)]
Verb = Callable[[str], JobView | SweepView]


@app.command(epilog="Example: fewbytes cancel job_06fn3c swp_06fn4d")
def cancel(idents: Ids, quiet: Quiet = False, url: Url = None, key: Key = None) -> None:
    """Cancel a job or a sweep. A running job keeps its best student so far."""
    _each(idents, quiet, url, key, lambda client: (client.jobs.cancel, client.sweeps.cancel))


@app.command(epilog="Example: fewbytes pause swp_06fn4d")
def pause(idents: Ids, quiet: Quiet = False, url: Url = None, key: Key = None) -> None:
    """Hold a job or a sweep until it is resumed. What runs saves a checkpoint first."""
    _each(idents, quiet, url, key, lambda client: (client.jobs.pause, client.sweeps.pause))


@app.command(epilog="Example: fewbytes resume swp_06fn4d")
def resume(idents: Ids, quiet: Quiet = False, url: Url = None, key: Key = None) -> None:
    """Let a paused job or sweep go on. It does so from its checkpoint."""
    _each(idents, quiet, url, key, lambda client: (client.jobs.resume, client.sweeps.resume))


@app.command(epilog="Example: fewbytes retry job_06fn3c && fewbytes watch job_06fn3c")
def retry(idents: Ids, quiet: Quiet = False, url: Url = None, key: Key = None) -> None:
    """Queue a failed or cancelled job again, or those of a sweep. Each goes on from its last checkpoint."""
    _each(idents, quiet, url, key, lambda client: (client.jobs.retry, client.sweeps.retry))


def _each(
    idents: list[str],
    quiet: bool,
    url: str | None,
    key: str | None,
    verbs: Callable[[Client], tuple[Verb, Verb]],
) -> None:
    """The verb of jobs or of sweeps on each, in order; the first that is refused ends the command."""
    for ident in idents:
        if not ident.startswith(("job_", "ins_", "swp_")):
            refuse(f"{ident!r} is no job and no sweep: give an id that begins with job_ or swp_.")
    with service(url, key) as client:
        of_jobs, of_sweeps = verbs(client)
        for ident in idents:
            found = (of_sweeps if ident.startswith("swp_") else of_jobs)(ident)
            paused = getattr(found, "paused", False) and found.state == "queued"
            tell(found.id if quiet else f"{found.id} {'paused' if paused else found.state}")
