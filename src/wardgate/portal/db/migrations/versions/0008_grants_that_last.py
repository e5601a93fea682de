"""Grants remember the keys they were made for, and clients what they lost while they were away."""

import sqlalchemy as sa
from alembic import op

from wardgate.portal.db.types import UtcDateTime

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change."""
    for name in ("initiator_public_key", "receiver_public_key"):
        op.add_column("policy_authorizations", sa.Column(name, sa.String(44), nullable=True))
    column: sa.Column[bool] = sa.Column("use_iceless", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("policy_authorizations", column)
    op.create_table(
        "ended_grants",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("initiating_device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="ended_grants_account_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name="ended_grants_pkey"),
    )
    op.create_index("ended_grants_initiating", "ended_grants", ["account_id", "initiating_device_id"])
    op.create_index("ended_grants_inserted_at_index", "ended_grants", ["inserted_at"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("ended_grants")
    for name in ("initiator_public_key", "receiver_public_key", "use_iceless"):
        op.drop_column("policy_authorizations", name)
