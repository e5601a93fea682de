"""Idempotency keys: a POST that is sent again gets the answer of the first time, and nothing is done twice.

The key is written in the transaction of the change, so a request that failed has used nothing up. The answer is kept,
sealed, because it may hold a token that is shown once. Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
from datetime import datetime
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers

from wardgate.errors import Conflict, DomainError
from wardgate.portal.api.problems import BadRequest, Replayed
from wardgate.portal.db import idempotency
from wardgate.portal.db.engine import Database
from wardgate.portal.db.idempotency import KeptAnswer
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain.subjects import Subject

HEADER: Final = "idempotency-key"
MAX_KEY: Final = 255


class KeyReused(DomainError):
    """The key came with another request."""

    code = "idempotency_key_reused"


class Idempotency:
    """The key of one request, if it has one and is a POST."""

    def __init__(self, db: Database, subject: Subject, request: Request, at: datetime) -> None:
        self._db = db
        self._subject = subject
        self._request = request
        self._at = at
        self._key = request.headers.get(HEADER) if request.method == "POST" else None
        self._hash = ""
        self._row_id: str | None = None

    async def begin(self) -> None:
        """Looks the key up, before anything is done.

        Raises:
            BadRequest: It is no key.
            Replayed: The request was carried out, and here is its answer.
            Conflict: It is being carried out, or its answer was lost.
            KeyReused: The key belongs to another request.
        """
        if self._key is None:
            return
        if not 1 <= len(self._key) <= MAX_KEY or not self._key.isascii() or not self._key.isprintable():
            raise BadRequest(f"Idempotency-Key: 1 to {MAX_KEY} printable ASCII characters", "invalid_parameter")
        self._hash = await self._request_hash()
        async with self._db.scoped(self._subject) as scope:
            found = await idempotency.find(scope, self._key, self._at)
        if found is None:
            return
        if found.request_hash != self._hash:
            raise KeyReused("The idempotency key came with another request.")
        if found.answer is None:
            raise _in_progress()
        raise Replayed(found.answer.status, found.answer.headers, found.answer.body)

    async def claim(self, unit: UnitOfWork) -> None:
        """Uses the key up together with the changes of this unit.

        Raises:
            Conflict: Another request with it was faster.
        """
        if self._key is None:
            return
        self._row_id = await idempotency.claim(unit, self._key, self._hash)
        if self._row_id is None:
            raise _in_progress()

    def committed(self) -> None:
        """Asks for the answer, to keep it."""
        if self._row_id is not None:
            self._request.state.answer.keep = self._keep

    async def _keep(self, status: int, headers: Headers, body: bytes) -> None:
        assert self._row_id is not None
        kept = {name: headers[name] for name in ("location", "etag", "deprecation", "sunset") if name in headers}
        async with self._db.writing(self._subject) as unit:
            await idempotency.keep(unit, self._row_id, KeptAnswer(status, kept, body))

    async def _request_hash(self) -> str:
        url = self._request.url
        digest = hashlib.sha256(f"{self._request.method} {url.path}?{url.query}\n".encode())
        digest.update(await self._request.body())
        return digest.hexdigest()


def _in_progress() -> Conflict:
    return Conflict(
        "A request with this idempotency key is being carried out, or was and its answer was lost.",
        "idempotency_in_progress",
    )
