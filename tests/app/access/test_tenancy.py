"""A tenant's session sees and changes that tenant's rows alone, whatever the shape of the statement."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import case, delete, exists, func, insert, literal, select, text, union_all, update
from sqlalchemy.orm import Session, aliased

from app import db, jobs
from app.access import tenancy, tenants
from app.db import db_now
from app.jobs import NewArtifact
from app.resources import newest
from app.tables import Artifact, Attempt, Event, File, Job, Metric, Tenant, Worker

STUDENT = NewArtifact(step=1, kind="final", name="a.pt", sha256="ab" * 32, size_bytes=1, metrics={})
METRIC = {"step": 0, "name": "accuracy", "value": 0.5}

Other = aliased(Job)


@pytest.fixture
def two(database: str) -> tuple[str, str]:
    """Two tenants' ids, each with two jobs: one finished with all that a job can leave, one that waits."""
    with db.transaction() as session:
        ids = [tenants.make(session, name).id for name in ("mine", "theirs")]
    for tenant_id in ids:
        with tenancy.transaction(tenant_id) as session:
            done, _ = jobs.submit(session, kind="compress", spec={}, idempotency_key="the same")
            jobs.submit(session, kind="compress", spec={})
            session.add(
                File(
                    id=f"file_{tenant_id}", name="a.pt", sha256="0", size_bytes=1, created_at=0, updated_at=0
                )
            )
        with db.transaction() as session:
            claim = jobs.claim(session, done.id, worker="w")
            assert claim is not None
            jobs.record(session, claim, metrics=[METRIC], events=[("log", {"message": tenant_id})])
            jobs.finish(session, claim, {}, [STUDENT])
            session.add(Worker(id=tenant_id, queues=[], device="", started_at=0, seen_at=0, job_id=done.id))
    return ids[0], ids[1]


def owners(session: Session) -> dict[str, str]:
    """Whose every id is, by everybody's own eyes."""
    return dict(map(tuple, session.execute(select(Job.id, Job.tenant_id)).all()))


SHAPES: dict[str, Callable[[], Any]] = {
    "column": lambda: select(Job.id),
    "entity": lambda: select(Job),
    "alias": lambda: select(Other.id),
    "self join": lambda: select(Job.id, Other.id).join(Other, Other.id != Job.id),
    "join from another table": lambda: select(Job.id, Worker.id).join_from(
        Worker, Job, Worker.job_id == Job.id
    ),
    "outer join": lambda: select(Job.id).select_from(Worker).outerjoin(Job, Worker.job_id == Job.id),
    "comma join": lambda: select(Job.id).where(Worker.job_id == Job.id),
    "subquery": lambda: select(select(Job.id).subquery().c.id),
    "entity of a subquery": lambda: select(aliased(Job, select(Job).subquery()).id),
    "CTE": lambda: select(select(Job.id).cte().c.id),
    "scalar subquery": lambda: select(select(func.max(Job.id)).scalar_subquery()),
    "correlated": lambda: select(Job.id, select(Other.id).where(Other.id == Job.id).scalar_subquery()),
    "in": lambda: select(Worker.job_id).where(Worker.job_id.in_(select(Job.id))),
    "exists": lambda: select(Worker.job_id).where(exists().where(Job.id == Worker.job_id)),
    "select exists": lambda: select(Worker.job_id).where(
        select(Job.id).where(Job.id == Worker.job_id).exists()
    ),
    "union": lambda: union_all(select(Job.id), select(Other.id)),
    "union as a subquery": lambda: select(union_all(select(Job.id), select(Other.id)).subquery().c.id),
    "case": lambda: select(case((Worker.job_id.in_(select(Job.id)), Worker.job_id))),
    "order, limit": lambda: select(Job.id).order_by(Job.created_at.desc(), Job.id).limit(10),
    "for update": lambda: select(Job.id).with_for_update(),
    "events": lambda: select(Event.job_id),
    "metrics": lambda: select(Metric.job_id),
    "attempts": lambda: select(Attempt.job_id),
    "artifacts": lambda: select(Artifact.job_id),
    "events beside their job": lambda: select(Event.job_id, Job.id).join(Job, Job.id == Event.job_id),
    "attempts of all jobs": lambda: select(Job.id, Attempt.job_id).outerjoin(
        Attempt, Attempt.job_id == Job.id
    ),
}


