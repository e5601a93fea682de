"""Policy tests, refused requests, and the order of the changes of access."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from wardgate.portal.db.types import IpText, UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Applies the change."""
    op.create_table(
        "access_revisions",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("access_revisions_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("access_revisions_pkey")),
    )
    op.execute("INSERT INTO access_revisions (account_id, revision, changed_at) SELECT id, 0, updated_at FROM accounts")
    op.add_column(
        "change_logs",
        sa.Column("revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
    )
    op.create_index("change_logs_account_id_revision", "change_logs", ["account_id", "revision"])
    op.create_index("change_logs_account_id_timestamp", "change_logs", ["account_id", "timestamp"])
    _create_policy_tests()
    _create_refused_requests()


def _create_policy_tests() -> None:
    op.create_table(
        "policy_tests",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("resource", sa.String(255), nullable=False),
        sa.Column("expectation", sa.String(16), nullable=False),
        sa.Column("at", _JSON, nullable=True),
        sa.Column("origin", _JSON, nullable=True),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("broken_at", UtcDateTime(), nullable=True),
        sa.Column("broken_reason", sa.String(1024), nullable=True),
        sa.Column("broken_by", sa.String(255), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("expectation IN ('reaches', 'never_reaches')", name="policy_tests_expectation"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("policy_tests_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("policy_tests_pkey")),
    )
    op.create_index("policy_tests_account_id_name", "policy_tests", ["account_id", "name"], unique=True)


def _create_refused_requests() -> None:
    op.create_table(
        "refused_requests",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("violated_properties", _JSON, nullable=False),
        sa.Column("remote_ip", IpText(), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("refused_requests_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "actor_id", "resource_id", name=op.f("refused_requests_pkey")),
    )
    op.create_index("refused_requests_account_id_at", "refused_requests", ["account_id", "at"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("refused_requests")
    op.drop_table("policy_tests")
    op.drop_index("change_logs_account_id_timestamp", "change_logs")
    op.drop_index("change_logs_account_id_revision", "change_logs")
    with op.batch_alter_table("change_logs") as batch:
        batch.drop_column("revision")
    op.drop_table("access_revisions")
