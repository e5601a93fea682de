"""Tables of "why, what if, since when": what must stay true of access, which requests were refused, and how often the
access facts of an account changed.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.portal.db.tables import Base, TenantRow
from wardgate.portal.db.types import BigId, Id, IpText


def _now() -> datetime:
    return datetime.now(UTC)


class AccessRevision(Base):
    """How often anything that access depends on was changed in an account, and when it last was.

    The row is locked from the moment a change is checked until it is committed, so the changes of an account have one
    order, and their times never go backwards.
    """

    __tablename__ = "access_revisions"

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(BigId)
    changed_at: Mapped[datetime]


class PolicyTest(TenantRow):
    """Something that must stay true: these actors reach these resources, or never do.

    `who` is everyone, anyone, `group:ID` or `actor:EMAIL`; `resource` is an id, or a pattern of names in which `*`
    stands for any text. `at` is `{days, time, zone}`; `origin` is what is known of the connection.
    The `broken_*` columns are set by a change that was forced, and cleared by the one that mends it.
    """

    __tablename__ = "policy_tests"
    __table_args__ = (
        Index("policy_tests_account_id_name", "account_id", "name", unique=True),
        CheckConstraint("expectation IN ('reaches', 'never_reaches')", name="policy_tests_expectation"),
    )

    name: Mapped[str]
    who: Mapped[str] = mapped_column(String(200))
    resource: Mapped[str]
    expectation: Mapped[str] = mapped_column(String(16))
    at: Mapped[dict[str, Any] | None]
    origin: Mapped[dict[str, Any] | None]
    is_enabled: Mapped[bool] = mapped_column(default=True)
    broken_at: Mapped[datetime | None]
    broken_reason: Mapped[str | None] = mapped_column(String(1024))
    broken_by: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(default=_now, onupdate=_now)


class RefusedRequest(Base):
    """The last request of an actor for a resource that got no access; older ones are counted."""

    __tablename__ = "refused_requests"
    __table_args__ = (Index("refused_requests_account_id_at", "account_id", "at"),)

    account_id: Mapped[str] = mapped_column(Id, ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    actor_id: Mapped[str] = mapped_column(Id, primary_key=True)
    resource_id: Mapped[str] = mapped_column(Id, primary_key=True)
    device_id: Mapped[str] = mapped_column(Id)
    reason: Mapped[str] = mapped_column(String(64))
    violated_properties: Mapped[list[Any]]
    remote_ip: Mapped[str | None] = mapped_column(IpText)
    at: Mapped[datetime]
    count: Mapped[int] = mapped_column(default=1)
