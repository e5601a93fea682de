"""Sites, their gateways, and the tokens of both."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Response

from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.context import Authenticated, Caller
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import (
    Data,
    Deleted,
    DeletedCount,
    GatewayIn,
    GatewayOut,
    GatewayProvisioned,
    Page,
    SiteIn,
    SiteOut,
    TokenCreated,
)
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, GatewayToken, Site
from wardgate.portal.services import sites, tokens

router = APIRouter(tags=["Sites"])
SiteBody = Annotated[SiteIn, Body(embed=True)]
GatewayBody = Annotated[GatewayIn, Body(embed=True)]


@router.get("/sites")
async def list_sites(caller: Authenticated, place: Paged, name: str | None = None) -> Page[SiteOut]:
    """Lists sites."""
    async with caller.db.scoped(caller.subject) as scope:
        return await page_of(scope, Site, place, SiteOut.model_validate, equal={"name": name})


@router.get("/sites/{site_id}")
async def read_site(caller: Authenticated, site_id: UUID) -> Data[SiteOut]:
    """Reads a site."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=SiteOut.model_validate(await scope.get(Site, str(site_id))))


@router.post("/sites", status_code=201)
async def create_site(caller: Authenticated, site: SiteBody, response: Response) -> Data[SiteOut]:
    """Makes a site."""
    async with caller.db.writing(caller.subject) as unit:
        row = await sites.create_site(unit, site.given())
    response.headers["Location"] = f"/sites/{row.id}"
    return Data(data=SiteOut.model_validate(row))


@router.patch("/sites/{site_id}")
@router.put("/sites/{site_id}", include_in_schema=False)
async def update_site(caller: Authenticated, site_id: UUID, site: SiteBody) -> Data[SiteOut]:
    """Renames a site."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=SiteOut.model_validate(await sites.update_site(unit, str(site_id), site.given())))


@router.delete("/sites/{site_id}")
async def delete_site(caller: Authenticated, site_id: UUID) -> Data[SiteOut]:
    """Deletes a site with its gateways, tokens and resources."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=SiteOut.model_validate(await sites.delete_site(unit, str(site_id))))


async def _gateway(caller: Caller, scope: Scope, row: Device) -> GatewayOut:
    token = await scope.find(GatewayToken, row.gateway_token_id) if row.gateway_token_id else None
    online = caller.context.presence.is_online(AccountId(row.account_id), DeviceId(row.id))
    values = {name: getattr(row, name) for name in GatewayOut.model_fields if name not in ("online", "rotated_at")}
    return GatewayOut.model_validate({**values, "online": online, "rotated_at": token.rotated_at if token else None})


@router.get("/sites/{site_id}/gateways")
async def list_gateways(
    caller: Authenticated,
    site_id: UUID,
    place: Paged,
    name: str | None = None,
    ipv4: str | None = None,
    ipv6: str | None = None,
) -> Page[GatewayOut]:
    """Lists a site's gateways."""
    async with caller.db.scoped(caller.subject) as scope:
        await scope.get(Site, str(site_id))
        only = {"type": "gateway", "site_id": str(site_id), "name": name, "ipv4": ipv4, "ipv6": ipv6}
        found = await page_of(scope, Device, place, lambda row: row, equal=only)
        items = [await _gateway(caller, scope, row) for row in found.data]
        return Page[GatewayOut](data=items, metadata=found.metadata)


@router.get("/sites/{site_id}/gateways/{gateway_id}")
async def read_gateway(caller: Authenticated, site_id: UUID, gateway_id: UUID) -> Data[GatewayOut]:
    """Reads a gateway."""
    async with caller.db.scoped(caller.subject) as scope:
        row = await sites.get_gateway(scope, str(site_id), str(gateway_id))
        return Data(data=await _gateway(caller, scope, row))


