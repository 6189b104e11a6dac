"""What the operator's commands work on: data folder and database, without the service."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.access.tenancy import Caller
from app.access.tenants import Limits
from app.cli.terminal import refuse
from app.database import migrate, outage
from app.errors import Problem
from app.settings import Settings, settings
from app.tables import Tenant

DataDir = Annotated[
    Path | None, typer.Option(help="The service's data folder. Default: FEWBYTES_DATA_DIR, else ./data.")
]


@contextmanager
def database(data_dir: Path | None, *, make: bool = False) -> Iterator[Settings]:
    """The settings, whose database is the newest version's. `make`: one without tables gets them first."""
    if data_dir is not None:
        os.environ["FEWBYTES_DATA_DIR"] = str(data_dir)
        settings.cache_clear()
    config = settings()
    try:
        state = migrate.state(config.resolved_database_url)
        if state == "empty" and make:
            migrate.upgrade(config.resolved_database_url)
        elif state != "newest":
            refuse(
                f"The database is {state}. Start the service once, or run `fewbytes migrate`; then try again."
            )
        yield config
    except Problem as problem:
        refuse(problem.detail)
    except (SQLAlchemyError, OSError) as error:
        found = outage.explain(error)
        if found is None:
            raise
        refuse(found.sentence)
    finally:
        db.close()


def as_operator(tenant: Tenant, config: Settings) -> Caller:
    """Whoever may read the database may do everything; the audit log says that it was done here."""
    return Caller(
        tenant_id=tenant.id,
        scope="admin",
        key_id=None,
        request_id="command line",
        defaults=Limits.of_settings(config),
    )
