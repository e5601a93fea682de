"""Actors, and the client tokens of service accounts."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Response

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import (
    ActorIn,
    ActorOut,
    ActorType,
    ClientTokenCreated,
    ClientTokenIn,
    ClientTokenOut,
    Data,
    Deleted,
    DeletedCount,
    Page,
)
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db.devices import last_seen_of_actors
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken
from wardgate.portal.services import actors, tokens

router = APIRouter(tags=["Actors"])
ActorBody = Annotated[ActorIn, Body(embed=True)]


async def _shown(scope: Scope, rows: list[Actor]) -> list[ActorOut]:
    seen = await last_seen_of_actors(scope, [row.id for row in rows])
    names = [name for name in ActorOut.model_fields if name != "last_seen_at"]
    values: list[dict[str, Any]] = [{name: getattr(row, name) for name in names} for row in rows]
    return [ActorOut.model_validate({**one, "last_seen_at": seen.get(str(one["id"]))}) for one in values]


@router.get("/actors")
async def list_actors(
    caller: Authenticated,
    place: Paged,
    name: str | None = None,
    email: str | None = None,
    type: ActorType | None = None,
) -> Page[ActorOut]:
    """Lists people, service accounts and API clients."""
    only = {"name": name, "email": email, "type": type}
    async with caller.db.scoped(caller.subject) as scope:
        found = await page_of(scope, Actor, place, lambda row: row, equal=only)
        return Page[ActorOut](data=await _shown(scope, found.data), metadata=found.metadata)


@router.get("/actors/{actor_id}")
async def read_actor(caller: Authenticated, actor_id: UUID) -> Data[ActorOut]:
    """Reads an actor."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=(await _shown(scope, [await scope.get(Actor, str(actor_id))]))[0])


@router.post("/actors", status_code=201)
async def create_actor(caller: Authenticated, actor: ActorBody, response: Response) -> Data[ActorOut]:
    """Makes a person or a service account."""
    async with caller.db.writing(caller.subject) as unit:
        row = await actors.create_actor(unit, actor.given())
        shown = await _shown(unit, [row])
    response.headers["Location"] = f"/actors/{row.id}"
    return Data(data=shown[0])


@router.patch("/actors/{actor_id}")
@router.put("/actors/{actor_id}", include_in_schema=False)
async def update_actor(caller: Authenticated, actor_id: UUID, actor: ActorBody) -> Data[ActorOut]:
    """Changes an actor; disabling one ends its tokens and sessions."""
    async with caller.db.writing(caller.subject) as unit:
        row = await actors.update_actor(unit, str(actor_id), actor.given())
        return Data(data=(await _shown(unit, [row]))[0])


@router.delete("/actors/{actor_id}")
async def delete_actor(caller: Authenticated, actor_id: UUID) -> Data[ActorOut]:
    """Deletes an actor with its tokens, devices, memberships and grants."""
    async with caller.db.writing(caller.subject) as unit:
        shown = await _shown(unit, [await unit.get(Actor, str(actor_id))])
        await actors.delete_actor(unit, str(actor_id))
    return Data(data=shown[0])


@router.get("/actors/{actor_id}/client_tokens")
async def list_client_tokens(caller: Authenticated, actor_id: UUID, place: Paged) -> Page[ClientTokenOut]:
    """Lists an actor's client tokens, newest first."""
    async with caller.db.scoped(caller.subject) as scope:
        await scope.get(Actor, str(actor_id))
        shown = ClientTokenOut.model_validate
        only = {"actor_id": str(actor_id)}
        return await page_of(scope, ClientToken, place, shown, descending=True, equal=only)


@router.get("/actors/{actor_id}/client_tokens/{token_id}")
async def read_client_token(caller: Authenticated, actor_id: UUID, token_id: UUID) -> Data[ClientTokenOut]:
    """Reads a client token's metadata."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(
            data=ClientTokenOut.model_validate(await tokens.get_client_token(scope, str(actor_id), str(token_id)))
        )


@router.post("/actors/{actor_id}/client_tokens", status_code=201)
async def create_client_token(
    caller: Authenticated, actor_id: UUID, client_token: Annotated[ClientTokenIn, Body(embed=True)]
) -> Data[ClientTokenCreated]:
    """Makes a service account's token; it is in this answer only."""
    async with caller.db.writing(caller.subject) as unit:
        actor = await unit.get(Actor, str(actor_id))
        if actor.type != "service_account":
            raise BadRequest("client tokens are made for service accounts only")
        issued = await tokens.create_client_token(unit, actor.id, {"expires_at": client_token.expires_at})
    shown = ClientTokenOut.model_validate(issued.row)
    return Data(data=ClientTokenCreated(**shown.model_dump(), token=issued.text))


@router.delete("/actors/{actor_id}/client_tokens/{token_id}")
async def delete_client_token(caller: Authenticated, actor_id: UUID, token_id: UUID) -> Data[Deleted]:
    """Revokes a token; clients that joined with it are signed out at once."""
    async with caller.db.writing(caller.subject) as unit:
        await tokens.delete_client_token(unit, str(actor_id), str(token_id))
    return Data(data=Deleted(id=token_id))


@router.delete("/actors/{actor_id}/client_tokens")
async def delete_client_tokens(caller: Authenticated, actor_id: UUID) -> Data[DeletedCount]:
    """Revokes all tokens of an actor."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=DeletedCount(deleted_count=await tokens.delete_client_tokens(unit, str(actor_id))))
