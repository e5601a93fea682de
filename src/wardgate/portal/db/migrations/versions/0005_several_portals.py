"""Several portals on one database: regular jobs, and an outbox with many readers."""

import sqlalchemy as sa
from alembic import op

from wardgate.portal.db.types import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change."""
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("lease", sa.String(64)),
        sa.Column("holder", sa.String(64)),
        sa.Column("lease_until", UtcDateTime()),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("duration_s", sa.Double()),
        sa.Column("last_result", sa.String(16)),
        sa.Column("last_error", sa.String(500)),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failures_in_row", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("jobs_pkey")),
    )
    state = op.create_table(
        "outbox_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("pruned_to", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_state_pkey")),
    )
    op.bulk_insert(state, [{"id": 1, "pruned_to": 0}])
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.add_column(sa.Column("transaction_id", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.alter_column("transaction_id", server_default=None)
        batch_op.create_index("outbox_transaction_id", ["transaction_id", "id"])
        batch_op.create_index(batch_op.f("outbox_inserted_at_index"), ["inserted_at"])


def downgrade() -> None:
    """Takes it back."""
    with op.batch_alter_table("outbox") as batch_op:
        batch_op.drop_index(batch_op.f("outbox_inserted_at_index"))
        batch_op.drop_index("outbox_transaction_id")
        batch_op.drop_column("transaction_id")
    op.drop_table("outbox_state")
    op.drop_table("jobs")
