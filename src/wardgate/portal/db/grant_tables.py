"""What clients lost: each grant that ended, until its client has been told.

A client that keeps its connections across a reconnect believes in every grant that it had, and does not ask again. What
ended while it was away is kept here, so that its next init makes it ask.
"""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.portal.db.tables import TenantRow
from wardgate.portal.db.types import Id


class EndedGrant(TenantRow):
    """A grant that ended; `id` was the grant's own."""

    __tablename__ = "ended_grants"
    __table_args__ = (
        Index("ended_grants_initiating", "account_id", "initiating_device_id"),
        Index("ended_grants_inserted_at_index", "inserted_at"),
    )

    initiating_device_id: Mapped[str] = mapped_column(Id)
    resource_id: Mapped[str] = mapped_column(Id)
