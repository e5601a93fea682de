"""The only way to a tenant's rows: a scope reads within one account, a unit of work changes rows and records it.

Every insert, update and delete goes through `UnitOfWork`, which writes the outbox and the change log in the same
transaction and follows the cascading references itself, so that a grant which goes with its policy is seen to go.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar
from uuid import uuid4

from sqlalchemy import BigInteger, ForeignKeyConstraint, Select, cast, delete, func, select
from sqlalchemy import inspect as inspect_row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.errors import Conflict, InvalidInput, NotFound, invalid
from wardgate.ids import AccountId
from wardgate.portal.db.grant_tables import EndedGrant
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.tables import (
    LOGS,
    NOT_AUDITED,
    REDACTED,
    Account,
    Base,
    ChangeLog,
    ClientToken,
    Device,
    GatewayToken,
    OutboxEntry,
    PolicyAuthorization,
    TenantRow,
)
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.checks import is_uuid
from wardgate.portal.domain.log_ids import Sequencer
from wardgate.portal.domain.subjects import Subject

_R = TypeVar("_R", bound=TenantRow)
REDACTION: Final = "[redacted]"
TAKEN: Final = "has already been taken"
_SQLSTATES: Final = {"unique": "23505", "foreign key": "23503"}


class Scope:
    """Reads the rows of one account.

    Attributes:
        keyring: Opens the secrets in them.
    """

    def __init__(self, session: AsyncSession, subject: Subject, keyring: Keyring) -> None:
        self.session = session
        self.subject = subject
        self.keyring = keyring

    @property
    def account_id(self) -> AccountId:
        """The account that everything here is about."""
        return self.subject.account_id

    def select(self, table: type[_R]) -> Select[_R]:
        """A query for the account's rows of a table."""
        return select(table).where(table.account_id == self.account_id)

    async def find(self, table: type[_R], row_id: str) -> _R | None:
        """The row with that id, if it is the account's."""
        if not is_uuid(row_id):
            return None
        return await self.session.get(table, (self.account_id, row_id.lower()))

    async def get(self, table: type[_R], row_id: str) -> _R:
        """The row with that id.

        Raises:
            NotFound: There is none in this account.
        """
        row = await self.find(table, row_id)
        if row is None:
            raise NotFound(f"{table.__tablename__} has no {row_id}")
        return row

    async def all(self, query: Select[_R]) -> Sequence[_R]:
        """All rows that a query gives."""
        return (await self.session.scalars(query)).all()

    async def account(self) -> Account:
        """The account itself.

        Raises:
            NotFound: It was deleted.
        """
        account = await self.session.get(Account, self.account_id)
        if account is None:
            raise NotFound("the account is gone")
        return account


