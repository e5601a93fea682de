"""Snapshots of what access depends on: of now, and of any time that the change log reaches back to.

The snapshot of now is kept in memory with the revision it is of. Whoever asks reads the account's revision first, in
one small query, and leads the kept one forwards by the change log, so that a change made by anybody (another node, a
command) is never missed. A snapshot of the past is the present one with the change log undone, from the latest change.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Uuid, and_, case, func, or_, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.errors import InvalidInput
from wardgate.ids import AccountId
from wardgate.portal.db.access_tables import AccessRevision
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Account, Actor, ChangeLog, Group, Membership, Policy, Resource, Site
from wardgate.portal.db.types import PlainId
from wardgate.portal.domain.snapshot import (
    OBJECTS,
    AccessSnapshot,
    RowChange,
    actor_of,
    group_of,
    policy_of,
    resource_of,
    snapshot_of,
)

MAX_FACTS: Final = 1_000_000
"""Of all snapshots that are kept; one of 100,000 memberships and 20,000 policies has 135,000."""
_BATCH: Final = 1000


class Snapshots:
    """The snapshots that this process keeps, those used last."""

    def __init__(self, max_facts: int = MAX_FACTS) -> None:
        self._max_facts = max_facts
        self._kept: OrderedDict[tuple[str, str], tuple[int, AccessSnapshot]] = OrderedDict()
        self._facts = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def current(self, scope: Scope) -> tuple[int, AccessSnapshot]:
        """The account's revision and its snapshot; a unit of work asks before it changes anything."""
        revision = await read_revision(scope)
        kept = self._get(scope.account_id, "now")
        if kept is not None and kept[0] <= revision:
            caught_up = await _caught_up(scope, *kept, revision)
            if caught_up is not None:
                self.keep(scope.account_id, revision, caught_up)
                return revision, caught_up
        snapshot = await load(scope)
        latest = await read_revision(scope)
        if latest != revision:  # rows were read one table after the other; what changed meanwhile is done once more
            changes = [one async for _, one in _changes(scope, ChangeLog.revision > revision)]
            snapshot = snapshot.changed(changes)
        self.keep(scope.account_id, latest, snapshot)
        return latest, snapshot

    async def before(self, unit: UnitOfWork) -> AccessSnapshot:
        """The snapshot that a unit of work started from, which has its revision and may have changed rows."""
        assert unit.revision is not None, "the account's revision is locked first"
        revision = unit.revision - 1
        kept = self._get(unit.account_id, "now")
        if kept is not None and kept[0] <= revision:
            caught_up = await _caught_up(unit, *kept, revision)
            if caught_up is not None:
                self.keep(unit.account_id, revision, caught_up)
                return caught_up
        snapshot = (await load(unit)).undone(reversed(unit.changes))
        self.keep(unit.account_id, revision, snapshot)
        return snapshot

    async def as_of(self, scope: Scope, at: datetime, now: datetime, retention: Any) -> AccessSnapshot:
        """The snapshot after all commits until then.

        Raises:
            InvalidInput: That is in the future, before the account was made, or before the change log begins.
        """
        account = await scope.account()
        check_instant(at, now, account.inserted_at, retention)
        revision, snapshot = await self.current(scope)
        first = await _first_after(scope, at)
        if first is None:
            return snapshot
        kept = self._get(scope.account_id, first)
        if kept is not None:
            return kept[1]
        batch: list[RowChange] = []
        later = and_(ChangeLog.timestamp > at, or_(ChangeLog.revision.is_(None), ChangeLog.revision <= revision))
        async for _, change in _changes(scope, later, is_backwards=True):
            batch.append(change)
            if len(batch) == _BATCH:
                snapshot = snapshot.undone(batch)
                batch = []
        snapshot = snapshot.undone(batch)
        self.keep(scope.account_id, revision, snapshot, first)
        return snapshot

    def keep(self, account_id: AccountId, revision: int, snapshot: AccessSnapshot, place: str = "now") -> None:
        """Keeps a snapshot, and lets go of those that were not used for longest if there are too many."""
        kept = self._kept.get((account_id, place))
        if kept is not None and kept[0] > revision:
            return  # somebody who read later was faster
        self._forget(account_id, place)
        if snapshot.size > self._max_facts:
            return
        self._kept[account_id, place] = (revision, snapshot)
        self._facts += snapshot.size
        while self._facts > self._max_facts:
            self._forget(*next(iter(self._kept)))

    def _forget(self, account_id: str, place: str) -> None:
        old = self._kept.pop((account_id, place), None)
        if old is not None:
            self._facts -= old[1].size

    def _get(self, account_id: AccountId, place: str) -> tuple[int, AccessSnapshot] | None:
        found = self._kept.get((account_id, place))
        if found is not None:
            self._kept.move_to_end((account_id, place))
        return found


def check_instant(at: datetime, now: datetime, made_at: datetime, retention: Any) -> None:
    """Whether the change log reaches back to an instant.

    Raises:
        InvalidInput: That is in the future, before the account was made, or before the change log begins.
    """
    if at > now:
        raise InvalidInput({"as_of": ["is in the future"]})
    if at < made_at:
        raise InvalidInput({"as_of": [f"is before the account was made, at {made_at.isoformat()}"]})
    if at <= now - retention:
        raise InvalidInput({"as_of": [f"is before the change log begins, at {(now - retention).isoformat()}"]})


