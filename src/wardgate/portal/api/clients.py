"""People's devices."""

from typing import Annotated

from fastapi import APIRouter, Body

from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.context import Authenticated, Caller
from wardgate.portal.api.lists import NamedPaged, page_of
from wardgate.portal.api.objects import ClientIn, ClientOut, Data, Id, Page
from wardgate.portal.api.routing import updates
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device
from wardgate.portal.services import devices

router = APIRouter(tags=["Clients"])


def _shown(caller: Caller, row: Device) -> ClientOut:
    values = {name: getattr(row, name) for name in ClientOut.model_fields if hasattr(row, name)}
    online = caller.context.presence.is_online(AccountId(row.account_id), DeviceId(row.id))
    return ClientOut.model_validate({**values, "online": online, "created_at": row.inserted_at})


async def _one(caller: Caller, scope: Scope, client_id: Id) -> ClientOut:
    return _shown(caller, await devices.get_client(scope, str(client_id)))


@router.get("/clients")
async def list_clients(
    caller: Authenticated,
    place: NamedPaged,
    name: str | None = None,
    firezone_id: str | None = None,
    actor_id: Id | None = None,
    verified: bool | None = None,
) -> Page[ClientOut]:
    """Lists clients."""
    only = {"type": "client", "name": name, "firezone_id": firezone_id, "actor_id": actor_id}
    where = [] if verified is None else [Device.verified_at.is_not(None) if verified else Device.verified_at.is_(None)]
    async with caller.reading() as scope:
        return await page_of(scope, Device, place, lambda row: _shown(caller, row), where=where, equal=only)


@router.get("/clients/{client_id}")
async def read_client(caller: Authenticated, client_id: Id) -> Data[ClientOut]:
    """Reads a client."""
    async with caller.reading() as scope:
        return caller.found(await _one(caller, scope, client_id))


@updates(router, "/clients/{client_id}")
async def update_client(
    caller: Authenticated, client_id: Id, client: Annotated[ClientIn, Body(embed=True)]
) -> Data[ClientOut]:
    """Renames a client."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(caller, unit, client_id))
        row = await devices.update_client(unit, str(client_id), client.given())
    return caller.found(_shown(caller, row))


@router.put("/clients/{client_id}/verify")
async def verify_client(caller: Authenticated, client_id: Id) -> Data[ClientOut]:
    """Marks a client as verified."""
    return await _set_verified(caller, client_id, True)


@router.put("/clients/{client_id}/unverify")
async def unverify_client(caller: Authenticated, client_id: Id) -> Data[ClientOut]:
    """Takes the mark back, which ends what the client was granted."""
    return await _set_verified(caller, client_id, False)


async def _set_verified(caller: Caller, client_id: Id, is_verified: bool) -> Data[ClientOut]:
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(caller, unit, client_id))
        row = await devices.set_verified(unit, str(client_id), is_verified)
    return caller.found(_shown(caller, row))


@router.delete("/clients/{client_id}")
async def delete_client(caller: Authenticated, client_id: Id) -> Data[ClientOut]:
    """Deletes a client; it registers anew if its token still works."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(caller, unit, client_id))
        return Data(data=_shown(caller, await devices.delete_client(unit, str(client_id))))
