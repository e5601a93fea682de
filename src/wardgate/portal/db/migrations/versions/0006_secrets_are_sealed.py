"""Secrets are sealed: which key does it. The values themselves are sealed after the migration, which has no key."""

import sqlalchemy as sa
from alembic import context, op

from wardgate.errors import SettingError
from wardgate.portal.db import sealing
from wardgate.portal.db.types import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change."""
    op.create_table(
        "secret_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_check", sa.LargeBinary(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("secret_keys_pkey")),
    )


def downgrade() -> None:
    """Takes it back: an older version reads plain secrets."""
    if sealing.has_key_check(op.get_bind()):
        keyring = context.config.attributes.get("keyring")
        if keyring is None:
            raise SettingError("secret_key: going back to a version without sealed secrets needs the key")
        sealing.unseal_all(op.get_bind(), keyring)
    op.drop_table("secret_keys")
