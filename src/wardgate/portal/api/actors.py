"""Actors, who they are elsewhere, and the client tokens of service accounts."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.identity_objects import ExternalIdentityOut
from wardgate.portal.api.lists import NEWEST_FIRST, NamedPaged, SortedPaged, page_of, shown_page_of
from wardgate.portal.api.objects import (
    ActorIn,
    ActorNew,
    ActorOut,
    ActorType,
    ClientTokenCreated,
    ClientTokenIn,
    ClientTokenOut,
    Data,
    Deleted,
    DeletedCount,
    Id,
    Page,
)
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.api.routing import updates
from wardgate.portal.db.devices import last_seen_of_actors
from wardgate.portal.db.identities import synced_at
from wardgate.portal.db.identity_tables import ExternalIdentity, ExternalIdentitySyncState
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken
from wardgate.portal.services import actors, sessions, tokens

router = APIRouter(tags=["Actors"])


async def _shown(scope: Scope, rows: Sequence[Actor]) -> list[ActorOut]:
    seen = await last_seen_of_actors(scope, [row.id for row in rows])
    names = [name for name in ActorOut.model_fields if name != "last_seen_at"]
    values: list[dict[str, Any]] = [{name: getattr(row, name) for name in names} for row in rows]
    return [ActorOut.model_validate({**one, "last_seen_at": seen.get(str(one["id"]))}) for one in values]


async def _one(scope: Scope, actor_id: Id) -> ActorOut:
    return (await _shown(scope, [await scope.get(Actor, str(actor_id))]))[0]


@router.get("/actors")
async def list_actors(
    caller: Authenticated,
    place: NamedPaged,
    name: str | None = None,
    email: str | None = None,
    type: ActorType | None = None,
    is_disabled: bool | None = None,
) -> Page[ActorOut]:
    """Lists people, service accounts and API clients."""
    only = {"name": name, "email": email, "type": type, "is_disabled": is_disabled}
    async with caller.reading() as scope:
        return await shown_page_of(scope, Actor, place, _shown, equal=only)


@router.get("/actors/{actor_id}")
async def read_actor(caller: Authenticated, actor_id: Id) -> Data[ActorOut]:
    """Reads an actor."""
    async with caller.reading() as scope:
        return caller.found(await _one(scope, actor_id))


@router.post("/actors", status_code=201)
async def create_actor(caller: Authenticated, actor: Annotated[ActorNew, Body(embed=True)]) -> Data[ActorOut]:
    """Makes a person or a service account."""
    async with caller.writing() as unit:
        row = await actors.create_actor(unit, actor.given())
        shown = (await _shown(unit, [row]))[0]
    return caller.created(shown, f"/actors/{row.id}")


@updates(router, "/actors/{actor_id}")
async def update_actor(
    caller: Authenticated, actor_id: Id, actor: Annotated[ActorIn, Body(embed=True)]
) -> Data[ActorOut]:
    """Changes an actor; disabling one ends its tokens and sessions, another e-mail address drops its identities."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, actor_id))
        row = await actors.update_actor(unit, str(actor_id), actor.given())
        shown = (await _shown(unit, [row]))[0]
    return caller.found(shown)


