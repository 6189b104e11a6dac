"""Tenants, their keys and the audit log; every file, teacher, data set, job and artifact has an owner.

What was there before belongs to the tenant "default". The sizes of objects that teachers and data sets made
before stay unknown (null) and count as nothing: the database does not know them.
"""

from collections.abc import Sequence
from time import time

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
DEFAULT = "ten_default"
OWNED = ("files", "uploads", "teachers", "datasets", "jobs", "artifacts")
SIZES = {
    "teachers": ("artifact_size_bytes", "tensors_size_bytes"),
    "datasets": ("file_size_bytes", "index_size_bytes", "pack_size_bytes"),
}
# (table, old index, new index) for lists, which are now one tenant's.
LISTS = (
    ("teachers", ["created_at"], ["tenant_id", "created_at"]),
    ("datasets", ["created_at"], ["tenant_id", "created_at"]),
    ("jobs", ["kind", "created_at", "id"], ["tenant_id", "kind", "created_at", "id"]),
)


def upgrade() -> None:
    _tenants()
    _keys_and_audit()
    for name in OWNED:
        # The default is for the rows that are there; without it afterwards, a row whose owner was forgotten fails.
        with op.batch_alter_table(name) as table:
            table.add_column(
                sa.Column("tenant_id", sa.String(length=40), nullable=False, server_default=DEFAULT)
            )
            for column in SIZES.get(name, ()):
                table.add_column(sa.Column(column, sa.BigInteger(), nullable=True))
        with op.batch_alter_table(name) as table:
            table.alter_column(
                "tenant_id", server_default=None, existing_type=sa.String(40), existing_nullable=False
            )
            table.create_foreign_key(f"fk_{name}_tenant_id_tenants", "tenants", ["tenant_id"], ["id"])
    with op.batch_alter_table("uploads") as table:
        table.add_column(sa.Column("finished_at", sa.Float(precision=53), nullable=True))
    with op.batch_alter_table("files") as table:
        table.drop_constraint("uq_files_name", type_="unique")
        table.create_unique_constraint("uq_files_tenant_id_name", ["tenant_id", "name"])
    with op.batch_alter_table("jobs") as table:
        table.drop_constraint("uq_jobs_idempotency_key", type_="unique")
        table.create_unique_constraint("uq_jobs_tenant_id_idempotency_key", ["tenant_id", "idempotency_key"])
    for name, old, new in LISTS:
        op.drop_index(_index(name, old), name)
        op.create_index(_index(name, new), name, new)
    for name in ("uploads", "artifacts"):
        op.create_index(_index(name, ["tenant_id"]), name, ["tenant_id"])


def _tenants() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_files", sa.Integer(), nullable=True),
        sa.Column("max_queued_jobs", sa.Integer(), nullable=True),
        sa.Column("max_running_jobs", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.bulk_insert(tenants, [{"id": DEFAULT, "name": "default", "created_at": time()}])


def _keys_and_audit() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("last_used_at", sa.Float(precision=53), nullable=True),
        sa.Column("revoked_at", sa.Float(precision=53), nullable=True),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index(_index("api_keys", ["prefix"]), "api_keys", ["prefix"])
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_audit_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    for name in ("api_keys", "audit"):
        op.create_index(_index(name, ["tenant_id", "created_at"]), name, ["tenant_id", "created_at"])


def _index(table: str, columns: list[str]) -> str:
    return op.f(f"ix_{table}_{'_'.join(columns)}")


def downgrade() -> None:
    """Only where there is one tenant: two may have files of one name. Fails otherwise, and changes nothing."""
    for name, old, new in LISTS:
        op.drop_index(_index(name, new), name)
        op.create_index(_index(name, old), name, old)
    for name in ("uploads", "artifacts"):
        op.drop_index(_index(name, ["tenant_id"]), name)
    with op.batch_alter_table("jobs") as table:
        table.drop_constraint("uq_jobs_tenant_id_idempotency_key", type_="unique")
        table.create_unique_constraint("uq_jobs_idempotency_key", ["idempotency_key"])
    with op.batch_alter_table("files") as table:
        table.drop_constraint("uq_files_tenant_id_name", type_="unique")
        table.create_unique_constraint("uq_files_name", ["name"])
    for name in OWNED:
        with op.batch_alter_table(name) as table:
            table.drop_constraint(f"fk_{name}_tenant_id_tenants", type_="foreignkey")
            table.drop_column("tenant_id")
            for column in SIZES.get(name, ()):
                table.drop_column(column)
    with op.batch_alter_table("uploads") as table:
        table.drop_column("finished_at")
    for name in ("audit", "api_keys", "tenants"):
        op.drop_table(name)
