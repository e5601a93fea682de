"""The logs besides the change log, and where they are sent. Rows go after their retention (`db/purge.py`); a log
outlives what it tells of, so it refers to nothing but its account.

Source of names: portal-domain section 1.9, portal-domain-2 A6 and A7, portal-domain-3 B3 to B6.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.portal.db.tables import Base, TenantRow
from wardgate.portal.db.types import Id, IpText, JsonValue, Secret


def _now() -> datetime:
    return datetime.now(UTC)


class LogRow(Base):
    """What every log has.

    Attributes:
        seq: Where the row stands in its stream (`domain/log_ids.py`).
    """

    __abstract__ = True

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    log_id: Mapped[str] = mapped_column(String(24), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)


class SessionLog(LogRow):
    """A device connected, or a person signed in."""

    __tablename__ = "session_logs"
    __table_args__ = (
        Index("session_logs_account_id_seq", "account_id", "seq"),
        Index("session_logs_account_id_timestamp", "account_id", "timestamp", "log_id"),
    )

    timestamp: Mapped[datetime] = mapped_column(index=True)
    context: Mapped[str] = mapped_column(String(16))
    subject: Mapped[dict[str, Any]] = mapped_column(JsonValue)


class ApiRequestLog(LogRow):
    """A request to the REST API, written before it is answered."""

    __tablename__ = "api_request_logs"
    __table_args__ = (
        Index("api_request_logs_account_id_seq", "account_id", "seq"),
        Index("api_request_logs_account_id_inserted_at", "account_id", "inserted_at", "log_id"),
    )

    inserted_at: Mapped[datetime] = mapped_column(index=True)
    actor_id: Mapped[str] = mapped_column(Id)
    api_token_id: Mapped[str] = mapped_column(Id)
    method: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(2048))
    content_length: Mapped[int | None] = mapped_column(BigInteger)
    request_id: Mapped[str | None]
    user_agent: Mapped[str | None]
    ip: Mapped[str | None] = mapped_column(IpText)
    ip_region: Mapped[str | None]
    ip_city: Mapped[str | None]
    ip_lat: Mapped[float | None]
    ip_lon: Mapped[float | None]


class FlowLog(Base):
    """Traffic that one side of a grant reported: open, until its end is reported as well.

    Attributes:
        seq: Renewed when the flow ends.
        start_seq: Under which the open flow could be seen.
        outers: The paths it took, in the order of their use.
    """

    __tablename__ = "flow_logs"
    __table_args__ = (
        Index("flow_logs_account_id_log_id", "account_id", "log_id", unique=True),
        Index("flow_logs_account_id_seq", "account_id", "seq"),
        Index("flow_logs_account_id_flow_start", "account_id", "flow_start", "log_id"),
    )

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    initiator_device_id: Mapped[str] = mapped_column(Id, primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    flow_start: Mapped[datetime] = mapped_column(primary_key=True, index=True)
    protocol: Mapped[str] = mapped_column(String(8), primary_key=True)
    inner_src_ip: Mapped[str] = mapped_column(IpText, primary_key=True)
    inner_src_port: Mapped[int] = mapped_column(primary_key=True)
    inner_dst_ip: Mapped[str] = mapped_column(IpText, primary_key=True)
    inner_dst_port: Mapped[int] = mapped_column(primary_key=True)
    resource_id: Mapped[str] = mapped_column(Id, primary_key=True)
    log_id: Mapped[str] = mapped_column(String(24))
    seq: Mapped[int] = mapped_column(BigInteger)
    start_seq: Mapped[int] = mapped_column(BigInteger)
    inserted_at: Mapped[datetime]
    responder_device_id: Mapped[str] = mapped_column(Id)
    policy_authorization_id: Mapped[str] = mapped_column(Id)
    policy_id: Mapped[str] = mapped_column(Id)
    flow_end: Mapped[datetime | None]
    last_packet: Mapped[datetime | None]
    authorized_at: Mapped[datetime]
    authorization_expires_at: Mapped[datetime]
    initiator_auth_provider_id: Mapped[str | None] = mapped_column(Id)
    initiator_actor_id: Mapped[str | None] = mapped_column(Id)
    initiator_actor_name: Mapped[str | None]
    initiator_actor_email: Mapped[str | None]
    initiator_client_version: Mapped[str | None]
    initiator_device_os_name: Mapped[str | None]
    initiator_device_os_version: Mapped[str | None]
    initiator_device_serial: Mapped[str | None]
    initiator_device_uuid: Mapped[str | None]
    initiator_device_identifier_for_vendor: Mapped[str | None]
    initiator_device_firebase_installation_id: Mapped[str | None]
    resource_name: Mapped[str]
    resource_address: Mapped[str | None]
    inner_domain: Mapped[str | None]
    outers: Mapped[list[Any] | None] = mapped_column(JsonValue)
    rx_packets: Mapped[int | None] = mapped_column(BigInteger)
    tx_packets: Mapped[int | None] = mapped_column(BigInteger)
    rx_bytes: Mapped[int | None] = mapped_column(BigInteger)
    tx_bytes: Mapped[int | None] = mapped_column(BigInteger)


class LogSink(TenantRow):
    """A destination that an account's logs are sent to.

    Attributes:
        settings: What is said of the destination, as its type has it (`domain/sink_settings.py`).
        credentials: Its secrets as a JSON object, sealed.
        errored_at: When the first of the failures was that have not ended yet.
    """

    __tablename__ = "log_sinks"

    type: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    enabled_streams: Mapped[list[Any]]
    retroactive: Mapped[bool] = mapped_column(default=False)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    credentials: Mapped[bytes | None] = mapped_column(Secret)
    is_disabled: Mapped[bool] = mapped_column(default=False)
    disabled_reason: Mapped[str | None]
    error_message: Mapped[str | None] = mapped_column(String(1024))
    errored_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)

    @property
    def log_name(self) -> str:
        """Each type counts as a table of its own."""
        return f"{self.type}_log_sinks"

    def logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """The settings as if they were columns, and of the credentials that there are some."""
        settings, credentials = values.pop("settings"), values.pop("credentials")
        shown: dict[str, Any] = values | settings
        return shown | {"credentials": credentials} if credentials else shown


class LogSinkCursor(Base):
    """How far one stream was sent to one sink; `kind` is `live`, or `backfill` for what was there before the sink.

    Attributes:
        cursor: The sequence number up to which everything was sent.
        until_seq: Where a backfill ends.
        passes: The latest steps of a cursor over flows: `[cursor, sequence number of the time of reading]`.
    """

    __tablename__ = "log_sink_cursors"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "sink_id"], ["log_sinks.account_id", "log_sinks.id"], ondelete="CASCADE"),
    )

    account_id: Mapped[str] = mapped_column(Id, primary_key=True)
    sink_id: Mapped[str] = mapped_column(Id, primary_key=True)
    stream: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    cursor: Mapped[int] = mapped_column(BigInteger)
    until_seq: Mapped[int | None] = mapped_column(BigInteger)
    synced_count: Mapped[int] = mapped_column(BigInteger, default=0)
    dropped_count: Mapped[int] = mapped_column(BigInteger, default=0)
    backfill_total: Mapped[int | None] = mapped_column(BigInteger)
    passes: Mapped[list[Any]] = mapped_column(default=list)
    completed_at: Mapped[datetime | None]
    last_synced_at: Mapped[datetime | None]
    inserted_at: Mapped[datetime] = mapped_column(default=_now)