@dataclass(frozen=True, slots=True)
class Change:
    """One row that was changed: both sides as JSON, without secrets."""

    object: str
    operation: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class UnitOfWork(Scope):
    """Changes rows of one account in one transaction.

    Attributes:
        revision: The account's access revision once this is committed, if access depends on it.
        shared: If others use the same transaction: what was read for all of them, by who reads it. Changes that nobody
            is told of are written with theirs then, at the end.
    """

    def __init__(
        self, session: AsyncSession, subject: Subject, at: datetime, keyring: Keyring, sequencer: Sequencer
    ) -> None:
        super().__init__(session, subject, keyring)
        self.at = at
        self.revision: int | None = None
        self.sequencer = sequencer
        self.committed: list[Callable[[], None]] = []
        self.shared: Mapping[object, Any] | None = None
        self._kept: list[object] = []
        self._changes: list[Change] = []

    @property
    def has_changes(self) -> bool:
        """Whether anything was changed that others are told."""
        return bool(self._changes)

    @property
    def changes(self) -> Sequence[Change]:
        """What was changed so far, in order."""
        return self._changes

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Calls back once the changes are durable, before any later change is."""
        self.committed.append(callback)

    def keep(self, rows: object) -> None:
        """Holds rows to the end: one that nobody holds would be read again when it is looked for by its id."""
        self._kept.append(rows)

    async def locked_account(self) -> Account:
        """The account, which no other unit of work reads like this until this one ends: for rules that count rows.

        Raises:
            NotFound: It was deleted.
        """
        account = await self.session.get(Account, self.account_id, with_for_update={"key_share": True})
        if account is None:
            raise NotFound("the account is gone")
        return account

    async def insert(self, row: Base, *, unique: str | None = None, silent: bool = False) -> None:
        """Adds a row.

        Args:
            unique: The field to name if the row collides with another one.
            silent: Whether nobody is told, as with grants, which their maker delivers itself.

        Raises:
            InvalidInput: It collides; the unit goes on without it.
            Conflict: What it refers to was deleted meanwhile.
        """
        if unique is None:
            self.session.add(row)
            if silent and self.shared is not None:
                return
            await self._flush()
        else:
            await self._flush()
            async with self._reporting(unique), self.session.begin_nested():
                self.session.add(row)
        if not silent:
            self._changes.append(Change(row.log_name, "insert", None, as_json(row)))

    async def update(self, row: Base, *, unique: str | None = None, silent: bool = False, **values: Any) -> bool:
        """Sets columns of a row that this unit has read; whether anything is different now.

        Raises:
            InvalidInput: The row collides with another one, and is as it was.
            Conflict: What it refers to was deleted meanwhile.
        """
        assert row in self.session, "a row of another session would be changed in memory alone"
        changed = {name: value for name, value in values.items() if getattr(row, name) != value}
        if not changed:
            return False
        before = None if silent else as_json(row)
        if unique is None:
            _set(row, changed)
            if silent and self.shared is not None:
                return True
            await self._flush()
        else:
            await self._update_unique(row, changed, unique)
        if not silent:
            self._changes.append(Change(row.log_name, "update", before, as_json(row)))
        return True

    async def delete(self, row: Base) -> None:
        """Removes a row that this unit has read and, before it, all rows that exist only because of it."""
        assert row in self.session, "a row of another session would not be deleted"
        for child_table, constraint in _cascades(type(row)):
            condition = [
                element.parent == getattr(row, element.column.key) for element in constraint.elements
            ]  # each referencing column equals the referenced one
            for child in (await self.session.scalars(select(child_table).where(*condition))).all():
                if child in self.session:
                    await self.delete(child)
        if inspect_row(row).deleted or row not in self.session:
            return  # a second path of references led here
        before = as_json(row)
        await self._forget_token(row)
        if isinstance(row, PolicyAuthorization):
            self._remember_ended(row)
        await self.session.delete(row)
        await self.session.flush()
        self._changes.append(Change(row.log_name, "delete", before, None))

    async def delete_account(self) -> None:
        """Removes the account; the database removes what is in it, and who hears of the one knows of the rest."""
        account = await self.account()
        before = as_json(account)
        await self.session.execute(delete(Account).where(Account.id == self.account_id))
        self.session.expunge_all()
        self._changes.append(Change(Account.__tablename__, "delete", before, None))

    async def _forget_token(self, row: Base) -> None:
        """Devices no longer name a token that is deleted."""
        columns: dict[type[Base], str] = {ClientToken: "client_token_id", GatewayToken: "gateway_token_id"}
        column = columns.get(type(row))
        if column is not None:
            of_token = self.select(Device).filter_by(**{column: as_json(row)["id"]})
            for device in await self.all(of_token):
                await self.update(device, silent=True, **{column: None})

    def _remember_ended(self, grant: PolicyAuthorization) -> None:
        """Its client may be away, and has to learn of it when it comes back."""
        ended = EndedGrant(
            account_id=grant.account_id,
            id=grant.id,
            initiating_device_id=grant.initiating_device_id,
            resource_id=grant.resource_id,
            inserted_at=self.at,
        )
        self.session.add(ended)

    async def record(self) -> None:
        """Writes outbox and change log for what was changed so far."""
        if not self._changes:
            return
        commit_id = str(uuid4())
        await self._queue_up()
        account_exists = await self.session.get(Account, self.account_id) is not None
        subject = None if self.subject.kind == "system" else self.subject.for_log()
        seed = await self._next_seed()
        for number, change in enumerate(self._changes):
            self.session.add(
                OutboxEntry(
                    account_id=self.account_id,
                    commit_id=commit_id,
                    object=change.object,
                    operation=change.operation,
                    before=change.before,
                    after=change.after,
                    inserted_at=self.at,
                )
            )
            if account_exists and change.object not in NOT_AUDITED:
                self.session.add(
                    ChangeLog(
                        account_id=self.account_id,
                        log_id=log_ids.change_id(seed, number),
                        timestamp=self.at,
                        operation=change.operation,
                        object=change.object,
                        before=change.before,
                        after=change.after,
                        subject=subject,
                        revision=self.revision,
                        seq=self.sequencer.next(self.at),
                    )
                )
            await self.session.flush()

    async def _queue_up(self) -> None:
        """Lets the account's units commit in the order in which they come here, where several write at once."""
        if self.session.get_bind().dialect.name == "postgresql":
            key = int.from_bytes(hashlib.sha256(f"change_logs:{self.account_id}".encode()).digest()[:8], signed=True)
            await self.session.execute(select(func.pg_advisory_xact_lock(cast(key, BigInteger))))

    async def _next_seed(self) -> int:
        """A seed above that of the account's last change, so that ids sort in the order of commits."""
        query = select(func.max(ChangeLog.log_id)).where(ChangeLog.account_id == self.account_id)
        last = await self.session.scalar(query)
        return max(log_ids.microseconds(self.at), log_ids.seed_of(last) + 1 if last else 0)

    async def _update_unique(self, row: Base, changed: dict[str, Any], unique: str) -> None:
        await self._flush()
        try:
            async with self._reporting(unique), self.session.begin_nested():
                _set(row, changed)
        except (InvalidInput, Conflict):
            await self.session.refresh(row)
            raise

    async def _flush(self) -> None:
        async with self._reporting(None):
            await self.session.flush()

    @asynccontextmanager
    async def _reporting(self, unique: str | None) -> AsyncIterator[None]:
        """Says what a refusal by a constraint is about.

        With a field that may collide, the statement needs a savepoint around it: PostgreSQL goes on with no transaction
        in which one failed.
        """
        try:
            yield
        except IntegrityError as error:
            if unique is not None and _is_violated(error, "unique"):
                raise invalid(unique, TAKEN, "taken", "a value that no other one has") from error
            if _is_violated(error, "foreign key"):
                raise Conflict("something that this refers to was deleted meanwhile") from error
            raise


def _is_violated(error: IntegrityError, kind: str) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate == _SQLSTATES[kind] if sqlstate else f"{kind} constraint" in str(error.orig).lower()


def _set(row: Base, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


def as_json(row: Base) -> dict[str, Any]:
    """A row as JSON, secrets blotted out."""
    values = {}
    for attribute in inspect_row(type(row)).column_attrs:
        name = attribute.columns[0].name
        value = getattr(row, attribute.key)
        if name in REDACTED:
            value = None if value is None else REDACTION
        values[name] = value.isoformat() if isinstance(value, datetime) else value
    return row.logged(values)


@cache
def _cascades(table: type[Base]) -> list[tuple[type[Base], ForeignKeyConstraint]]:
    found: list[tuple[type[Base], ForeignKeyConstraint]] = []
    for mapper in Base.registry.mappers:
        kind = mapper.class_
        if kind.__tablename__ in LOGS:
            continue
        for constraint in kind.__table__.foreign_key_constraints:
            if constraint.referred_table is table.__table__ and constraint.ondelete == "CASCADE":
                found.append((kind, constraint))
    return sorted(found, key=lambda one: one[0].__tablename__)