@router.delete("/actors/{actor_id}")
async def delete_actor(caller: Authenticated, actor_id: Id) -> Data[ActorOut]:
    """Deletes an actor with its identities, tokens, devices, memberships and grants."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, actor_id))
        shown = await _one(unit, actor_id)
        await actors.delete_actor(unit, str(actor_id))
    return Data(data=shown)


async def _identities(scope: Scope, rows: Sequence[ExternalIdentity]) -> list[ExternalIdentityOut]:
    at = await synced_at(scope, ExternalIdentitySyncState, [row.id for row in rows])
    names = [name for name in ExternalIdentityOut.model_fields if name != "synced_at"]
    shown = []
    for row in rows:
        values: dict[str, Any] = {name: getattr(row, name) for name in names}
        values["email"] = row.email or row.idp_id
        values["idp_id"] = row.idp_id.partition(":")[2] or row.idp_id
        shown.append(ExternalIdentityOut.model_validate({**values, "synced_at": at.get(row.id)}))
    return shown


async def _identity(scope: Scope, actor_id: Id, identity_id: Id) -> ExternalIdentityOut:
    return (await _identities(scope, [await sessions.get_identity(scope, str(actor_id), str(identity_id))]))[0]


@router.get("/actors/{actor_id}/external_identities")
async def list_external_identities(
    caller: Authenticated, actor_id: Id, place: SortedPaged
) -> Page[ExternalIdentityOut]:
    """Lists who an actor is elsewhere, newest first."""
    async with caller.reading() as scope:
        await scope.get(Actor, str(actor_id))
        only = {"actor_id": str(actor_id)}
        return await shown_page_of(scope, ExternalIdentity, place, _identities, order=NEWEST_FIRST, equal=only)


@router.get("/actors/{actor_id}/external_identities/{identity_id}")
async def read_external_identity(caller: Authenticated, actor_id: Id, identity_id: Id) -> Data[ExternalIdentityOut]:
    """Reads an identity of an actor."""
    async with caller.reading() as scope:
        return caller.found(await _identity(scope, actor_id, identity_id))


@router.delete("/actors/{actor_id}/external_identities/{identity_id}")
async def delete_external_identity(caller: Authenticated, actor_id: Id, identity_id: Id) -> Data[ExternalIdentityOut]:
    """Deletes an identity, and ends the actor's sessions and tokens that came through its issuer."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _identity(unit, actor_id, identity_id))
        shown = await _identity(unit, actor_id, identity_id)
        await sessions.delete_identity(unit, await sessions.get_identity(unit, str(actor_id), str(identity_id)))
    return Data(data=shown)


@router.get("/actors/{actor_id}/client_tokens")
async def list_client_tokens(caller: Authenticated, actor_id: Id, place: SortedPaged) -> Page[ClientTokenOut]:
    """Lists an actor's client tokens, newest first."""
    async with caller.reading() as scope:
        await scope.get(Actor, str(actor_id))
        shown = ClientTokenOut.model_validate
        return await page_of(scope, ClientToken, place, shown, order=NEWEST_FIRST, equal={"actor_id": str(actor_id)})


@router.get("/actors/{actor_id}/client_tokens/{token_id}")
async def read_client_token(caller: Authenticated, actor_id: Id, token_id: Id) -> Data[ClientTokenOut]:
    """Reads a client token's metadata."""
    async with caller.reading() as scope:
        return caller.found(await _token(scope, actor_id, token_id))


@router.post("/actors/{actor_id}/client_tokens", status_code=201)
async def create_client_token(
    caller: Authenticated, actor_id: Id, client_token: Annotated[ClientTokenIn, Body(embed=True)]
) -> Data[ClientTokenCreated]:
    """Makes a service account's token; it is in this answer only."""
    async with caller.writing() as unit:
        actor = await unit.get(Actor, str(actor_id))
        if actor.type != "service_account":
            raise BadRequest("Client tokens are made for service accounts only.", "wrong_kind")
        issued = await tokens.create_client_token(unit, actor.id, client_token.given())
    shown = ClientTokenOut.model_validate(issued.row)
    values = {name: getattr(shown, name) for name in ClientTokenOut.model_fields}
    return Data(data=ClientTokenCreated(**values, token=issued.text))


async def _token(scope: Scope, actor_id: Id, token_id: Id) -> ClientTokenOut:
    return ClientTokenOut.model_validate(await tokens.get_client_token(scope, str(actor_id), str(token_id)))


@router.delete("/actors/{actor_id}/client_tokens/{token_id}")
async def delete_client_token(caller: Authenticated, actor_id: Id, token_id: Id) -> Data[Deleted]:
    """Revokes a token; clients that joined with it are signed out at once."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _token(unit, actor_id, token_id))
        await tokens.delete_client_token(unit, str(actor_id), str(token_id))
    return Data(data=Deleted(id=token_id))


@router.delete("/actors/{actor_id}/client_tokens")
async def delete_client_tokens(caller: Authenticated, actor_id: Id) -> Data[DeletedCount]:
    """Revokes all tokens of an actor."""
    async with caller.writing() as unit:
        return Data(data=DeletedCount(deleted_count=await tokens.delete_client_tokens(unit, str(actor_id))))
