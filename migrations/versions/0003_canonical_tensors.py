"""Teachers know the file of tensors that the gate wrote of their upload."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("teachers") as table:
        table.add_column(sa.Column("tensors_sha256", sa.String(64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("teachers") as table:
        table.drop_column("tensors_sha256")
