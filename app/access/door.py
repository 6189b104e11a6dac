"""Who may knock: without access keys the service listens where only this machine reaches it."""

import ipaddress

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.access import keys
from app.database import outage
from app.settings import Settings


class CannotStartError(Exception):
    """Why the service cannot start, in words for whoever typed the command."""


def refuse_open_door(host: str, config: Settings) -> None:
    """Raises CannotStartError for an address that other machines reach, while there is no access key in force.

    Without a database nobody knows. Then the door may open: until there is one it answers 503, and afterwards it
    lets nobody from elsewhere in without a key (`app.api.access`).
    """
    if _is_loopback(host) or config.allow_open or _has_key():
        return
    raise CannotStartError(
        f"Not listening on {host}: there is no access key yet, so everybody who reaches it could read and delete "
        "everything. Make a key first, in the same data folder or database: "
        "fewbytes keys create --tenant default --scope admin --name first. Or listen on 127.0.0.1, behind a proxy "
        "that checks who comes; where such a proxy is all that reaches this address, FEWBYTES_ALLOW_OPEN=1 says so."
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_key() -> bool:
    """True also where the database, which is not there yet, may hold one."""
    try:
        # The database of an older version, or a new one, has no such table: there was never a key.
        if not inspect(db.engine()).has_table("api_keys"):
            return False
        with db.reading() as session:
            return keys.any_active(session)
    except SQLAlchemyError as error:
        found = outage.explain(error)
        if found is None:
            raise
        if not found.heals:
            raise CannotStartError(found.sentence) from None
        return True
