"""Priorities, pauses, shares; what a job needs of its worker; receipts; who has which duty.

Only added: processes of the version before work on while this runs and after it, so a service is brought forward
by `fewbytes migrate` first and new processes next.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def _added() -> dict[str, list[sa.Column]]:  # type: ignore[type-arg]  # columns of many types
    return {
        "tenants": [sa.Column("weight", sa.Float(precision=53), server_default="1", nullable=False)],
        "jobs": [
            sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
            sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
            sa.Column("estimated_macs", sa.Float(precision=53), nullable=True),
            sa.Column("result_key", sa.String(length=64), nullable=True),
            sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
            sa.Column("passed", sa.Boolean(), nullable=True),
        ],
        "attempts": [sa.Column("detail", sa.Text(), nullable=True)],
        "artifacts": [sa.Column("receipt", JSON, nullable=True)],
        "workers": [
            sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
            sa.Column("trouble", sa.Text(), nullable=True),
        ],
    }


def upgrade() -> None:
    # Not in batch mode: ADD COLUMN is what both databases do without copying the table.
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(op.f("ix_jobs_result_key"), "jobs", ["result_key"])
    turn = ["tenant_id", "state", "queue", "paused", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_turn", "jobs", turn)
    op.create_index(op.f("ix_attempts_ended_at"), "attempts", ["ended_at"])
    # The longer one does what the shorter one did.
    op.create_index(op.f("ix_jobs_state_queue_finished_at"), "jobs", ["state", "queue", "finished_at"])
    op.drop_index(op.f("ix_jobs_state_queue"), "jobs")
    op.create_table(
        "duties",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )


def downgrade() -> None:
    op.drop_table("duties")
    op.create_index(op.f("ix_jobs_state_queue"), "jobs", ["state", "queue"])
    op.drop_index(op.f("ix_jobs_state_queue_finished_at"), "jobs")
    op.drop_index(op.f("ix_attempts_ended_at"), "attempts")
    op.drop_index("ix_jobs_turn", "jobs")
    op.drop_index(op.f("ix_jobs_result_key"), "jobs")
    for table, columns in _added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
