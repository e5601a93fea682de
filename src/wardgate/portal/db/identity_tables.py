"""Who people are elsewhere: sign-in providers, directories, identities, sessions, passcodes; devices in inventories.

One table serves all kinds of providers, with what differs between kinds in `settings`; the change log gives each kind
the name that the API has for it, and shows the settings as columns. Secrets are sealed (`db/keyring.py`) for the place
`<table>.<column>:<id>`. What proves a person or was made by a provider goes with it, by cascading references.

Source: portal-domain sections 1.3 to 1.5, 1.8, 1.10 and 1.11.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.portal.db.tables import Base, TenantRow, new_id
from wardgate.portal.db.types import Id, IpText, JsonValue, Secret, case_insensitive

_ONE_OF_A_KIND: Final = "type IN ('google', 'email_otp', 'userpass')"
_NAMED: Final = "type IN ('entra', 'okta', 'oidc')"


def _now() -> datetime:
    return datetime.now(UTC)


def _of(table: str, column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["account_id", column], [f"{table}.account_id", f"{table}.id"], ondelete="CASCADE")


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class KindRow(TenantRow):
    """A row of one of several kinds, which the change log shows as if each kind had a table of its own."""

    __abstract__ = True
    suffix: ClassVar[str]
    secret_name: ClassVar[str] = "sealed_secret"

    type: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(JsonValue, default=dict)
    sealed_secret: Mapped[bytes | None] = mapped_column(Secret)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)

    @property
    def log_name(self) -> str:
        """Such as `google_auth_providers`."""
        return f"{self.type}_{self.suffix}"

    def logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """The columns with the settings among them, and the secret under its usual name."""
        shown = {**values, **values["settings"], SECRET_NAMES.get(self.log_name, "secret"): values["sealed_secret"]}
        return {name: value for name, value in shown.items() if name not in ("settings", "sealed_secret", "type")}


SECRET_NAMES: Final = {
    "okta_auth_providers": "client_secret",
    "oidc_auth_providers": "client_secret",
    "google_directories": "legacy_service_account_key",
    "okta_directories": "private_key_jwk",
    "iru_posture_providers": "api_token",
}


class AuthProvider(KindRow):
    """A way to sign in."""

    __tablename__ = "auth_providers"
    suffix = "auth_providers"
    __table_args__ = (
        CheckConstraint("type NOT IN ('email_otp', 'userpass') OR NOT is_default", name="auth_providers_default"),
        Index("auth_providers_one_of_a_kind", "account_id", "type", unique=True, **_where(_ONE_OF_A_KIND)),
        Index("auth_providers_name", "account_id", "type", "name", unique=True, **_where(_NAMED)),
        Index("auth_providers_issuer", "account_id", "issuer", unique=True, **_where("type = 'entra'")),
        Index(
            "auth_providers_client_id",
            "account_id",
            "type",
            "client_id",
            unique=True,
            **_where("type IN ('okta', 'oidc')"),
        ),
        Index("auth_providers_one_default", "account_id", unique=True, **_where("is_default")),
    )

    issuer: Mapped[str] = mapped_column(String(2048))
    client_id: Mapped[str | None]
    context: Mapped[str] = mapped_column(String(32), default="clients_and_portal")
    client_session_lifetime_secs: Mapped[int] = mapped_column(default=604_800)
    portal_session_lifetime_secs: Mapped[int] = mapped_column(default=28_800)
    is_disabled: Mapped[bool] = mapped_column(default=False)
    is_default: Mapped[bool] = mapped_column(default=False)


class Directory(KindRow):
    """Where people and groups are synced from; `external_key` is its domain or tenant."""

    __tablename__ = "directories"
    suffix = "directories"
    __table_args__ = (
        UniqueConstraint("account_id", "type", "name"),
        UniqueConstraint("account_id", "type", "external_key"),
    )

    external_key: Mapped[str]
    is_disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None]
    is_verified: Mapped[bool] = mapped_column(default=False)
    synced_at: Mapped[datetime | None]
    errored_at: Mapped[datetime | None]
    error_message: Mapped[str | None] = mapped_column(String(2048))
    error_email_count: Mapped[int] = mapped_column(default=0)


class ExternalIdentity(TenantRow):
    """Who an actor is at an issuer: one for each actor and issuer."""

    __tablename__ = "external_identities"
    __table_args__ = (
        UniqueConstraint("account_id", "idp_id", "issuer"),
        UniqueConstraint("account_id", "actor_id", "issuer"),
        _of("actors", "actor_id"),
        _of("directories", "directory_id"),
    )

    actor_id: Mapped[str] = mapped_column(Id)
    issuer: Mapped[str] = mapped_column(String(2048))
    idp_id: Mapped[str]
    directory_id: Mapped[str | None] = mapped_column(Id, index=True)
    email: Mapped[str | None] = mapped_column(case_insensitive(255))
    name: Mapped[str | None]
    given_name: Mapped[str | None]
    family_name: Mapped[str | None]
    middle_name: Mapped[str | None]
    nickname: Mapped[str | None]
    preferred_username: Mapped[str | None]
    profile: Mapped[str | None] = mapped_column(String(2048))
    picture: Mapped[str | None] = mapped_column(String(2048))
    firezone_avatar_url: Mapped[str | None] = mapped_column(String(2048))
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class SyncState(TenantRow):
    """When a row was last seen in its directory; beside the row, so that a sync which changes nothing is no change."""

    __abstract__ = True

    synced_at: Mapped[datetime]


class ExternalIdentitySyncState(SyncState):
    """When an identity was last seen; its id is the identity's."""

    __tablename__ = "external_identity_sync_states"
    __table_args__ = (_of("external_identities", "id"),)