@router.post("/sites/{site_id}/gateways", status_code=201)
async def provision_gateway(
    caller: Authenticated,
    site_id: UUID,
    response: Response,
    gateway: Annotated[GatewayIn | None, Body(embed=True)] = None,
) -> Data[GatewayProvisioned]:
    """Makes a gateway ahead of its first connect; its token is in this answer only."""
    async with caller.db.writing(caller.subject) as unit:
        row = await sites.create_gateway(unit, str(site_id), gateway.given() if gateway else {})
        issued = await tokens.create_gateway_token(unit, row.id)
        shown = await _gateway(caller, unit, row)
    response.headers["Location"] = f"/sites/{site_id}/gateways/{row.id}"
    return Data(data=GatewayProvisioned(**shown.model_dump(), token=issued.text))


@router.patch("/sites/{site_id}/gateways/{gateway_id}")
@router.put("/sites/{site_id}/gateways/{gateway_id}", include_in_schema=False)
async def update_gateway(
    caller: Authenticated, site_id: UUID, gateway_id: UUID, gateway: GatewayBody
) -> Data[GatewayOut]:
    """Renames a gateway."""
    if gateway.name is None:
        raise BadRequest("gateway.name: it is needed")
    async with caller.db.writing(caller.subject) as unit:
        row = await sites.update_gateway(unit, str(site_id), str(gateway_id), gateway.given())
        return Data(data=await _gateway(caller, unit, row))


@router.delete("/sites/{site_id}/gateways/{gateway_id}")
async def delete_gateway(caller: Authenticated, site_id: UUID, gateway_id: UUID) -> Data[GatewayOut]:
    """Deletes a gateway with its tokens."""
    async with caller.db.writing(caller.subject) as unit:
        row = await sites.get_gateway(unit, str(site_id), str(gateway_id))
        shown = await _gateway(caller, unit, row)
        await sites.delete_gateway(unit, str(site_id), str(gateway_id))
    return Data(data=shown)


@router.post("/sites/{site_id}/gateways/{gateway_id}/token", status_code=201)
async def create_gateway_token(caller: Authenticated, site_id: UUID, gateway_id: UUID) -> Data[TokenCreated]:
    """Makes a gateway's first token."""
    async with caller.db.writing(caller.subject) as unit:
        await sites.get_gateway(unit, str(site_id), str(gateway_id))
        issued = await tokens.create_gateway_token(unit, str(gateway_id))
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.post("/sites/{site_id}/gateways/{gateway_id}/token/rotate", status_code=201)
async def rotate_gateway_token(caller: Authenticated, site_id: UUID, gateway_id: UUID) -> Data[TokenCreated]:
    """Makes another token; the old one works until the new one is used, at most four hours."""
    async with caller.db.writing(caller.subject) as unit:
        await sites.get_gateway(unit, str(site_id), str(gateway_id))
        issued = await tokens.rotate_gateway_token(unit, str(gateway_id))
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.post("/sites/{site_id}/gateway_tokens", status_code=201, deprecated=True)
async def create_site_token(caller: Authenticated, site_id: UUID, response: Response) -> Data[TokenCreated]:
    """Makes a token for any number of gateways of a site."""
    async with caller.db.writing(caller.subject) as unit:
        issued = await tokens.create_site_token(unit, str(site_id))
    response.headers["Deprecation"] = "true"
    response.headers["Sunset"] = "Thu, 01 Oct 2026 00:00:00 GMT"
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.delete("/sites/{site_id}/gateway_tokens/{token_id}")
async def delete_gateway_token(caller: Authenticated, site_id: UUID, token_id: UUID) -> Data[Deleted]:
    """Revokes a token of the site or of one of its gateways; whoever joined with it is disconnected."""
    async with caller.db.writing(caller.subject) as unit:
        await tokens.delete_gateway_token(unit, str(site_id), str(token_id))
    return Data(data=Deleted(id=token_id))


@router.delete("/sites/{site_id}/gateway_tokens")
async def delete_site_tokens(caller: Authenticated, site_id: UUID) -> Data[DeletedCount]:
    """Revokes all tokens that serve any gateway of the site."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=DeletedCount(deleted_count=await tokens.delete_site_tokens(unit, str(site_id))))