async def read_revision(scope: Scope) -> int:
    """The account's access revision."""
    query = select(AccessRevision.revision).where(AccessRevision.account_id == scope.account_id)
    return await scope.session.scalar(query) or 0


async def _caught_up(scope: Scope, revision: int, snapshot: AccessSnapshot, wanted: int) -> AccessSnapshot | None:
    """A kept snapshot, led forwards to a revision; `None` if the change log lacks anything for that."""
    if revision == wanted:
        return snapshot
    where = and_(ChangeLog.revision > revision, ChangeLog.revision <= wanted)
    found = [one async for one in _changes(scope, where)]
    if len({number for number, _ in found}) != wanted - revision:
        return None
    return snapshot.changed(change for _, change in found)


async def _first_after(scope: Scope, at: datetime) -> str | None:
    """The log id of the first change after an instant; all instants with the same one have the same snapshot."""
    query = (
        select(ChangeLog.log_id)
        .where(ChangeLog.account_id == scope.account_id, ChangeLog.object.in_(OBJECTS), ChangeLog.timestamp > at)
        .order_by(ChangeLog.timestamp, ChangeLog.revision, ChangeLog.log_id)
        .limit(1)
    )
    return await scope.session.scalar(query)


async def _changes(
    scope: Scope, where: ColumnElement[bool], *, is_backwards: bool = False
) -> AsyncIterator[tuple[int | None, RowChange]]:
    """Changes in the order of commits, or against it; backwards with no more of each than undoing it takes."""
    order = [func.coalesce(ChangeLog.revision, 0), ChangeLog.log_id]
    before: Any = ChangeLog.before
    after: Any = ChangeLog.after
    if is_backwards:
        after = case((ChangeLog.operation == "insert", ChangeLog.after))
        order = [one.desc() for one in order]
    else:
        before = case((ChangeLog.operation != "insert", ChangeLog.before))
    query = (
        select(ChangeLog.revision, ChangeLog.object, ChangeLog.operation, before, after)
        .where(ChangeLog.account_id == scope.account_id, ChangeLog.object.in_(OBJECTS), where)
        .order_by(*order)
    )
    async for revision, table, operation, old, new in _streamed(scope.session, query):
        if is_backwards and operation == "update":
            yield revision, RowChange(table, old, {"id": old["id"], **_place(old)})
        else:
            yield revision, RowChange(table, old or None, new or None)


def _place(image: Any) -> dict[str, Any]:
    """What a change of a membership is found by; no other row's place is looked at."""
    return {name: image[name] for name in ("actor_id", "group_id") if name in image}


async def _streamed(session: AsyncSession, query: Select[Any]) -> AsyncIterator[Any]:
    """Rows, read in batches, so that other tasks get their turn between them."""
    found = await session.stream(query.execution_options(yield_per=_BATCH))
    async for batch in found.partitions():
        for row in batch:
            yield row


# --- all rows at once -------------------------------------------------------------------------------------------------


async def load(scope: Scope) -> AccessSnapshot:
    """The snapshot of the rows as the session sees them."""
    account = await scope.session.get(Account, scope.account_id, populate_existing=True)
    if account is None:
        return AccessSnapshot()
    actors = _columns(Actor, "id", "type", "name", "email", "is_disabled")
    groups = _columns(Group, "id", "name", "type", "directory_id")
    resources = _columns(Resource, "id", "name", "type", "address", "site_id", "ip_stack", "filters")
    policies = _columns(
        Policy,
        "id",
        "group_id",
        "resource_id",
        "conditions",
        "is_disabled",
        "flow_log_uploads_enabled",
        "inserted_at",
    )
    memberships = _columns(Membership, "actor_id", "group_id", "id")
    return snapshot_of(
        {"is_disabled": account.is_disabled, "features": account.features},
        actors=[actor_of(row) async for row in _rows(scope, actors)],
        groups=[group_of(row) async for row in _rows(scope, groups)],
        memberships=[tuple(row) async for row in _streamed(scope.session, _of(scope, memberships))],
        policies=[policy_of(row) async for row in _rows(scope, policies)],
        resources=[resource_of(row) async for row in _rows(scope, resources)],
        sites={row["id"]: row["name"] async for row in _rows(scope, _columns(Site, "id", "name"))},
    )


def _columns(table: Any, *names: str) -> Select[Any]:
    columns = (getattr(table, name) for name in names)
    return select(*(_quick(one) for one in columns)).select_from(table)


def _quick(column: Any) -> Any:
    """A column whose ids are read without looking at each of them, which would take most of the time."""
    return type_coerce(column, PlainId).label(column.key) if isinstance(column.type, Uuid) else column


def _of(scope: Scope, query: Select[Any]) -> Select[Any]:
    table = query.get_final_froms()[0]
    return query.where(table.c.account_id == scope.account_id)


async def _rows(scope: Scope, query: Select[Any]) -> AsyncIterator[Any]:
    async for row in _streamed(scope.session, _of(scope, query)):
        yield row._mapping


def as_changes(unit: UnitOfWork) -> Sequence[Any]:
    """The changes of a unit of work that access depends on."""
    return [one for one in unit.changes if one.object in OBJECTS]
