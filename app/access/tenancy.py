"""Sessions that see one tenant's rows and no others: the isolation is in the session, not in each query.

    with tenancy.reading(tenant_id) as session: ...       # as app.db.reading
    with tenancy.transaction(tenant_id) as session: ...   # as app.db.transaction

Every ORM SELECT, UPDATE and DELETE of an `Owned` table gets `tenant_id = :tenant`, whatever its shape (joins,
subqueries, CTEs, aliases, `session.get`), and what is `OfJob` the same through its job; new rows get the tenant.
SQLAlchemy adds the criteria to ORM statements only. So statements that it would leave alone are refused when they
touch such a table: forgetting the filter is an exception, not a leak.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, FromClause, TextClause, event, select
from sqlalchemy.orm import FromStatement, ORMExecuteState, Session, UOWTransaction, with_loader_criteria
from sqlalchemy.sql import visitors

from app import db
from app.access.tenants import Limits
from app.tables import Base, Job, OfJob, Owned

EVERY_TENANT: dict[str, Any] = {"fewbytes_every_tenant": True}
"""Execution options of a statement that may see all rows. For counts and housekeeping: never for what is shown."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request. `defaults` are the limits of tenants that have none of their own."""

    tenant_id: str
    scope: str
    key_id: str | None
    request_id: str
    defaults: Limits

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A read-only snapshot of the caller's own rows."""
        with reading(self.tenant_id) as session:
            session.info["caller"] = self
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A read-write transaction on the caller's own rows; what it changes is audited under the caller."""
        with transaction(self.tenant_id) as session:
            session.info["caller"] = self
            yield session


@contextmanager
def transaction(tenant_id: str) -> Iterator[Session]:
    """`app.db.transaction` for one tenant."""
    with _opened(db.engine(), tenant_id) as session:
        yield session


@contextmanager
def reading(tenant_id: str) -> Iterator[Session]:
    """`app.db.reading` for one tenant."""
    with _opened(db.read_only_engine(), tenant_id) as session:
        yield session


def tenant_of(session: Session) -> str:
    """The tenant that the session was opened for."""
    assert "tenant_id" in session.info, "A row needs an owner: open the session with app.access.tenancy."
    tenant_id: str = session.info["tenant_id"]
    return tenant_id


class TenantSession(Session):
    """A session for the rows of the tenant in `info["tenant_id"]`."""

    def connection(self, *_: Any, **__: Any) -> Connection:
        raise AssertionError("A statement on the bare connection is not kept to the tenant: use execute().")


for _name in ("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"):
    setattr(TenantSession, _name, TenantSession.connection)  # these go by primary key alone


@contextmanager
def _opened(engine: Engine, tenant_id: str) -> Iterator[TenantSession]:
    assert tenant_id, "which tenant?"
    bind = engine.execution_options(fewbytes_tenant=tenant_id)
    with (
        TenantSession(bind, expire_on_commit=False, info={"tenant_id": tenant_id}) as session,
        session.begin(),
    ):
        yield session


@event.listens_for(TenantSession, "do_orm_execute")
def _keep_to_the_tenant(state: ORMExecuteState) -> None:
    if state.execution_options.get("fewbytes_every_tenant"):
        return
    _refuse_what_would_slip_through(state)
    if not (state.is_select or state.is_update or state.is_delete) or not state.is_orm_statement:
        return
    tenant_id: str = state.session.info["tenant_id"]
    owner = _JOBS
    state.statement = state.statement.options(
        with_loader_criteria(Owned, lambda row: row.tenant_id == tenant_id, include_aliases=True),
        with_loader_criteria(
            OfJob,
            lambda row: row.job_id.in_(select(owner.c.id).where(owner.c.tenant_id == tenant_id)),
            include_aliases=True,
        ),
    )


# An alias of its own, or SQLAlchemy would correlate it with the job of a query that joins one.
_JOBS = Job.__table__.alias("owner")
_PRIVATE: frozenset[FromClause] = frozenset(
    mapper.local_table for mapper in Base.registry.mappers if issubclass(mapper.class_, Owned | OfJob)
)


def _refuse_what_would_slip_through(state: ORMExecuteState) -> None:
    statement: Any = state.statement
    if isinstance(statement, FromStatement | TextClause):
        raise AssertionError("SQL as text is not kept to the tenant: write it with the ORM.")
    if state.is_update and state.is_executemany:
        raise AssertionError("An UPDATE by a list of primary keys is not kept to the tenant: use WHERE.")
    if not state.is_orm_statement and any(map(_is_private, visitors.iterate(statement))):
        # Such as select(exists().where(Job.id == …)): its columns are no ORM entity, so no criteria are added.
        raise AssertionError("A statement without an ORM entity in front is not kept to the tenant.")


def _is_private(element: Any) -> bool:
    return (
        element in _PRIVATE
        if isinstance(element, FromClause)
        else getattr(element, "table", None) in _PRIVATE
    )


@event.listens_for(TenantSession, "before_flush")
def _refuse_rows_of_others(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    """Objects that came from another session are written by primary key: look whose they are."""
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, Owned) and row.tenant_id not in (None, session.info["tenant_id"]):
            raise AssertionError(f"{type(row).__name__} belongs to another tenant than its session.")
