"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from wardgate.portal.db.types import IpText, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the change."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE EXTENSION IF NOT EXISTS citext")
    _create_accounts()
    _create_outbox()
    _create_relay_tokens()
    _create_actors()
    _create_change_logs()
    _create_groups()
    _create_sites()
    _create_api_tokens()
    _create_client_tokens()
    _create_devices()
    _create_memberships()
    _create_resources()
    _create_gateway_tokens()
    _create_policies()
    _create_static_device_pool_members()
    _create_policy_authorizations()


def downgrade() -> None:
    """Takes it back."""
    for table in (
        "policy_authorizations",
        "static_device_pool_members",
        "policies",
        "gateway_tokens",
        "resources",
        "memberships",
        "devices",
        "client_tokens",
        "api_tokens",
        "sites",
        "groups",
        "change_logs",
        "actors",
        "relay_tokens",
        "outbox",
        "accounts",
    ):
        op.drop_table(table)


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("legal_name", sa.String(length=255), nullable=True),
        sa.Column(
            "slug",
            sa.String(length=100, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=False,
        ),
        sa.Column("key", sa.String(length=6), nullable=False),
        sa.Column("ingest_signing_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "features", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column(
            "limits", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column(
            "config", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column(
            "metadata", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("users_limit_exceeded", sa.Boolean(), nullable=False),
        sa.Column("seats_limit_exceeded", sa.Boolean(), nullable=False),
        sa.Column("service_accounts_limit_exceeded", sa.Boolean(), nullable=False),
        sa.Column("sites_limit_exceeded", sa.Boolean(), nullable=False),
        sa.Column("admins_limit_exceeded", sa.Boolean(), nullable=False),
        sa.Column("warning_last_sent_at", UtcDateTime(), nullable=True),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("scheduled_deletion_at", UtcDateTime(), nullable=True),
        sa.Column("lock_enabled_at", UtcDateTime(), nullable=True),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("key", name=op.f("accounts_key_key")),
        sa.UniqueConstraint("slug", name=op.f("accounts_slug_key")),
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("commit_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("object", sa.String(length=64), nullable=False),
        sa.Column("operation", sa.String(length=8), nullable=False),
        sa.Column(
            "before", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column(
            "after", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
    )


def _create_relay_tokens() -> None:
    op.create_table(
        "relay_tokens",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("secret_salt", sa.String(length=255), nullable=False),
        sa.Column("secret_hash", sa.String(length=255), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("relay_tokens_pkey")),
    )


def _create_actors() -> None:
    op.create_table(
        "actors",
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "email",
            sa.String(length=160, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=True,
        ),
        sa.Column("allow_email_otp_sign_in", sa.Boolean(), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column(
            "preferences", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("created_by_directory_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(type IN ('account_user', 'account_admin_user')) = (email IS NOT NULL)", name="actors_email_by_type"
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("actors_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("actors_pkey")),
    )
    with op.batch_alter_table("actors", schema=None) as batch_op:
        batch_op.create_index("actors_account_id_email", ["account_id", "email"], unique=True)


def _create_change_logs() -> None:
    op.create_table(
        "change_logs",
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("log_id", sa.String(length=24), nullable=False),
        sa.Column("timestamp", UtcDateTime(), nullable=False),
        sa.Column("operation", sa.String(length=8), nullable=False),
        sa.Column("object", sa.String(length=64), nullable=False),
        sa.Column(
            "before", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column(
            "after", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column(
            "subject", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column("vsn", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("change_logs_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "log_id", name=op.f("change_logs_pkey")),
    )
    with op.batch_alter_table("change_logs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("change_logs_timestamp_index"), ["timestamp"], unique=False)


def _create_groups() -> None:
    op.create_table(
        "groups",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column(
            "email",
            sa.String(length=160, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=True,
        ),
        sa.Column("idp_id", sa.String(length=255), nullable=True),
        sa.Column("directory_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("groups_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("groups_pkey")),
    )
    with op.batch_alter_table("groups", schema=None) as batch_op:
        batch_op.create_index("groups_account_id_idp_id", ["account_id", "idp_id"], unique=True)
        batch_op.create_index(
            "groups_account_id_name",
            ["account_id", "name"],
            unique=True,
            sqlite_where=sa.text("directory_id IS NULL"),
            postgresql_where=sa.text("directory_id IS NULL"),
        )


def _create_sites() -> None:
    op.create_table(
        "sites",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("managed_by", sa.String(length=16), nullable=False),
        sa.Column("health_threshold", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("health_threshold >= 1", name="sites_health_threshold"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("sites_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("sites_pkey")),
        sa.UniqueConstraint("account_id", "name", "managed_by", name=op.f("sites_account_id_name_managed_by_key")),
    )


def _create_api_tokens() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("secret_salt", sa.String(length=255), nullable=False),
        sa.Column("secret_hash", sa.String(length=255), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("last_seen_at", UtcDateTime(), nullable=True),
        sa.Column("last_seen_user_agent", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip", IpText(), nullable=True),
        sa.Column("last_seen_remote_ip_location_region", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip_location_city", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip_location_lat", sa.Double(), nullable=True),
        sa.Column("last_seen_remote_ip_location_lon", sa.Double(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("api_tokens_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("api_tokens_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("api_tokens_pkey")),
    )
    with op.batch_alter_table("api_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("api_tokens_actor_id_index"), ["actor_id"], unique=False)


def _create_client_tokens() -> None:
    op.create_table(
        "client_tokens",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("auth_provider_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("secret_salt", sa.String(length=255), nullable=False),
        sa.Column("secret_hash", sa.String(length=255), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("client_tokens_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("client_tokens_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("client_tokens_pkey")),
    )
    with op.batch_alter_table("client_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("client_tokens_actor_id_index"), ["actor_id"], unique=False)
        batch_op.create_index(batch_op.f("client_tokens_expires_at_index"), ["expires_at"], unique=False)


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("firezone_id", sa.String(length=255), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("site_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("ipv4", IpText(), nullable=False),
        sa.Column("ipv6", IpText(), nullable=False),
        sa.Column("psk_base", sa.LargeBinary(), nullable=False),
        sa.Column("device_serial", sa.String(length=255), nullable=True),
        sa.Column("device_uuid", sa.String(length=255), nullable=True),
        sa.Column("identifier_for_vendor", sa.String(length=255), nullable=True),
        sa.Column("firebase_installation_id", sa.String(length=255), nullable=True),
        sa.Column(
            "hostname",
            sa.String(length=255, collation="NOCASE").with_variant(postgresql.CITEXT(), "postgresql"),
            nullable=True,
        ),
        sa.Column("verified_at", UtcDateTime(), nullable=True),
        sa.Column("public_key", sa.String(length=44), nullable=True),
        sa.Column("last_seen_user_agent", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip", IpText(), nullable=True),
        sa.Column("last_seen_remote_ip_location_region", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip_location_city", sa.String(length=255), nullable=True),
        sa.Column("last_seen_remote_ip_location_lat", sa.Double(), nullable=True),
        sa.Column("last_seen_remote_ip_location_lon", sa.Double(), nullable=True),
        sa.Column("last_seen_version", sa.String(length=255), nullable=True),
        sa.Column("last_seen_at", UtcDateTime(), nullable=True),
        sa.Column("client_token_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("gateway_token_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(type = 'client' AND actor_id IS NOT NULL AND site_id IS NULL) OR (type = 'gateway' AND site_id IS NOT NULL AND actor_id IS NULL)",
            name="devices_owner_by_type",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("devices_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "site_id"],
            ["sites.account_id", "sites.id"],
            name=op.f("devices_account_id_site_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("devices_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("devices_pkey")),
        sa.UniqueConstraint("account_id", "ipv4", name=op.f("devices_account_id_ipv4_key")),
        sa.UniqueConstraint("account_id", "ipv6", name=op.f("devices_account_id_ipv6_key")),
    )
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.create_index(
            "devices_account_id_actor_id_firezone_id", ["account_id", "actor_id", "firezone_id"], unique=True
        )
        batch_op.create_index("devices_account_id_hostname", ["account_id", "hostname"], unique=True)
        batch_op.create_index(
            "devices_account_id_site_id_firezone_id", ["account_id", "site_id", "firezone_id"], unique=True
        )


def _create_memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("actor_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("group_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "actor_id"],
            ["actors.account_id", "actors.id"],
            name=op.f("memberships_account_id_actor_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "group_id"],
            ["groups.account_id", "groups.id"],
            name=op.f("memberships_account_id_group_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("memberships_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("memberships_pkey")),
        sa.UniqueConstraint(
            "account_id", "actor_id", "group_id", name=op.f("memberships_account_id_actor_id_group_id_key")
        ),
    )
    with op.batch_alter_table("memberships", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("memberships_group_id_index"), ["group_id"], unique=False)


def _create_resources() -> None:
    op.create_table(
        "resources",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=True),
        sa.Column("address_description", sa.String(length=255), nullable=True),
        sa.Column("ip_stack", sa.String(length=16), nullable=True),
        sa.Column(
            "filters", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("site_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(type IN ('dns', 'ip', 'cidr', 'dynamic_device_pool')) = (address IS NOT NULL)",
            name="resources_address_by_type",
        ),
        sa.CheckConstraint(
            "(type IN ('static_device_pool', 'dynamic_device_pool')) = (site_id IS NULL)", name="resources_site_by_type"
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "site_id"],
            ["sites.account_id", "sites.id"],
            name=op.f("resources_account_id_site_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("resources_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("resources_pkey")),
    )
    with op.batch_alter_table("resources", schema=None) as batch_op:
        batch_op.create_index(
            "resources_one_internet",
            ["account_id"],
            unique=True,
            sqlite_where=sa.text("type = 'internet'"),
            postgresql_where=sa.text("type = 'internet'"),
        )
        batch_op.create_index(batch_op.f("resources_site_id_index"), ["site_id"], unique=False)


def _create_gateway_tokens() -> None:
    op.create_table(
        "gateway_tokens",
        sa.Column("site_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("device_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("secret_salt", sa.String(length=255), nullable=False),
        sa.Column("secret_hash", sa.String(length=255), nullable=False),
        sa.Column("rotated_at", UtcDateTime(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("(site_id IS NULL) <> (device_id IS NULL)", name="gateway_tokens_one_owner"),
        sa.ForeignKeyConstraint(
            ["account_id", "device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("gateway_tokens_account_id_device_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "site_id"],
            ["sites.account_id", "sites.id"],
            name=op.f("gateway_tokens_account_id_site_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("gateway_tokens_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("gateway_tokens_pkey")),
    )
    with op.batch_alter_table("gateway_tokens", schema=None) as batch_op:
        batch_op.create_index(
            "gateway_tokens_one_active",
            ["account_id", "device_id"],
            unique=True,
            sqlite_where=sa.text("device_id IS NOT NULL AND rotated_at IS NULL"),
            postgresql_where=sa.text("device_id IS NOT NULL AND rotated_at IS NULL"),
        )


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("description", sa.String(length=1024), nullable=True),
        sa.Column("group_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("group_idp_id", sa.String(length=255), nullable=True),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column(
            "conditions", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("flow_log_uploads_enabled", sa.Boolean(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "group_id"],
            ["groups.account_id", "groups.id"],
            name=op.f("policies_account_id_group_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "resource_id"],
            ["resources.account_id", "resources.id"],
            name=op.f("policies_account_id_resource_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("policies_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("policies_pkey")),
        sa.UniqueConstraint(
            "account_id", "resource_id", "group_id", name=op.f("policies_account_id_resource_id_group_id_key")
        ),
    )
    with op.batch_alter_table("policies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("policies_group_id_index"), ["group_id"], unique=False)


def _create_static_device_pool_members() -> None:
    op.create_table(
        "static_device_pool_members",
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("static_device_pool_members_account_id_device_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "resource_id"],
            ["resources.account_id", "resources.id"],
            name=op.f("static_device_pool_members_account_id_resource_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("static_device_pool_members_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("static_device_pool_members_pkey")),
        sa.UniqueConstraint(
            "account_id",
            "resource_id",
            "device_id",
            name=op.f("static_device_pool_members_account_id_resource_id_device_id_key"),
        ),
    )
    with op.batch_alter_table("static_device_pool_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("static_device_pool_members_device_id_index"), ["device_id"], unique=False)


def _create_policy_authorizations() -> None:
    op.create_table(
        "policy_authorizations",
        sa.Column("policy_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("resource_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("token_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("membership_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("initiating_device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("receiving_device_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("initiator_remote_ip", IpText(), nullable=True),
        sa.Column("initiator_user_agent", sa.String(length=255), nullable=True),
        sa.Column("receiver_remote_ip", IpText(), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("inserted_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "initiating_device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("policy_authorizations_account_id_initiating_device_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "membership_id"],
            ["memberships.account_id", "memberships.id"],
            name=op.f("policy_authorizations_account_id_membership_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "policy_id"],
            ["policies.account_id", "policies.id"],
            name=op.f("policy_authorizations_account_id_policy_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "receiving_device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("policy_authorizations_account_id_receiving_device_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "resource_id"],
            ["resources.account_id", "resources.id"],
            name=op.f("policy_authorizations_account_id_resource_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "token_id"],
            ["client_tokens.account_id", "client_tokens.id"],
            name=op.f("policy_authorizations_account_id_token_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("policy_authorizations_account_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("policy_authorizations_pkey")),
    )
    with op.batch_alter_table("policy_authorizations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("policy_authorizations_expires_at_index"), ["expires_at"], unique=False)
        batch_op.create_index(
            "policy_authorizations_initiating", ["account_id", "initiating_device_id", "resource_id"], unique=False
        )
        batch_op.create_index("policy_authorizations_membership", ["account_id", "membership_id"], unique=False)
        batch_op.create_index("policy_authorizations_policy", ["account_id", "policy_id"], unique=False)
        batch_op.create_index("policy_authorizations_receiving", ["account_id", "receiving_device_id"], unique=False)
        batch_op.create_index("policy_authorizations_resource", ["account_id", "resource_id"], unique=False)
        batch_op.create_index("policy_authorizations_token", ["account_id", "token_id"], unique=False)
