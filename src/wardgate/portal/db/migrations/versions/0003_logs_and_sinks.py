"""Session, API request and flow logs, log sinks, and sequence numbers of changes."""

import sqlalchemy as sa
from alembic import op

from wardgate.portal.db.types import IpText, JsonValue, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
_BATCH = 5000


def upgrade() -> None:
    """Applies the change."""
    _number_changes()
    _create_api_request_logs()
    _create_flow_logs()
    _create_log_sinks()
    _create_session_logs()
    _create_log_sink_cursors()


def downgrade() -> None:
    """Takes it back."""
    for table in ("log_sink_cursors", "log_sinks", "session_logs", "flow_logs", "api_request_logs"):
        op.drop_table(table)
    with op.batch_alter_table("change_logs") as batch_op:
        batch_op.drop_index("change_logs_account_id_seq")
        batch_op.drop_column("seq")


def _number_changes() -> None:
    """Gives each change the number that its id stands for; of one moment, in the order of the ids."""
    op.add_column("change_logs", sa.Column("seq", sa.BigInteger(), nullable=True))
    logs = sa.table("change_logs", sa.column("account_id", sa.Uuid()), sa.column("log_id"), sa.column("seq"))
    connection = op.get_bind()
    last = 0
    while True:
        some = sa.select(logs.c.account_id, logs.c.log_id).where(logs.c.seq.is_(None)).order_by(logs.c.log_id)
        rows = connection.execute(some.limit(_BATCH)).all()
        for account_id, log_id in rows:
            last = max(int(log_id[1:14], 16) * 1024, last + 1)
            same = sa.and_(logs.c.account_id == account_id, logs.c.log_id == log_id)
            connection.execute(sa.update(logs).where(same).values(seq=last))
        if len(rows) < _BATCH:
            break
    with op.batch_alter_table("change_logs") as batch_op:
        batch_op.alter_column("seq", existing_type=sa.BigInteger(), nullable=False)
        batch_op.create_index("change_logs_account_id_seq", ["account_id", "seq"], unique=False)


