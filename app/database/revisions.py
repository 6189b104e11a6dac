"""Which version of the tables a database has, asked without Alembic: the API and the workers need no more of it."""

from functools import cache
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, inspect, text

import app

# Beside the package `app`, in the source tree and where pip puts it. Not imported: migrations import app.
SCRIPTS = Path(app.__file__).parent.parent / "migrations"

State = Literal["empty", "older", "newest", "newer"]


@cache
def newest() -> str:
    """This version's revision. They are numbered: 0001, 0002, …"""
    return max(path.name[:4] for path in SCRIPTS.glob("versions/[0-9]*.py"))


def state(engine: Engine) -> State:
    """How the engine's database compares with this version."""
    with engine.connect() as connection:
        known = inspect(connection).has_table("alembic_version")
        revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if known else None
    if revision is None:
        return "empty"
    if revision == newest():
        return "newest"
    return "older" if revision < newest() else "newer"
