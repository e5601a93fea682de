"""Who people are elsewhere: sign-in providers, directories, identities, sessions; inventories; idempotency keys."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from wardgate.portal.db.types import IpText, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_REFERENCES = (
    ("actors", "created_by_directory_id", "directories"),
    ("groups", "directory_id", "directories"),
    ("client_tokens", "auth_provider_id", "auth_providers"),
)
"""Columns that were there before what they point to."""


def upgrade() -> None:
    """Applies the change."""
    _create_banners()
    _create_email_suppressions()
    _create_features()
    _create_auth_providers()
    _create_directories()
    _create_idempotency_keys()
    _create_outbound_emails()
    _create_posture_providers()
    _create_outbound_email_deliveries()
    _create_posture_devices()
    _create_external_identities()
    _create_group_sync_states()
    _create_one_time_passcodes()
    _create_portal_sessions()
    _create_external_identity_sync_states()
    _create_membership_sync_states()
    _create_pending_identities()
    for table, column, target in _REFERENCES:
        op.execute(sa.text(f"UPDATE {table} SET {column} = NULL WHERE {column} IS NOT NULL"))
        op.create_index(f"{table}_{column}_index", table, [column])
        _add_reference(table, column, target)


def downgrade() -> None:
    """Takes it back."""
    for table, column, target in reversed(_REFERENCES):
        _drop_reference(table, column, target)
        op.drop_index(f"{table}_{column}_index", table)
        op.execute(sa.text(f"UPDATE {table} SET {column} = NULL WHERE {column} IS NOT NULL"))
    for table in (
        "pending_identities",
        "membership_sync_states",
        "external_identity_sync_states",
        "portal_sessions",
        "one_time_passcodes",
        "group_sync_states",
        "external_identities",
        "posture_devices",
        "outbound_email_deliveries",
        "posture_providers",
        "outbound_emails",
        "idempotency_keys",
        "directories",
        "auth_providers",
        "features",
        "email_suppressions",
        "banners",
    ):
        op.drop_table(table)


def _add_reference(table: str, column: str, target: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rewrite(table, lambda sql: _with_reference(sql, table, column, target))
        return
    names = ["account_id", column]
    op.create_foreign_key(_name(table, column), table, target, names, ["account_id", "id"], ondelete="CASCADE")


def _drop_reference(table: str, column: str, target: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rewrite(table, lambda sql: sql.replace(_clause(table, column, target), ""))
        return
    op.drop_constraint(_name(table, column), table, type_="foreignkey")


def _name(table: str, column: str) -> str:
    return f"{table}_account_id_{column}_fkey"


def _clause(table: str, column: str, target: str) -> str:
    return (
        f", CONSTRAINT {_name(table, column)} FOREIGN KEY(account_id, {column})"
        f" REFERENCES {target} (account_id, id) ON DELETE CASCADE"
    )


def _with_reference(sql: str, table: str, column: str, target: str) -> str:
    body, _, rest = sql.rpartition(")")
    return f"{body.rstrip()}{_clause(table, column, target)})" + rest


def _rewrite(table: str, change: Callable[[str], str]) -> None:
    """Changes a table's definition in place: SQLite's documented way for what does not change the stored rows.

    To copy the table instead would delete, by cascading references, whatever hangs on its rows.
    """
    connection = op.get_bind()
    same = "type = 'table' AND name = :name"
    sql = connection.scalar(sa.text(f"SELECT sql FROM sqlite_schema WHERE {same}"), {"name": table})
    version = connection.scalar(sa.text("PRAGMA schema_version"))
    connection.execute(sa.text("PRAGMA writable_schema = ON"))
    update = sa.text(f"UPDATE sqlite_schema SET sql = :sql WHERE {same}")
    connection.execute(update, {"name": table, "sql": change(sql)})
    connection.execute(sa.text(f"PRAGMA schema_version = {version + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema = RESET"))


def _create_banners() -> None:
    op.create_table(
        "banners",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("message", sa.String(length=2048), nullable=False),
        sa.Column("colour", sa.String(length=16), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("banners_pkey")),
    )


def _create_email_suppressions() -> None:
    op.create_table(
        "email_suppressions",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column(
            "address",
            sa.String(length=255, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=False,
        ),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("email_suppressions_pkey")),
        sa.UniqueConstraint("address", name=op.f("email_suppressions_address_key")),
    )


def _create_features() -> None:
    op.create_table(
        "features",
        sa.Column("feature", sa.String(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("feature", name=op.f("features_pkey")),
    )


def _create_auth_providers() -> None:
    op.create_table(
        "auth_providers",
        sa.Column("issuer", sa.String(length=2048), nullable=False),
        sa.Column("client_id", sa.String(length=255), nullable=True),
        sa.Column("context", sa.String(length=32), nullable=False),
        sa.Column("client_session_lifetime_secs", sa.Integer(), nullable=False),
        sa.Column("portal_session_lifetime_secs", sa.Integer(), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "settings", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("type NOT IN ('email_otp', 'userpass') OR NOT is_default", name="auth_providers_default"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("auth_providers_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("auth_providers_pkey")),
    )
    with op.batch_alter_table("auth_providers", schema=None) as batch_op:
        batch_op.create_index(
            "auth_providers_client_id",
            ["account_id", "type", "client_id"],
            unique=True,
            sqlite_where=sa.text("type IN ('okta', 'oidc')"),
            postgresql_where=sa.text("type IN ('okta', 'oidc')"),
        )
        batch_op.create_index(
            "auth_providers_issuer",
            ["account_id", "issuer"],
            unique=True,
            sqlite_where=sa.text("type = 'entra'"),
            postgresql_where=sa.text("type = 'entra'"),
        )
        batch_op.create_index(
            "auth_providers_name",
            ["account_id", "type", "name"],
            unique=True,
            sqlite_where=sa.text("type IN ('entra', 'okta', 'oidc')"),
            postgresql_where=sa.text("type IN ('entra', 'okta', 'oidc')"),
        )
        batch_op.create_index(
            "auth_providers_one_default",
            ["account_id"],
            unique=True,
            sqlite_where=sa.text("is_default"),
            postgresql_where=sa.text("is_default"),
        )
        batch_op.create_index(
            "auth_providers_one_of_a_kind",
            ["account_id", "type"],
            unique=True,
            sqlite_where=sa.text("type IN ('google', 'email_otp', 'userpass')"),
            postgresql_where=sa.text("type IN ('google', 'email_otp', 'userpass')"),
        )


def _create_directories() -> None:
    op.create_table(
        "directories",
        sa.Column("external_key", sa.String(length=255), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("synced_at", UtcDateTime(), nullable=True),
        sa.Column("errored_at", UtcDateTime(), nullable=True),
        sa.Column("error_message", sa.String(length=2048), nullable=True),
        sa.Column("error_email_count", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "settings", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("directories_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("directories_pkey")),
        sa.UniqueConstraint(
            "account_id", "type", "external_key", name=op.f("directories_account_id_type_external_key_key")
        ),
        sa.UniqueConstraint("account_id", "type", "name", name=op.f("directories_account_id_type_name_key")),
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column(
            "headers", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("idempotency_keys_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("idempotency_keys_pkey")),
        sa.UniqueConstraint("account_id", "key", name=op.f("idempotency_keys_account_id_key_key")),
    )
    with op.batch_alter_table("idempotency_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("idempotency_keys_expires_at_index"), ["expires_at"], unique=False)


def _create_outbound_emails() -> None:
    op.create_table(
        "outbound_emails",
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column(
            "recipients", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("outbound_emails_account_id_fkey"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("outbound_emails_pkey")),
    )
    with op.batch_alter_table("outbound_emails", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("outbound_emails_account_id_index"), ["account_id"], unique=False)


def _create_posture_providers() -> None:
    op.create_table(
        "posture_providers",
        sa.Column("external_key", sa.String(length=255), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("synced_at", UtcDateTime(), nullable=True),
        sa.Column("errored_at", UtcDateTime(), nullable=True),
        sa.Column("error_message", sa.String(length=2048), nullable=True),
        sa.Column("error_email_count", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "settings", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("posture_providers_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("posture_providers_pkey")),
        sa.UniqueConstraint("account_id", "name", name=op.f("posture_providers_account_id_name_key")),
        sa.UniqueConstraint(
            "account_id", "type", "external_key", name=op.f("posture_providers_account_id_type_external_key_key")
        ),
    )


def _create_outbound_email_deliveries() -> None:
    op.create_table(
        "outbound_email_deliveries",
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column(
            "email",
            sa.String(length=255, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=False,
        ),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("failure_code", sa.String(length=255), nullable=True),
        sa.Column("failure_message", sa.String(length=2048), nullable=True),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["outbound_emails.message_id"],
            name=op.f("outbound_email_deliveries_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", "email", name=op.f("outbound_email_deliveries_pkey")),
    )


def _create_posture_devices() -> None:
    op.create_table(
        "posture_devices",
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("posture_provider_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("serial_number", sa.String(length=255), nullable=True),
        sa.Column(
            "inventory", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("synced_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "posture_provider_id"],
            ["posture_providers.account_id", "posture_providers.id"],
            name=op.f("posture_devices_account_id_posture_provider_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("posture_devices_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("posture_devices_pkey")),
    )
    with op.batch_alter_table("posture_devices", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("posture_devices_posture_provider_id_index"), ["posture_provider_id"], unique=False
        )
        batch_op.create_index(batch_op.f("posture_devices_serial_number_index"), ["serial_number"], unique=False)
        batch_op.create_index(batch_op.f("posture_devices_type_index"), ["type"], unique=False)


def _create_external_identities() -> None:
    op.create_table(
        "external_identities",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("issuer", sa.String(length=2048), nullable=False),
        sa.Column("idp_id", sa.String(length=255), nullable=False),
        sa.Column("directory_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column(
            "email",
            sa.String(length=255, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=True,
        ),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("given_name", sa.String(length=255), nullable=True),
        sa.Column("family_name", sa.String(length=255), nullable=True),
        sa.Column("middle_name", sa.String(length=255), nullable=True),
        sa.Column("nickname", sa.String(length=255), nullable=True),
        sa.Column("preferred_username", sa.String(length=255), nullable=True),
        sa.Column("profile", sa.String(length=2048), nullable=True),
        sa.Column("picture", sa.String(length=2048), nullable=True),
        sa.Column("firezone_avatar_url", sa.String(length=2048), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("external_identities_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "directory_id"],
            ["directories.account_id", "directories.id"],
            name=op.f("external_identities_account_id_directory_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("external_identities_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("external_identities_pkey")),
        sa.UniqueConstraint(
            "account_id", "actor_id", "issuer", name=op.f("external_identities_account_id_actor_id_issuer_key")
        ),
        sa.UniqueConstraint(
            "account_id", "idp_id", "issuer", name=op.f("external_identities_account_id_idp_id_issuer_key")
        ),
    )
    with op.batch_alter_table("external_identities", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("external_identities_directory_id_index"), ["directory_id"], unique=False)


def _create_group_sync_states() -> None:
    op.create_table(
        "group_sync_states",
        sa.Column("synced_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "id"],
            ["groups.account_id", "groups.id"],
            name=op.f("group_sync_states_account_id_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("group_sync_states_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("group_sync_states_pkey")),
    )


def _create_one_time_passcodes() -> None:
    op.create_table(
        "one_time_passcodes",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("code_hash", sa.String(length=255), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("one_time_passcodes_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("one_time_passcodes_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("one_time_passcodes_pkey")),
    )
    with op.batch_alter_table("one_time_passcodes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("one_time_passcodes_actor_id_index"), ["actor_id"], unique=False)
        batch_op.create_index(batch_op.f("one_time_passcodes_expires_at_index"), ["expires_at"], unique=False)


def _create_portal_sessions() -> None:
    op.create_table(
        "portal_sessions",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("auth_provider_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("user_agent", sa.String(length=255), nullable=True),
        sa.Column("remote_ip", IpText(), nullable=True),
        sa.Column("remote_ip_location_region", sa.String(length=255), nullable=True),
        sa.Column("remote_ip_location_city", sa.String(length=255), nullable=True),
        sa.Column("remote_ip_location_lat", sa.Double(), nullable=True),
        sa.Column("remote_ip_location_lon", sa.Double(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("portal_sessions_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "auth_provider_id"],
            ["auth_providers.account_id", "auth_providers.id"],
            name=op.f("portal_sessions_account_id_auth_provider_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("portal_sessions_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("portal_sessions_pkey")),
    )
    with op.batch_alter_table("portal_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("portal_sessions_actor_id_index"), ["actor_id"], unique=False)
        batch_op.create_index(batch_op.f("portal_sessions_auth_provider_id_index"), ["auth_provider_id"], unique=False)
        batch_op.create_index(batch_op.f("portal_sessions_expires_at_index"), ["expires_at"], unique=False)


def _create_external_identity_sync_states() -> None:
    op.create_table(
        "external_identity_sync_states",
        sa.Column("synced_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "id"],
            ["external_identities.account_id", "external_identities.id"],
            name=op.f("external_identity_sync_states_account_id_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("external_identity_sync_states_account_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("external_identity_sync_states_pkey")),
    )


def _create_membership_sync_states() -> None:
    op.create_table(
        "membership_sync_states",
        sa.Column("synced_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "id"],
            ["memberships.account_id", "memberships.id"],
            name=op.f("membership_sync_states_account_id_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("membership_sync_states_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("membership_sync_states_pkey")),
    )


def _create_pending_identities() -> None:
    op.create_table(
        "pending_identities",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("auth_provider_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("one_time_passcode_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("issuer", sa.String(length=2048), nullable=False),
        sa.Column("idp_id", sa.String(length=255), nullable=False),
        sa.Column(
            "profile", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("pending_identities_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "auth_provider_id"],
            ["auth_providers.account_id", "auth_providers.id"],
            name=op.f("pending_identities_account_id_auth_provider_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "one_time_passcode_id"],
            ["one_time_passcodes.account_id", "one_time_passcodes.id"],
            name=op.f("pending_identities_account_id_one_time_passcode_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("pending_identities_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pending_identities_pkey")),
    )
    with op.batch_alter_table("pending_identities", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("pending_identities_actor_id_index"), ["actor_id"], unique=False)
        batch_op.create_index(
            batch_op.f("pending_identities_auth_provider_id_index"), ["auth_provider_id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("pending_identities_one_time_passcode_id_index"), ["one_time_passcode_id"], unique=False
        )