def test_a_query_of_any_shape_finds_all_of_ones_own_and_nothing_else(two: tuple[str, str]) -> None:
    """The same statement without a tenant finds both's, so the table of shapes itself is not blind."""
    mine, theirs = two
    with db.transaction() as session:  # not reading: one of the shapes locks
        known = owners(session)
        everything = {shape: found(session, shape, known) for shape in SHAPES}
    with tenancy.transaction(mine) as session:
        for shape, of_both in everything.items():
            seen = found(session, shape, known)
            assert {known[ident] for ident in seen} == {mine}, shape
            if shape != "scalar subquery":  # which finds one value
                assert {known[ident] for ident in of_both} == {mine, theirs}, shape
                assert seen == {ident for ident in of_both if known[ident] == mine}, shape


def found(session: Session, shape: str, known: dict[str, str]) -> set[str]:
    """The ids of jobs in what the statement answers."""
    values = [value for row in session.execute(SHAPES[shape]()) for value in row]
    return {value.id if isinstance(value, Job) else value for value in values} & known.keys()


def test_counts_and_groups_count_ones_own(two: tuple[str, str]) -> None:
    with tenancy.reading(two[0]) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 2
        assert session.scalar(select(func.count(Job.id))) == 2
        assert session.scalar(select(literal(1)).where(select(Job.id).exists())) == 1
        assert dict(
            map(tuple, session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        ) == {
            "queued": 1,
            "succeeded": 1,
        }
        assert session.query(Job).count() == 2
        assert len(newest(session, Job, after=None, limit=10)) == 2


def test_by_primary_key_another_tenants_row_is_not_there(two: tuple[str, str]) -> None:
    with db.reading() as session:
        known = owners(session)
        artifacts = dict(map(tuple, session.execute(select(Artifact.id, Artifact.tenant_id)).all()))
    with tenancy.reading(two[0]) as session:
        for ident, owner in known.items():
            assert (session.get(Job, ident) is not None) == (owner == two[0])
            assert (session.get(Event, (ident, 1)) is not None) == (owner == two[0])
        for ident, owner in artifacts.items():
            assert (session.get(Artifact, ident) is not None) == (owner == two[0])


CHANGES: list[Callable[[], Any]] = [
    lambda: update(Job).values(name="changed"),
    lambda: update(Job).values(name="twice").where(Job.id.in_(select(Other.id))),
    lambda: update(Job).values(name="thrice").returning(Job.id),
    lambda: delete(Event),
    lambda: delete(Metric).where(Metric.name == "accuracy"),
    lambda: delete(File).where(File.name == "a.pt"),
    lambda: delete(Artifact).returning(Artifact.id),
]


def test_updates_and_deletes_leave_others_rows_alone(two: tuple[str, str]) -> None:
    theirs = rows_of(two[1])
    for number, change in enumerate(CHANGES):
        mine = rows_of(two[0])
        with tenancy.transaction(two[0]) as session:
            session.execute(change(), execution_options={"synchronize_session": False})
        assert rows_of(two[1]) == theirs, number
        assert rows_of(two[0]) != mine, number


def rows_of(tenant_id: str) -> list[Any]:
    with db.reading() as session:
        ids = select(Job.id).where(Job.tenant_id == tenant_id)
        rows: list[Any] = []
        for table in (Job, File, Artifact):
            rows += session.execute(
                select(*table.__table__.columns).where(table.tenant_id == tenant_id)
            ).all()
        for table in (Event, Metric, Attempt):
            rows += session.execute(select(*table.__table__.columns).where(table.job_id.in_(ids))).all()
    return sorted(rows, key=str)


SLIPPERY: list[Callable[[], Any]] = [
    lambda: select(exists().where(Job.id != "")),
    lambda: select(literal(1)).where(exists().where(Job.id != "")),
    lambda: select(func.row_number().over(order_by=Job.id)),
    lambda: select(Job.__table__.c.id),
    lambda: select(func.count()).select_from(Event.__table__),
    lambda: select(Job).from_statement(text("SELECT * FROM jobs")),
    lambda: text("SELECT id FROM jobs"),
    lambda: update(Job.__table__).values(name="changed"),
    lambda: delete(Event.__table__),
]


def test_what_would_slip_past_the_filter_is_refused(two: tuple[str, str]) -> None:
    """Statements whose columns are no ORM entities: SQLAlchemy would run them as they are."""
    with tenancy.transaction(two[0]) as session:
        for statement in SLIPPERY:
            with pytest.raises(AssertionError, match="not kept to the tenant"):
                session.execute(statement())


def test_ways_around_a_statement_are_refused_too(two: tuple[str, str]) -> None:
    with db.reading() as session:
        theirs = session.scalars(select(Job).where(Job.tenant_id == two[1]).limit(1)).one()
        ident = theirs.id
    with tenancy.transaction(two[0]) as session:
        with pytest.raises(AssertionError):
            session.connection()
        with pytest.raises(AssertionError):
            session.bulk_update_mappings(Job.__mapper__, [{"id": ident, "name": "changed"}])
        with pytest.raises(AssertionError):
            session.execute(update(Job), [{"id": ident, "name": "changed"}])

    def writes_a_row_that_came_from_elsewhere() -> None:
        with tenancy.transaction(two[0]) as session:
            session.add(theirs)
            theirs.name = "changed"

    with pytest.raises(AssertionError, match="another tenant"):
        writes_a_row_that_came_from_elsewhere()
    with db.reading() as session:
        assert session.scalars(select(Job.name).where(Job.id == ident)).one() is None


def test_new_rows_belong_to_the_sessions_tenant_and_to_nobody_only_by_mistake(two: tuple[str, str]) -> None:
    row = {"name": "b.pt", "sha256": "0", "size_bytes": 1, "created_at": 0, "updated_at": 0}
    with tenancy.transaction(two[0]) as session:
        session.add(File(id="file_1", **row))
        session.execute(insert(File).values(id="file_2", **row | {"name": "c.pt"}))
        session.execute(insert(File), [{"id": "file_3", **row, "name": "d.pt"}])
    with db.reading() as session:
        names = select(File.name).where(File.tenant_id == two[0]).order_by(File.name)
        assert session.scalars(names).all() == ["a.pt", "b.pt", "c.pt", "d.pt"]

    def without_an_owner() -> None:
        with db.transaction() as session:
            session.execute(insert(File).values(id="file_4", **row))

    with pytest.raises(Exception, match="A row needs an owner"):
        without_an_owner()


def test_what_is_deliberately_for_everybody_counts_everybody(two: tuple[str, str]) -> None:
    with tenancy.reading(two[0]) as session:
        waiting = select(func.count()).select_from(Job).where(Job.state == "queued")
        assert session.scalar(waiting, execution_options=tenancy.EVERY_TENANT) == 2
        assert session.scalar(select(db_now())) is not None  # no rows: no matter whose
        assert session.scalar(select(func.count()).select_from(Tenant)) == 3


def test_one_idempotency_key_is_anothers_too(two: tuple[str, str]) -> None:
    """The fixture's two jobs share it; each tenant's replay finds its own."""
    found = []
    for tenant_id in two:
        with tenancy.transaction(tenant_id) as session:
            job, replayed = jobs.submit(session, kind="compress", spec={}, idempotency_key="the same")
            assert replayed
            found.append((job.id, job.tenant_id))
    assert found[0][0] != found[1][0]
    assert [owner for _, owner in found] == list(two)


ALLOWED = {"access.py": set(), "keyring.py": {"reading", "transaction"}, "service.py": {"reading"}}


def test_the_api_opens_its_sessions_for_a_caller() -> None:
    """`app.db`'s own sessions see everybody's rows: only the look-up of keys and /readyz have them."""
    for path in Path("app/api").glob("*.py"):
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module in ("app.db", "app")
            for alias in node.names
        }
        assert imported & {"reading", "transaction", "db", "engine"} <= ALLOWED.get(path.name, set()), (
            path.name
        )
