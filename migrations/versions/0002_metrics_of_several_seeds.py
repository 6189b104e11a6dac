"""Metrics know which of a job's seeds they belong to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OLD = ("job_id", "step", "epoch", "split", "name")
_NEW = ("job_id", "seed", "step", "epoch", "split", "name")


def upgrade() -> None:
    with op.batch_alter_table("metrics") as table:
        table.add_column(sa.Column("seed", sa.Integer(), server_default="0", nullable=False))
        table.drop_constraint("uq_metrics_job_id_step_epoch_split_name", type_="unique")
        table.create_unique_constraint("uq_metrics_job_id_seed_step_epoch_split_name", list(_NEW))


def downgrade() -> None:
    op.execute("DELETE FROM metrics WHERE seed <> 0")
    with op.batch_alter_table("metrics") as table:
        table.drop_constraint("uq_metrics_job_id_seed_step_epoch_split_name", type_="unique")
        table.drop_column("seed")
        table.create_unique_constraint("uq_metrics_job_id_step_epoch_split_name", list(_OLD))
