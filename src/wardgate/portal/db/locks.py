"""One writer for each account: whoever checks something and then changes it is alone, as on SQLite.

Writers that only add grants or sessions share the account: each of them excludes those that change what access depends
on, and none of its kind. So a policy is never deleted beside a grant that its deletion does not see.

Waiting is first come, first served, in the event loop: whoever waits holds no connection. Other portals of the same
database are kept out by an advisory lock of the transaction, see `engine.py`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Lock:
    """Held by one, or by any number that share it."""

    def __init__(self) -> None:
        self._holders = 0
        self._is_exclusive = False
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    @property
    def is_idle(self) -> bool:
        return self._holders == 0 and not self._waiting

    async def acquire(self, shares: bool) -> None:
        if not self._waiting and self._may_enter(shares):
            self._enter(shares)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, shares))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was our turn already
            else:
                self._waiting.remove((turn, shares))
                self._admit()
            raise

    def release(self) -> None:
        self._holders -= 1
        self._is_exclusive = False
        self._admit()

    def _may_enter(self, shares: bool) -> bool:
        return self._holders == 0 or (shares and not self._is_exclusive)

    def _enter(self, shares: bool) -> None:
        self._holders += 1
        self._is_exclusive = not shares

    def _admit(self) -> None:
        while self._waiting and self._may_enter(self._waiting[0][1]):
            turn, shares = self._waiting.popleft()
            if not turn.cancelled():
                self._enter(shares)
                turn.set_result(None)


class AccountLocks:
    """The locks of all accounts that somebody writes to."""

    def __init__(self) -> None:
        self._by_account: dict[str, _Lock] = {}

    @asynccontextmanager
    async def hold(self, account_id: str, *, shares: bool) -> AsyncIterator[None]:
        """Waits for the account's turn, and keeps it."""
        lock = self._by_account.setdefault(account_id, _Lock())
        try:
            await lock.acquire(shares)
            try:
                yield
            finally:
                lock.release()
        finally:
            if lock.is_idle and self._by_account.get(account_id) is lock:
                del self._by_account[account_id]
