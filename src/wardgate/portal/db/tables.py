"""Every table. A tenant's row has the key `(account_id, id)`, and so have the references to it: no row can point into
another account. Revocation is deletion: whatever a grant depends on deletes it by a cascading reference.

Source of names: portal-domain sections 1.2 to 1.8. Relays are not stored.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from wardgate.portal.db.types import (
    BigId,
    Id,
    IpText,
    JsonValue,
    Secret,
    UtcDateTime,
    case_insensitive,
    current_transaction_id,
)


def new_id() -> str:
    """A random UUID."""
    return str(uuid4())


def secret_place(table: str, column: str, row_id: str | int) -> str:
    """What a sealed value is bound to."""
    return f"{table}.{column}:{row_id}"


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_index",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        str: String(255),
        dict[str, Any]: JsonValue,
        list[Any]: JsonValue,
    }

    @property
    def log_name(self) -> str:
        """What outbox and change log call this row's table."""
        return str(self.__tablename__)

    def logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """The columns as outbox and change log show them."""
        return values


def _to(table: str, column: str, on_delete: str | None = "CASCADE") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["account_id", column],
        [f"{table}.account_id", f"{table}.id"],
        ondelete=on_delete,
    )


class Account(Base):
    """A tenant."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64))
    legal_name: Mapped[str | None]
    slug: Mapped[str] = mapped_column(case_insensitive(100), unique=True)
    key: Mapped[str] = mapped_column(String(6), unique=True)
    ingest_signing_key: Mapped[bytes] = mapped_column(Secret)
    features: Mapped[dict[str, Any]] = mapped_column(default=dict)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    account_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    users_limit_exceeded: Mapped[bool] = mapped_column(default=False)
    seats_limit_exceeded: Mapped[bool] = mapped_column(default=False)
    service_accounts_limit_exceeded: Mapped[bool] = mapped_column(default=False)
    sites_limit_exceeded: Mapped[bool] = mapped_column(default=False)
    admins_limit_exceeded: Mapped[bool] = mapped_column(default=False)
    warning_last_sent_at: Mapped[datetime | None]
    is_disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None]
    scheduled_deletion_at: Mapped[datetime | None]
    lock_enabled_at: Mapped[datetime | None]
    inserted_at: Mapped[datetime] = mapped_column(default=_now)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class TenantRow(Base):
    """What every table of an account has."""

    __abstract__ = True

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    inserted_at: Mapped[datetime] = mapped_column(default=_now)


class Actor(TenantRow):
    """A person, a service account or an API client."""

    __tablename__ = "actors"
    __table_args__ = (
        CheckConstraint(
            "(type IN ('account_user', 'account_admin_user')) = (email IS NOT NULL)", name="actors_email_by_type"
        ),
        Index("actors_account_id_email", "account_id", "email", unique=True),
        _to("directories", "created_by_directory_id"),
    )

    type: Mapped[str] = mapped_column(String(32))
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(case_insensitive(160))
    allow_email_otp_sign_in: Mapped[bool] = mapped_column(default=False)
    password_hash: Mapped[str | None]
    preferences: Mapped[dict[str, Any]] = mapped_column(default=dict)
    is_disabled: Mapped[bool] = mapped_column(default=False)
    created_by_directory_id: Mapped[str | None] = mapped_column(Id, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class Group(TenantRow):
    """A set of actors. The managed group Everyone has no membership rows."""

    __tablename__ = "groups"
    __table_args__ = (
        Index("groups_account_id_idp_id", "account_id", "idp_id", unique=True),
        Index(
            "groups_account_id_name",
            "account_id",
            "name",
            unique=True,
            sqlite_where=text("directory_id IS NULL"),
            postgresql_where=text("directory_id IS NULL"),
        ),
        _to("directories", "directory_id"),
    )

    name: Mapped[str]
    type: Mapped[str] = mapped_column(String(16), default="static")
    entity_type: Mapped[str] = mapped_column(String(16), default="group")
    email: Mapped[str | None] = mapped_column(case_insensitive(160))
    idp_id: Mapped[str | None]
    directory_id: Mapped[str | None] = mapped_column(Id, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class Membership(TenantRow):
    """An actor in a group."""

    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("account_id", "actor_id", "group_id"),
        _to("actors", "actor_id"),
        _to("groups", "group_id"),
    )

    actor_id: Mapped[str] = mapped_column(Id)
    group_id: Mapped[str] = mapped_column(Id, index=True)


class Site(TenantRow):
    """A named group of gateways that reach the same network."""

    __tablename__ = "sites"
    __table_args__ = (
        UniqueConstraint("account_id", "name", "managed_by"),
        CheckConstraint("health_threshold >= 1", name="sites_health_threshold"),
    )

    name: Mapped[str]
    managed_by: Mapped[str] = mapped_column(String(16), default="account")
    health_threshold: Mapped[int] = mapped_column(default=1)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class Resource(TenantRow):
    """An address, or a pool of devices, that policies give access to."""

    __tablename__ = "resources"
    __table_args__ = (
        _to("sites", "site_id"),
        CheckConstraint(
            "(type IN ('dns', 'ip', 'cidr', 'dynamic_device_pool')) = (address IS NOT NULL)",
            name="resources_address_by_type",
        ),
        CheckConstraint(
            "(type IN ('static_device_pool', 'dynamic_device_pool')) = (site_id IS NULL)", name="resources_site_by_type"
        ),
        Index(
            "resources_one_internet",
            "account_id",
            unique=True,
            sqlite_where=text("type = 'internet'"),
            postgresql_where=text("type = 'internet'"),
        ),
    )

    name: Mapped[str]
    type: Mapped[str] = mapped_column(String(32))
    address: Mapped[str | None]
    address_description: Mapped[str | None]
    ip_stack: Mapped[str | None] = mapped_column(String(16))
    filters: Mapped[list[Any]] = mapped_column(default=list)
    site_id: Mapped[str | None] = mapped_column(Id, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class StaticDevicePoolMember(TenantRow):
    """A client that can be reached through a static pool."""

    __tablename__ = "static_device_pool_members"
    __table_args__ = (
        UniqueConstraint("account_id", "resource_id", "device_id"),
        _to("resources", "resource_id"),
        _to("devices", "device_id"),
    )

    resource_id: Mapped[str] = mapped_column(Id)
    device_id: Mapped[str] = mapped_column(Id, index=True)


class Policy(TenantRow):
    """This group may reach this resource. Without a group it is an orphan that waits for its group to come back."""

    __tablename__ = "policies"
    __table_args__ = (
        UniqueConstraint("account_id", "resource_id", "group_id"),
        _to("groups", "group_id", on_delete=None),
        _to("resources", "resource_id"),
    )

    description: Mapped[str | None] = mapped_column(String(1024))
    group_id: Mapped[str | None] = mapped_column(Id, index=True)
    group_idp_id: Mapped[str | None]
    resource_id: Mapped[str] = mapped_column(Id)
    conditions: Mapped[list[Any]] = mapped_column(default=list)
    is_disabled: Mapped[bool] = mapped_column(default=False)
    flow_log_uploads_enabled: Mapped[bool] = mapped_column(default=True)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class Device(TenantRow):
    """A client or a gateway, with what it last connected with."""

    __tablename__ = "devices"
    __table_args__ = (
        UniqueConstraint("account_id", "ipv4"),
        UniqueConstraint("account_id", "ipv6"),
        _to("actors", "actor_id"),
        _to("sites", "site_id"),
        CheckConstraint(
            "(type = 'client' AND actor_id IS NOT NULL AND site_id IS NULL) OR"
            " (type = 'gateway' AND site_id IS NOT NULL AND actor_id IS NULL)",
            name="devices_owner_by_type",
        ),
        Index("devices_account_id_actor_id_firezone_id", "account_id", "actor_id", "firezone_id", unique=True),
        Index("devices_account_id_site_id_firezone_id", "account_id", "site_id", "firezone_id", unique=True),
        Index("devices_account_id_hostname", "account_id", "hostname", unique=True),
    )

    type: Mapped[str] = mapped_column(String(16))
    firezone_id: Mapped[str | None]
    name: Mapped[str]
    actor_id: Mapped[str | None] = mapped_column(Id)
    site_id: Mapped[str | None] = mapped_column(Id)
    ipv4: Mapped[str] = mapped_column(IpText)
    ipv6: Mapped[str] = mapped_column(IpText)
    psk_base: Mapped[bytes] = mapped_column(Secret)
    device_serial: Mapped[str | None]
    device_uuid: Mapped[str | None]
    identifier_for_vendor: Mapped[str | None]
    firebase_installation_id: Mapped[str | None]
    hostname: Mapped[str | None] = mapped_column(case_insensitive(255))
    verified_at: Mapped[datetime | None]
    public_key: Mapped[str | None] = mapped_column(String(44))
    last_seen_user_agent: Mapped[str | None]
    last_seen_remote_ip: Mapped[str | None] = mapped_column(IpText)
    last_seen_remote_ip_location_region: Mapped[str | None]
    last_seen_remote_ip_location_city: Mapped[str | None]
    last_seen_remote_ip_location_lat: Mapped[float | None]
    last_seen_remote_ip_location_lon: Mapped[float | None]
    last_seen_version: Mapped[str | None]
    last_seen_at: Mapped[datetime | None]
    client_token_id: Mapped[str | None] = mapped_column(Id)
    gateway_token_id: Mapped[str | None] = mapped_column(Id)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class ClientToken(TenantRow):
    """Proves a client's actor: one for each sign-in, or made by an admin for a service account."""

    __tablename__ = "client_tokens"
    __table_args__ = (_to("actors", "actor_id"), _to("auth_providers", "auth_provider_id"))

    actor_id: Mapped[str] = mapped_column(Id, index=True)
    auth_provider_id: Mapped[str | None] = mapped_column(Id, index=True)
    secret_salt: Mapped[str]
    secret_hash: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class GatewayToken(TenantRow):
    """Proves one gateway, or any gateway of a site."""

    __tablename__ = "gateway_tokens"
    __table_args__ = (
        _to("sites", "site_id"),
        _to("devices", "device_id"),
        CheckConstraint("(site_id IS NULL) <> (device_id IS NULL)", name="gateway_tokens_one_owner"),
        Index(
            "gateway_tokens_one_active",
            "account_id",
            "device_id",
            unique=True,
            sqlite_where=text("device_id IS NOT NULL AND rotated_at IS NULL"),
            postgresql_where=text("device_id IS NOT NULL AND rotated_at IS NULL"),
        ),
    )

    site_id: Mapped[str | None] = mapped_column(Id)
    device_id: Mapped[str | None] = mapped_column(Id)
    secret_salt: Mapped[str]
    secret_hash: Mapped[str]
    rotated_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class RelayToken(Base):
    """Proves a relay; relays serve all accounts."""

    __tablename__ = "relay_tokens"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    secret_salt: Mapped[str]
    secret_hash: Mapped[str]
    inserted_at: Mapped[datetime] = mapped_column(default=_now)