def _create_api_request_logs() -> None:
    op.create_table(
        "api_request_logs",
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("api_token_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=2048), nullable=False),
        sa.Column("content_length", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column("user_agent", sa.String(length=255), nullable=True),
        sa.Column("ip", IpText(), nullable=True),
        sa.Column("ip_region", sa.String(length=255), nullable=True),
        sa.Column("ip_city", sa.String(length=255), nullable=True),
        sa.Column("ip_lat", sa.Double(), nullable=True),
        sa.Column("ip_lon", sa.Double(), nullable=True),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("log_id", sa.String(length=24), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("api_request_logs_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "log_id", name=op.f("api_request_logs_pkey")),
    )
    with op.batch_alter_table("api_request_logs", schema=None) as batch_op:
        batch_op.create_index(
            "api_request_logs_account_id_inserted_at", ["account_id", "inserted_at", "log_id"], unique=False
        )
        batch_op.create_index("api_request_logs_account_id_seq", ["account_id", "seq"], unique=False)
        batch_op.create_index(batch_op.f("api_request_logs_inserted_at_index"), ["inserted_at"], unique=False)


def _create_flow_logs() -> None:
    op.create_table(
        "flow_logs",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("initiator_device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("flow_start", UtcDateTime(), nullable=False),
        sa.Column("protocol", sa.String(length=8), nullable=False),
        sa.Column("inner_src_ip", IpText(), nullable=False),
        sa.Column("inner_src_port", sa.Integer(), nullable=False),
        sa.Column("inner_dst_ip", IpText(), nullable=False),
        sa.Column("inner_dst_port", sa.Integer(), nullable=False),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("log_id", sa.String(length=24), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("start_seq", sa.BigInteger(), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.Column("responder_device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("policy_authorization_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("policy_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("flow_end", UtcDateTime(), nullable=True),
        sa.Column("last_packet", UtcDateTime(), nullable=True),
        sa.Column("authorized_at", UtcDateTime(), nullable=False),
        sa.Column("authorization_expires_at", UtcDateTime(), nullable=False),
        sa.Column("initiator_auth_provider_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("initiator_actor_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("initiator_actor_name", sa.String(length=255), nullable=True),
        sa.Column("initiator_actor_email", sa.String(length=255), nullable=True),
        sa.Column("initiator_client_version", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_os_name", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_os_version", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_serial", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_uuid", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_identifier_for_vendor", sa.String(length=255), nullable=True),
        sa.Column("initiator_device_firebase_installation_id", sa.String(length=255), nullable=True),
        sa.Column("resource_name", sa.String(length=255), nullable=False),
        sa.Column("resource_address", sa.String(length=255), nullable=True),
        sa.Column("inner_domain", sa.String(length=255), nullable=True),
        sa.Column("outers", JsonValue, nullable=True),
        sa.Column("rx_packets", sa.BigInteger(), nullable=True),
        sa.Column("tx_packets", sa.BigInteger(), nullable=True),
        sa.Column("rx_bytes", sa.BigInteger(), nullable=True),
        sa.Column("tx_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("flow_logs_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "account_id",
            "initiator_device_id",
            "role",
            "flow_start",
            "protocol",
            "inner_src_ip",
            "inner_src_port",
            "inner_dst_ip",
            "inner_dst_port",
            "resource_id",
            name=op.f("flow_logs_pkey"),
        ),
    )
    with op.batch_alter_table("flow_logs", schema=None) as batch_op:
        batch_op.create_index("flow_logs_account_id_flow_start", ["account_id", "flow_start", "log_id"], unique=False)
        batch_op.create_index("flow_logs_account_id_log_id", ["account_id", "log_id"], unique=True)
        batch_op.create_index("flow_logs_account_id_seq", ["account_id", "seq"], unique=False)
        batch_op.create_index(batch_op.f("flow_logs_flow_start_index"), ["flow_start"], unique=False)


def _create_log_sinks() -> None:
    op.create_table(
        "log_sinks",
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("enabled_streams", JsonValue, nullable=False),
        sa.Column("retroactive", sa.Boolean(), nullable=False),
        sa.Column("settings", JsonValue, nullable=False),
        sa.Column("credentials", sa.LargeBinary(), nullable=True),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("error_message", sa.String(length=1024), nullable=True),
        sa.Column("errored_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("log_sinks_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("log_sinks_pkey")),
    )


def _create_session_logs() -> None:
    op.create_table(
        "session_logs",
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("context", sa.String(length=16), nullable=False),
        sa.Column("subject", JsonValue, nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("log_id", sa.String(length=24), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("session_logs_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "log_id", name=op.f("session_logs_pkey")),
    )
    with op.batch_alter_table("session_logs", schema=None) as batch_op:
        batch_op.create_index("session_logs_account_id_seq", ["account_id", "seq"], unique=False)
        batch_op.create_index("session_logs_account_id_timestamp", ["account_id", "timestamp", "log_id"], unique=False)
        batch_op.create_index(batch_op.f("session_logs_timestamp_index"), ["timestamp"], unique=False)


def _create_log_sink_cursors() -> None:
    op.create_table(
        "log_sink_cursors",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("sink_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("until_seq", sa.BigInteger(), nullable=True),
        sa.Column("synced_count", sa.BigInteger(), nullable=False),
        sa.Column("dropped_count", sa.BigInteger(), nullable=False),
        sa.Column("backfill_total", sa.BigInteger(), nullable=True),
        sa.Column("passes", JsonValue, nullable=False),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("last_synced_at", UtcDateTime(), nullable=True),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "sink_id"],
            ["log_sinks.account_id", "log_sinks.id"],
            name=op.f("log_sink_cursors_account_id_sink_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "sink_id", "stream", "kind", name=op.f("log_sink_cursors_pkey")),
    )
