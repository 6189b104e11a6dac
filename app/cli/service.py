"""The commands that run the service: `fewbytes up`, `api`, `worker`, `migrate`."""

import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from app.access.door import CannotStartError, refuse_open_door
from app.cli.terminal import refuse
from app.settings import settings
from app.starting.parent import end_with_stdin

app = typer.Typer()


@app.command()
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Everything lives below it. Default: ./data.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainers that run at the same time.")] = 1,
) -> None:
    """Run the whole service: broker, database, API, workers."""
    from app.starting import embedded  # here: every restart of the API would pay for importing it

    config = settings()
    try:
        embedded.up(
            data_dir=data_dir or config.data_dir,
            host=host or config.host,
            port=config.port if port is None else port,
            workers=workers,
        )
    except CannotStartError as error:
        refuse(str(error))


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    fd: Annotated[
        int | None, typer.Option(hidden=True, help="An open listening socket to take over.")
    ] = None,
) -> None:
    """Run the API alone."""
    import uvicorn

    from app import logs
    from app.api import server
    from app.starting import start

    end_with_stdin()
    config = settings()
    logs.configure(config.log_format, config.log_level)
    try:
        if fd is None:
            refuse_open_door(host or config.host, config)
        start.refuse_hopeless()
    except CannotStartError as error:
        refuse(str(error))
    server.allow_many_files()
    running = uvicorn.Server(
        server.config(
            "app.main:create_app",
            config,
            factory=True,
            host=host or config.host,
            port=config.port if port is None else port,
        )
    )
    running.run(sockets=None if fd is None else [socket.socket(fileno=fd)])


@app.command()
def worker(
    queues: Annotated[
        str | None,
        typer.Option(
            help="Which jobs it takes, separated by commas: compress, gpu (those that ask for one by name), inspect. "
            "Default: all that this machine can do."
        ),
    ] = None,
) -> None:
    """Run one worker: one job at a time on this machine's device."""
    # Another program, not an import: the API's side of the house never loads the worker's.
    chosen = [] if queues is None else ["--queues", queues]
    os.execv(sys.executable, [sys.executable, "-m", "worker.main", *chosen])


@app.command(name="migrate")
def migrate_database(
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to try for while others use the tables all the time.")
    ] = 300.0,
) -> None:
    """Bring the database to this version's tables. The service may run meanwhile."""
    from app.database import migrate, outage

    logging.basicConfig(format="fewbytes: %(message)s", level=logging.WARNING)
    try:
        migrate.upgrade(settings().resolved_database_url, patience_seconds=patience)
    except migrate.CannotMigrateError as error:
        refuse(str(error))
    except (SQLAlchemyError, OSError) as error:
        found = outage.explain(error)
        if found is None:
            raise
        refuse(found.sentence)
