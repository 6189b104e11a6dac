"""Sweeps; jobs that begin with the finished steps of another one, and wait for it.

Only added. A process of the version before knows nothing of waiting: it may take a job that waits for its first steps, and
then does them itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
FREE = sa.text("waits_for IS NULL")
OF_A_SWEEP = sa.text("sweep_id IS NOT NULL")


def _of_jobs() -> list[sa.Column]:  # type: ignore[type-arg]  # columns of many types
    return [
        sa.Column("sweep_id", sa.String(length=40), nullable=True),
        sa.Column("point", sa.Integer(), nullable=True),
        sa.Column("after_job_id", sa.String(length=40), nullable=True),
        sa.Column("begun_steps", sa.Integer(), nullable=True),
        sa.Column("waits_for", sa.String(length=16), nullable=True),
        sa.Column("snapshot_epochs", JSON, nullable=True),
    ]


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("preset", sa.String(length=80), nullable=True),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("shared", JSON, nullable=False),
        sa.Column("estimated_macs", sa.Float(precision=53), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("finished_at", sa.Float(precision=53), nullable=True),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_sweeps_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_sweeps_tenant_id_idempotency_key")),
    )
    op.create_index(op.f("ix_sweeps_tenant_id_created_at_id"), "sweeps", ["tenant_id", "created_at", "id"])
    op.create_index(op.f("ix_sweeps_finished_at"), "sweeps", ["finished_at"])
    # Not in batch mode: ADD COLUMN is what both databases do without copying the table.
    for column in _of_jobs():
        op.add_column("jobs", column)
    turn = ["tenant_id", "state", "queue", "paused", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_free_turn", "jobs", turn, postgresql_where=FREE, sqlite_where=FREE)
    counted = ["sweep_id", "state", "waits_for", "point"]
    op.create_index("ix_jobs_sweep", "jobs", counted, postgresql_where=OF_A_SWEEP, sqlite_where=OF_A_SWEEP)


def downgrade() -> None:
    op.drop_index("ix_jobs_sweep", "jobs")
    op.drop_index("ix_jobs_free_turn", "jobs")
    # Not in batch mode either: copied, the table's other indexes would lose their order.
    for column in _of_jobs():
        op.drop_column("jobs", column.name)
    op.drop_table("sweeps")
