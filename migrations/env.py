"""Alembic's entry. `app.database.migrate` brings a connection; the command line gets the settings' database."""

from alembic import context
from sqlalchemy import Connection

from app import db
from app.settings import settings
from app.tables import Base


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite changes a column by copying its table
        transactional_ddl=True,  # also on SQLite, where our transactions hold DDL: whole or not at all
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with db.connect(settings().resolved_database_url).begin() as connection:
        migrate(connection)
