"""The commands `fewbytes keys …`, for the operator: they work on the database itself."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from app import db, resources
from app.access import audit, keys, tenants
from app.cli.installation import DataDir, as_operator, database
from app.cli.terminal import refuse, say
from app.errors import not_found
from app.tables import ApiKey, Tenant

app = typer.Typer()
keys_app = typer.Typer(no_args_is_help=True, help="Access keys: make, list, revoke.")
app.add_typer(keys_app, name="keys")

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for, to tell keys apart.")],
    tenant: Annotated[str, typer.Option(help="Whose key; a tenant of this name is made if there is none.")],
    scope: Annotated[keys.Scope, typer.Option(help="read, write, or admin.")] = "write",
    expires: Annotated[int | None, typer.Option(min=1, help="Days until it expires. Default: never.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key. The key alone goes to standard output: KEY=$(fewbytes keys create …)."""
    for text in (tenant, name):
        if not _NAME.fullmatch(text):
            refuse(f"{text!r} is no name: 1 to 80 printable characters, please.")
    with database(data_dir, make=True) as config:
        with db.transaction() as session:
            found = tenants.named(session, tenant)
            owner = found or tenants.make(session, tenant)
        with as_operator(owner, config).transaction() as session:
            if found is None:
                audit.record(session, "tenant.create", owner.id, name=tenant)
            key, secret = keys.make(session, tenant_id=owner.id, name=name, scope=scope, days=expires)
    if found is None:
        say(f"Made the tenant {tenant!r} ({owner.id}).")
    say(f"Made the key {key.id} with the scope {scope} for {tenant!r}. It is shown this once:")
    print(secret)


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    data_dir: DataDir = None,
) -> None:
    """All keys, the newest first: id, tenant, scope, first characters, state, last use, name."""
    with database(data_dir), db.reading() as session:
        names = {row.id: row.name for row in tenants.everybody(session)}
        now = resources.now(session)
        for key in keys.everyone(session):
            if tenant in (None, names[key.tenant_id]):
                state = "revoked" if key.revoked_at else _until(key.expires_at, now)
                used = f"used {_time(key.last_used_at)}" if key.last_used_at else "never used"
                print(
                    key.id, names[key.tenant_id], key.scope, f"{key.prefix}…", state, used, key.name, sep="\t"
                )


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. Running API processes notice within five seconds."""
    with database(data_dir) as config:
        with db.reading() as session:
            owner = _owner_of(session, key_id)
        with as_operator(owner, config).transaction() as session:
            keys.revoke(session, key_id)
    say(f"{key_id} opens nothing any more.")


def _owner_of(session: Session, key_id: str) -> Tenant:
    """The key's tenant. Problem 404."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise not_found("key", key_id)
    return tenants.find(session, key.tenant_id)


def _until(expires_at: float | None, now: float) -> str:
    if expires_at is None:
        return "in force"
    return f"expired {_time(expires_at)}" if expires_at <= now else f"until {_time(expires_at)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