class ApiToken(TenantRow):
    """Proves an API client in REST requests."""

    __tablename__ = "api_tokens"
    __table_args__ = (_to("actors", "actor_id"),)

    actor_id: Mapped[str] = mapped_column(Id, index=True)
    name: Mapped[str | None]
    secret_salt: Mapped[str]
    secret_hash: Mapped[str]
    expires_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    last_seen_user_agent: Mapped[str | None]
    last_seen_remote_ip: Mapped[str | None] = mapped_column(IpText)
    last_seen_remote_ip_location_region: Mapped[str | None]
    last_seen_remote_ip_location_city: Mapped[str | None]
    last_seen_remote_ip_location_lat: Mapped[float | None]
    last_seen_remote_ip_location_lon: Mapped[float | None]
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class PolicyAuthorization(TenantRow):
    """One grant. It goes with anything that it was made from.

    The keys are those of the two programs it was made for: a program that was started again knows nothing of it.
    """

    __tablename__ = "policy_authorizations"
    __table_args__ = (
        _to("policies", "policy_id"),
        _to("resources", "resource_id"),
        _to("client_tokens", "token_id"),
        _to("memberships", "membership_id"),
        _to("devices", "initiating_device_id"),
        _to("devices", "receiving_device_id"),
        Index("policy_authorizations_initiating", "account_id", "initiating_device_id", "resource_id"),
        Index("policy_authorizations_receiving", "account_id", "receiving_device_id"),
        Index("policy_authorizations_policy", "account_id", "policy_id"),
        Index("policy_authorizations_resource", "account_id", "resource_id"),
        Index("policy_authorizations_token", "account_id", "token_id"),
        Index("policy_authorizations_membership", "account_id", "membership_id"),
    )

    policy_id: Mapped[str] = mapped_column(Id)
    resource_id: Mapped[str] = mapped_column(Id)
    token_id: Mapped[str] = mapped_column(Id)
    membership_id: Mapped[str | None] = mapped_column(Id)
    initiating_device_id: Mapped[str] = mapped_column(Id)
    receiving_device_id: Mapped[str] = mapped_column(Id)
    initiator_remote_ip: Mapped[str | None] = mapped_column(IpText)
    initiator_user_agent: Mapped[str | None]
    receiver_remote_ip: Mapped[str | None] = mapped_column(IpText)
    initiator_public_key: Mapped[str | None] = mapped_column(String(44))
    receiver_public_key: Mapped[str | None] = mapped_column(String(44))
    use_iceless: Mapped[bool] = mapped_column(default=False, server_default=false())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class OutboxEntry(Base):
    """A committed change that has to reach the channels it concerns; all of one commit share `commit_id`.

    Ids are in the order of commits on SQLite alone; on PostgreSQL `transaction_id` tells which commits are new.
    """

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_transaction_id", "transaction_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    account_id: Mapped[str | None] = mapped_column(Id)
    commit_id: Mapped[str] = mapped_column(Id)
    object: Mapped[str] = mapped_column(String(64))
    operation: Mapped[str] = mapped_column(String(8))
    before: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    after: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    transaction_id: Mapped[int] = mapped_column(BigInteger, default=current_transaction_id())
    inserted_at: Mapped[datetime] = mapped_column(default=_now, index=True)


