"""Finding things as people name them; of several with one name none is guessed, they are listed."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import or_

from wardgate.errors import InvalidInput, NotFound
from wardgate.portal.db.devices import latest_client
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Device, Resource
from wardgate.portal.domain.checks import is_uuid
from wardgate.portal.domain.snapshot import AccessSnapshot, KnownActor, KnownResource

_T = TypeVar("_T")
_MOST = 20


async def find_actor(scope: Scope, text: str) -> Actor:
    """The actor with that id, e-mail address or exact name.

    Raises:
        NotFound: There is none.
        InvalidInput: There are several.
    """
    if is_uuid(text):
        return await scope.get(Actor, text)
    query = scope.select(Actor).where(or_(Actor.email == text, Actor.name == text))
    rows = await scope.all(query.order_by(Actor.name, Actor.id).limit(_MOST))
    by_email = [row for row in rows if row.email is not None and row.email.casefold() == text.casefold()]
    return _only("actor", text, by_email or rows, lambda row: f"{row.email or row.type} ({row.id})")


async def find_resource(scope: Scope, text: str) -> Resource:
    """The resource with that id or exact name.

    Raises:
        NotFound: There is none.
        InvalidInput: There are several.
    """
    if is_uuid(text):
        return await scope.get(Resource, text)
    query = scope.select(Resource).where(Resource.name == text).order_by(Resource.id).limit(_MOST)
    return _only("resource", text, await scope.all(query), lambda row: f"{row.address or row.type} ({row.id})")


async def find_client(scope: Scope, actor: KnownActor, text: str | None) -> Device | None:
    """The actor's client with that id or name; without one, the client that connected last.

    Raises:
        NotFound: There is none with that name.
        InvalidInput: There are several.
    """
    if text is None:
        return await latest_client(scope, actor.id)
    query = scope.select(Device).where(Device.actor_id == actor.id)
    query = query.where(Device.id == text.lower()) if is_uuid(text) else query.where(Device.name == text)
    rows = await scope.all(query.order_by(Device.id).limit(_MOST))
    return _only("device", text, rows, lambda row: f"{row.name} ({row.id})")


def known_actor(snapshot: AccessSnapshot, text: str) -> KnownActor:
    """The same in a snapshot, which knows actors that are gone now.

    Raises:
        NotFound: There was none.
        InvalidInput: There were several.
    """
    if is_uuid(text):
        return _only("actor", text, _by_id(snapshot.actors.values(), text, lambda one: one.id), str)
    wanted = text.casefold()
    rows = [one for one in snapshot.actors.values() if (one.email or "").casefold() == wanted]
    rows = rows or [one for one in snapshot.actors.values() if one.name == text]
    return _only("actor", text, rows, lambda row: f"{row.email or row.type} ({row.id})")


def known_resource(snapshot: AccessSnapshot, text: str) -> KnownResource:
    """The same for resources.

    Raises:
        NotFound: There was none.
        InvalidInput: There were several.
    """
    if is_uuid(text):
        return _only("resource", text, _by_id(snapshot.resources.values(), text, lambda one: one.id), str)
    rows = [one for one in snapshot.resources.values() if one.name == text]
    return _only("resource", text, rows, lambda row: f"{row.address or row.type} ({row.id})")


def _by_id(rows: Iterable[_T], text: str, id_of: Callable[[_T], str]) -> list[_T]:
    return [one for one in rows if id_of(one) == text.lower()]


def _only(noun: str, text: str, rows: Sequence[_T], shown: Callable[[_T], str]) -> _T:
    if not rows:
        raise NotFound(f"there is no {noun} {text!r}")
    if len(rows) > 1:
        raise InvalidInput(
            {noun: [f"{text!r} is the name of several; name one by its id: {', '.join(map(shown, rows))}"]}
        )
    return rows[0]
