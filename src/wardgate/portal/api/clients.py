"""People's devices."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body

from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.context import Authenticated, Caller
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import ClientIn, ClientOut, Data, Page
from wardgate.portal.db.tables import Device
from wardgate.portal.services import devices

router = APIRouter(tags=["Clients"])


def _shown(caller: Caller, row: Device) -> ClientOut:
    values = {name: getattr(row, name) for name in ClientOut.model_fields if name not in ("online", "created_at")}
    online = caller.context.presence.is_online(AccountId(row.account_id), DeviceId(row.id))
    return ClientOut.model_validate({**values, "online": online, "created_at": row.inserted_at})


@router.get("/clients")
async def list_clients(
    caller: Authenticated, place: Paged, name: str | None = None, firezone_id: str | None = None
) -> Page[ClientOut]:
    """Lists clients."""
    async with caller.db.scoped(caller.subject) as scope:
        only = {"type": "client", "name": name, "firezone_id": firezone_id}
        return await page_of(scope, Device, place, lambda row: _shown(caller, row), equal=only)


@router.get("/clients/{client_id}")
async def read_client(caller: Authenticated, client_id: UUID) -> Data[ClientOut]:
    """Reads a client."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=_shown(caller, await devices.get_client(scope, str(client_id))))


@router.patch("/clients/{client_id}")
@router.put("/clients/{client_id}", include_in_schema=False)
async def update_client(
    caller: Authenticated, client_id: UUID, client: Annotated[ClientIn, Body(embed=True)]
) -> Data[ClientOut]:
    """Renames a client."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(caller, await devices.update_client(unit, str(client_id), client.given())))


@router.put("/clients/{client_id}/verify")
async def verify_client(caller: Authenticated, client_id: UUID) -> Data[ClientOut]:
    """Marks a client as verified."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(caller, await devices.set_verified(unit, str(client_id), True)))


@router.put("/clients/{client_id}/unverify")
async def unverify_client(caller: Authenticated, client_id: UUID) -> Data[ClientOut]:
    """Takes the mark back, which ends what the client was granted."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(caller, await devices.set_verified(unit, str(client_id), False)))


@router.delete("/clients/{client_id}")
async def delete_client(caller: Authenticated, client_id: UUID) -> Data[ClientOut]:
    """Deletes a client; it registers anew if its token still works."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(caller, await devices.delete_client(unit, str(client_id))))