class GroupSyncState(SyncState):
    """When a group was last seen; its id is the group's."""

    __tablename__ = "group_sync_states"
    __table_args__ = (_of("groups", "id"),)


class MembershipSyncState(SyncState):
    """When a membership was last seen; its id is the membership's."""

    __tablename__ = "membership_sync_states"
    __table_args__ = (_of("memberships", "id"),)


class PortalSession(TenantRow):
    """An admin who is signed in; the cookie holds only the id."""

    __tablename__ = "portal_sessions"
    __table_args__ = (_of("actors", "actor_id"), _of("auth_providers", "auth_provider_id"))

    actor_id: Mapped[str] = mapped_column(Id, index=True)
    auth_provider_id: Mapped[str] = mapped_column(Id, index=True)
    user_agent: Mapped[str | None]
    remote_ip: Mapped[str | None] = mapped_column(IpText)
    remote_ip_location_region: Mapped[str | None]
    remote_ip_location_city: Mapped[str | None]
    remote_ip_location_lat: Mapped[float | None]
    remote_ip_location_lon: Mapped[float | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class OneTimePasscode(TenantRow):
    """A code that was mailed: hashed, good for 15 minutes and three attempts."""

    __tablename__ = "one_time_passcodes"
    __table_args__ = (_of("actors", "actor_id"),)

    actor_id: Mapped[str] = mapped_column(Id, index=True)
    code_hash: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class PendingIdentity(TenantRow):
    """A sign-in that still has to prove that the e-mail address is its own; goes with its passcode."""

    __tablename__ = "pending_identities"
    __table_args__ = (
        _of("actors", "actor_id"),
        _of("auth_providers", "auth_provider_id"),
        _of("one_time_passcodes", "one_time_passcode_id"),
    )

    actor_id: Mapped[str] = mapped_column(Id, index=True)
    auth_provider_id: Mapped[str] = mapped_column(Id, index=True)
    one_time_passcode_id: Mapped[str] = mapped_column(Id, index=True)
    issuer: Mapped[str] = mapped_column(String(2048))
    idp_id: Mapped[str]
    profile: Mapped[dict[str, Any]] = mapped_column(JsonValue, default=dict)


class PostureProvider(KindRow):
    """Where an inventory of devices is synced from; `external_key` is its tenant, or region and subdomain."""

    __tablename__ = "posture_providers"
    suffix = "posture_providers"
    __table_args__ = (
        UniqueConstraint("account_id", "name"),
        UniqueConstraint("account_id", "type", "external_key"),
    )

    external_key: Mapped[str]
    is_disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None]
    is_verified: Mapped[bool] = mapped_column(default=False)
    synced_at: Mapped[datetime | None]
    errored_at: Mapped[datetime | None]
    error_message: Mapped[str | None] = mapped_column(String(2048))
    error_email_count: Mapped[int] = mapped_column(default=0)


class PostureDevice(TenantRow):
    """A device as an inventory has it; its id here is the vendor's, and `inventory` has one entry a property."""

    __tablename__ = "posture_devices"
    __table_args__ = (_of("posture_providers", "posture_provider_id"),)

    type: Mapped[str] = mapped_column(String(16), index=True)
    posture_provider_id: Mapped[str] = mapped_column(Id, index=True)
    name: Mapped[str | None]
    serial_number: Mapped[str | None] = mapped_column(index=True)
    inventory: Mapped[dict[str, Any]] = mapped_column(JsonValue, default=dict)
    synced_at: Mapped[datetime] = mapped_column(default=_now)
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class IdempotencyKey(TenantRow):
    """A key that a request came with, what the request was, and, once it was answered, its sealed answer."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("account_id", "key"),)

    key: Mapped[str]
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(JsonValue, default=dict)
    answer: Mapped[bytes | None] = mapped_column(Secret)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class FeatureFlag(Base):
    """What the operator has rolled out to everybody."""

    __tablename__ = "features"

    feature: Mapped[str] = mapped_column(String(64), primary_key=True)
    enabled: Mapped[bool] = mapped_column(default=False)


class Banner(Base):
    """What the operator tells all admins."""

    __tablename__ = "banners"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    message: Mapped[str] = mapped_column(String(2048))
    colour: Mapped[str] = mapped_column(String(16), default="info")
    inserted_at: Mapped[datetime] = mapped_column(default=_now)


class EmailSuppression(Base):
    """An address that mail comes back from."""

    __tablename__ = "email_suppressions"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    address: Mapped[str] = mapped_column(case_insensitive(255), unique=True)
    inserted_at: Mapped[datetime] = mapped_column(default=_now)


class OutboundEmail(Base):
    """A mail that a provider took; it stays when its account goes."""

    __tablename__ = "outbound_emails"

    message_id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str | None] = mapped_column(Id, ForeignKey("accounts.id", ondelete="SET NULL"), index=True)
    subject: Mapped[str]
    recipients: Mapped[list[Any]] = mapped_column(JsonValue)
    inserted_at: Mapped[datetime] = mapped_column(default=_now)


class OutboundEmailDelivery(Base):
    """What became of a mail at one address."""

    __tablename__ = "outbound_email_deliveries"

    message_id: Mapped[str] = mapped_column(
        String(255), ForeignKey("outbound_emails.message_id", ondelete="CASCADE"), primary_key=True
    )
    email: Mapped[str] = mapped_column(case_insensitive(255), primary_key=True)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    failure_code: Mapped[str | None]
    failure_message: Mapped[str | None] = mapped_column(String(2048))
