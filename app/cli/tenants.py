"""The commands `fewbytes tenants …`, for the operator: they work on the database itself."""

from typing import Annotated

import typer

from app import db
from app.access import audit, quotas, tenants
from app.cli.installation import DataDir, as_operator, database
from app.cli.terminal import refuse, say

app = typer.Typer()
tenants_app = typer.Typer(no_args_is_help=True, help="Tenants and what each may have.")
app.add_typer(tenants_app, name="tenants")

Name = Annotated[str, typer.Argument(help="The tenant's name.")]
Weight = Annotated[
    float | None, typer.Option(help="Its share of busy workers, beside the others' (1 if never set).")
]
Limit = Annotated[int | None, typer.Option(min=-1, help="0: none; -1: the settings' own again.")]


@tenants_app.command("list")
def list_tenants(data_dir: DataDir = None) -> None:
    """All tenants: id, name, and what each uses of what it may have."""
    with database(data_dir), db.reading() as session:
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
        refuse(f"--weight {weight} is no share: give a number from 0.01 to 1000 (1 is everybody's).")
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
    with database(data_dir) as config:
        with db.reading() as session:
            tenant = tenants.named(session, name)
        if tenant is None:
            refuse(f"There is no tenant {name!r}. `fewbytes tenants list` shows all.")
        with as_operator(tenant, config).transaction() as session:
            tenants.change(session, tenant.id, changes)
            audit.record(session, "tenant.limits", tenant.id, **changes)
    say(f"{name}: {', '.join(f'{key} {value}' for key, value in changes.items()) or 'nothing changed'}.")
