"""The commands `fewbytes keys …` and `fewbytes tenants …`, for the operator: they work on the database itself."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import audit, db, keys, migrate, outage, quotas, resources, tenants
from app.errors import Problem, not_found
from app.settings import Settings, settings
from app.tables import ApiKey, Tenant
from app.tenancy import Caller
from app.tenants import Limits

keys_app = typer.Typer(no_args_is_help=True, help="Access keys: make, list, revoke.")
tenants_app = typer.Typer(no_args_is_help=True, help="Tenants and what each may have.")

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,80}")

DataDir = Annotated[
    Path | None, typer.Option(help="The service's data folder. Default: FEWBYTES_DATA_DIR, else ./data.")
]
Name = Annotated[str, typer.Argument(help="The tenant's name.")]
Weight = Annotated[
    float | None, typer.Option(help="Its share of busy workers, beside the others' (1 if never set).")
]
Limit = Annotated[int | None, typer.Option(min=-1, help="0: none; -1: the settings' own again.")]


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
            _refuse(f"{text!r} is no name: 1 to 80 printable characters, please.")
    with _database(data_dir, make=True) as config:
        with db.transaction() as session:
            found = tenants.named(session, tenant)
            owner = found or tenants.make(session, tenant)
        with _as_operator(owner, config).transaction() as session:
            if found is None:
                audit.record(session, "tenant.create", owner.id, name=tenant)
            key, secret = keys.make(session, tenant_id=owner.id, name=name, scope=scope, days=expires)
    if found is None:
        _say(f"Made the tenant {tenant!r} ({owner.id}).")
    _say(f"Made the key {key.id} with the scope {scope} for {tenant!r}. It is shown this once:")
    print(secret)


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    data_dir: DataDir = None,
) -> None:
    """All keys, the newest first: id, tenant, scope, first characters, state, last use, name."""
    with _database(data_dir), db.reading() as session:
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
    with _database(data_dir) as config:
        with db.reading() as session:
            owner = _owner_of(session, key_id)
        with _as_operator(owner, config).transaction() as session:
            keys.revoke(session, key_id)
    _say(f"{key_id} opens nothing any more.")


@tenants_app.command("list")
def list_tenants(data_dir: DataDir = None) -> None:
    """All tenants: id, name, and what each uses of what it may have."""
    with _database(data_dir), db.reading() as session:
        for tenant in tenants.everybody(session):
            limits = tenants.limits(session, tenant.id)
            used = vars(quotas.usage(session, tenant.id))
            shown = [f"{name} {used[name]}/{getattr(limits, f'max_{name}') or 'any'}" for name in used]
            print(tenant.id, tenant.name, *shown, f"weight {tenant.weight:g}", sep="\t")


@tenants_app.command("set")
def set_limits(
    name: Name,
    max_bytes: Limit = None,
    max_files: Limit = None,
    max_queued_jobs: Limit = None,
    max_running_jobs: Limit = None,
    weight: Weight = None,
    data_dir: DataDir = None,
) -> None:
    """Change limits of a tenant, or its share; what is not named stays."""
    if weight is not None and not 0.01 <= weight <= 1000:  # typer's own bounds let NaN pass
        _refuse(f"--weight {weight} is no share: give a number from 0.01 to 1000 (1 is everybody's).")
    given = {
        "max_bytes": max_bytes,
        "max_files": max_files,
        "max_queued_jobs": max_queued_jobs,
        "max_running_jobs": max_running_jobs,
    }
    changes: dict[str, float | None] = {
        key: None if value < 0 else value for key, value in given.items() if value is not None
    }
    if weight is not None:
        changes["weight"] = weight
    with _database(data_dir) as config:
        with db.reading() as session:
            tenant = tenants.named(session, name)
        if tenant is None:
            _refuse(f"There is no tenant {name!r}. `fewbytes tenants list` shows all.")
        with _as_operator(tenant, config).transaction() as session:
            tenants.change(session, tenant.id, changes)
            audit.record(session, "tenant.limits", tenant.id, **changes)
    _say(f"{name}: {', '.join(f'{key} {value}' for key, value in changes.items()) or 'nothing changed'}.")


@contextmanager
def _database(data_dir: Path | None, *, make: bool = False) -> Iterator[Settings]:
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
            _refuse(
                f"The database is {state}. Start the service once, or run `fewbytes migrate`; then try again."
            )
        yield config
    except Problem as problem:
        _refuse(problem.detail)
    except (SQLAlchemyError, OSError) as error:
        found = outage.explain(error)
        if found is None:
            raise
        _refuse(found.sentence)
    finally:
        db.close()


def _as_operator(tenant: Tenant, config: Settings) -> Caller:
    """Whoever may read the database may do everything; the audit log says that it was done here."""
    return Caller(
        tenant_id=tenant.id,
        scope="admin",
        key_id=None,
        request_id="command line",
        defaults=Limits.of_settings(config),
    )


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


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _refuse(message: str) -> NoReturn:
    _say(f"fewbytes: {message}")
    raise typer.Exit(2)
