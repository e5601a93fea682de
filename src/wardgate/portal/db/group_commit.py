"""Many small pieces of work in one transaction: whoever comes while one runs shares the next.

A piece that is alone is done at once; under load a commit, and the reading of rows by their ids, is paid for once by
all that wait. Each piece is told that it is done when it is durable, as if it had had the transaction for itself. If
one fails, all of its transaction are done again, each by itself, so that it fails alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from wardgate.errors import DatabaseUnavailable
from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Account, TenantRow
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject

_R = TypeVar("_R")
Reader = Callable[[UnitOfWork, Sequence[Any]], Awaitable[Any]]
"""Reads for many pieces at once what each asks for, given as a list."""
MAX_SHARED: Final = 100
NOTHING: Final[Mapping[type[TenantRow], str]] = {}


@dataclass(frozen=True, slots=True)
class _Piece(Generic[_R]):
    subject: Subject
    work: Callable[[UnitOfWork], Awaitable[_R]]
    needs: Mapping[type[TenantRow], str]
    wants: tuple[Reader, Any] | None
    done: "asyncio.Future[_R]"


class GroupCommit:
    """The pieces of work that wait, by account."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[AccountId, list[_Piece[Any]]] = {}
        self._workers: dict[AccountId, asyncio.Task[None]] = {}

    async def run(
        self,
        subject: Subject,
        work: Callable[[UnitOfWork], Awaitable[_R]],
        *,
        needs: Mapping[type[TenantRow], str] = NOTHING,
        wants: tuple[Reader, Any] | None = None,
    ) -> _R:
        """Runs a piece of work and returns its result once it is committed.

        Args:
            work: What to do in the transaction; may be called a second time, in another one.
            needs: Rows that it finds by their ids, which are read for all pieces at once.
            wants: Who reads what else it needs, and what that is; the work finds it in its unit's `shared`, unless it
                has the transaction for itself.

        Raises:
            Exception: What the work raised; nothing of it was kept then.
        """
        account_id = subject.account_id
        piece = _Piece(subject, work, needs, wants, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(account_id, []).append(piece)
        if account_id not in self._workers:
            self._workers[account_id] = asyncio.get_running_loop().create_task(self._work(account_id))
        result: _R = await piece.done
        return result

    async def _work(self, account_id: AccountId) -> None:
        try:
            while waiting := self._waiting.pop(account_id, None):
                pieces, later = waiting[:MAX_SHARED], waiting[MAX_SHARED:]
                if later:
                    self._waiting[account_id] = later
                await self._commit(account_id, pieces)
        finally:
            del self._workers[account_id]

    async def _commit(self, account_id: AccountId, pieces: Sequence[_Piece[Any]]) -> None:
        try:
            results = await self._try(account_id, pieces)
        except (Exception, asyncio.CancelledError) as error:
            if (
                len(pieces) > 1
                and not isinstance(error, asyncio.CancelledError)
                and not isinstance(error, DatabaseUnavailable)
            ):
                for piece in pieces:
                    await self._commit(account_id, [piece])
                return
            for piece in pieces:
                if not piece.done.done():
                    piece.done.set_exception(error.with_traceback(None))
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for piece, result in zip(pieces, results, strict=True):
            if not piece.done.done():
                piece.done.set_result(result)

    async def _try(self, account_id: AccountId, pieces: Sequence[_Piece[Any]]) -> list[Any]:
        results, has_changes = [], False
        async with self._db.writing(subjects.system(account_id), shares=True) as shared:
            await self._read(shared, pieces)
            found = await self._want(shared, pieces) if len(pieces) > 1 else None
            shared.session.sync_session.autoflush = found is None
            for piece in pieces:
                unit = UnitOfWork(shared.session, piece.subject, shared.at, shared.keyring, shared.sequencer)
                unit.shared = found
                results.append(await piece.work(unit))
                if unit.has_changes:
                    await unit.record()
                    has_changes = True
                for callback in unit.committed:
                    shared.after_commit(callback)
        if has_changes:
            self._db.notify()
        return results

    async def _want(self, unit: UnitOfWork, pieces: Sequence[_Piece[Any]]) -> dict[object, Any]:
        wanted: dict[Reader, list[Any]] = {}
        for piece in pieces:
            if piece.wants is not None:
                wanted.setdefault(piece.wants[0], []).append(piece.wants[1])
        return {reader: await reader(unit, some) for reader, some in wanted.items()}

    async def _read(self, unit: UnitOfWork, pieces: Sequence[_Piece[Any]]) -> None:
        if len(pieces) == 1:
            return
        unit.keep(await unit.session.get(Account, unit.account_id))
        ids: dict[type[TenantRow], set[str]] = {}
        for piece in pieces:
            for table, row_id in piece.needs.items():
                ids.setdefault(table, set()).add(row_id)
        for table, some in ids.items():
            unit.keep(await unit.all(unit.select(table).where(table.id.in_(sorted(some)))))
