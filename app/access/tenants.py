"""Tenants, and what each may have."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import db_now, new_id
from app.settings import Settings, settings
from app.tables import Tenant

DEFAULT = "ten_default"
"""The tenant of everybody while there are no keys. The migration makes it, under the name "default"."""


@dataclass(frozen=True)
class Limits:
    """0 means none. `max_running_jobs` counts jobs that compress, `max_queued_jobs` inspections too."""

    max_bytes: int
    max_files: int
    max_queued_jobs: int
    max_running_jobs: int

    @classmethod
    def of_settings(cls, config: Settings) -> "Limits":
        """Those of a tenant that has none of its own."""
        return cls(
            max_bytes=config.tenant_max_bytes,
            max_files=config.tenant_max_files,
            max_queued_jobs=config.tenant_max_queued_jobs,
            max_running_jobs=config.tenant_max_running_jobs,
        )


def limits(session: Session, tenant_id: str) -> Limits:
    """The tenant's own limits; where it has none, those of the caller's service, else of this process."""
    caller = session.info.get("caller")
    defaults = caller.defaults if caller else Limits.of_settings(settings())
    tenant = find(session, tenant_id)
    own = {name: getattr(tenant, name) for name in asdict(defaults)}
    return Limits(
        **{name: default if own[name] is None else own[name] for name, default in asdict(defaults).items()}
    )


def lock(session: Session, tenant_id: str) -> None:
    """Wait for whoever decides about this tenant's limits, and make others wait until this transaction ends.

    Take it before a job's row, as everybody does: two that lock in different orders wait for ever.
    """
    # NO KEY UPDATE: rows that are inserted meanwhile refer to the tenant and must not wait.
    session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))


def find(session: Session, tenant_id: str) -> Tenant:
    """The tenant, as the database has it now."""
    return session.scalars(
        select(Tenant).where(Tenant.id == tenant_id), execution_options={"populate_existing": True}
    ).one()


def named(session: Session, name: str) -> Tenant | None:
    return session.scalar(select(Tenant).where(Tenant.name == name))


def make(session: Session, name: str) -> Tenant:
    """A new tenant with the settings' limits."""
    tenant = Tenant(id=new_id("ten"), name=name, created_at=session.scalar(select(db_now())))
    session.add(tenant)
    session.flush()
    return tenant


def everybody(session: Session) -> Sequence[Tenant]:
    """By name."""
    return session.scalars(select(Tenant).order_by(Tenant.name)).all()


def change(session: Session, tenant_id: str, limits: Mapping[str, float | None]) -> None:
    """Set limits by their names (null: the settings' own again), or `weight`, its share of the workers."""
    tenant = find(session, tenant_id)
    for name, value in limits.items():
        setattr(tenant, name, value)
