"""Tables by which the portals of one database agree: regular jobs, and how far the outbox was cleared."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.portal.db.tables import Base


class JobRow(Base):
    """A regular job: when it is due, who runs it, and how that went last time."""

    __tablename__ = "jobs"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime]
    lease: Mapped[str | None] = mapped_column(String(64))
    holder: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    duration_s: Mapped[float | None]
    last_result: Mapped[str | None] = mapped_column(String(16))
    last_error: Mapped[str | None] = mapped_column(String(500))
    runs: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    failures_in_row: Mapped[int] = mapped_column(default=0)


class OutboxState(Base):
    """One row: up to which position (id on SQLite, transaction id on PostgreSQL) old outbox entries were removed."""

    __tablename__ = "outbox_state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pruned_to: Mapped[int] = mapped_column(BigInteger, default=0)