class ChangeLog(Base):
    """Who changed what: one row for each audited change, with secrets left out.

    Attributes:
        revision: What the commit made the account's access revision; `None` if access does not depend on it.
    """

    __tablename__ = "change_logs"
    __table_args__ = (
        Index("change_logs_account_id_revision", "account_id", "revision"),
        Index("change_logs_account_id_timestamp", "account_id", "timestamp"),
        Index("change_logs_account_id_seq", "account_id", "seq"),
    )

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    log_id: Mapped[str] = mapped_column(String(24), primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(index=True)
    operation: Mapped[str] = mapped_column(String(8))
    object: Mapped[str] = mapped_column(String(64))
    before: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    after: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    subject: Mapped[dict[str, Any] | None] = mapped_column(JsonValue)
    vsn: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int | None] = mapped_column(BigId)
    seq: Mapped[int] = mapped_column(BigInteger)


REDACTED = frozenset(
    {
        "answer",
        "api_key",
        "api_token",
        "auth_header",
        "bearer_token",
        "client_secret",
        "code_hash",
        "credentials",
        "hec_token",
        "ingest_signing_key",
        "key_check",
        "legacy_service_account_key",
        "license_key",
        "password_hash",
        "private_key_jwk",
        "psk_base",
        "sealed_secret",
        "secret_hash",
        "secret_salt",
    }
)
"""Columns that never leave their table (portal-domain-3 B2)."""

LOGS = frozenset(
    {
        "access_revisions",
        "api_request_logs",
        "change_logs",
        "ended_grants",
        "flow_logs",
        "log_sink_cursors",
        "refused_requests",
        "session_logs",
    }
)
"""Tables that are never told of, row by row: what is deleted takes its rows here along in silence."""

NOT_AUDITED = (
    frozenset(
        {
            "policy_authorizations",
            "relay_tokens",
            "portal_sessions",
            "pending_identities",
            "posture_devices",
            "external_identity_sync_states",
            "group_sync_states",
            "membership_sync_states",
        }
    )
    | LOGS
)
"""Tables whose changes take effect but are not in the change log."""

# Registers the tables of the other modules, which are built on these.
from wardgate.portal.db import access_tables as _access_tables  # noqa: E402, F401
from wardgate.portal.db import grant_tables as _grant_tables  # noqa: E402, F401
from wardgate.portal.db import identity_tables as _identity_tables  # noqa: E402, F401
from wardgate.portal.db import log_tables as _log_tables  # noqa: E402, F401
from wardgate.portal.db import node_tables as _node_tables  # noqa: E402, F401
