"""Sites, their gateways, and the tokens of both."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Final

from fastapi import APIRouter, Body

from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.context import Authenticated, Caller
from wardgate.portal.api.lists import NamedPaged, page_of, shown_page_of
from wardgate.portal.api.objects import (
    Data,
    Deleted,
    DeletedCount,
    GatewayIn,
    GatewayOut,
    GatewayProvisioned,
    Id,
    Page,
    SiteIn,
    SiteNew,
    SiteOut,
    TokenCreated,
)
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.api.routing import updates
from wardgate.portal.db.devices import rotated_at_of_tokens
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, Site
from wardgate.portal.services import sites, tokens

router = APIRouter(tags=["Sites"])
SITE_TOKENS_SUNSET: Final = "Thu, 01 Oct 2026 00:00:00 GMT"


async def _one(scope: Scope, site_id: Id) -> SiteOut:
    return SiteOut.model_validate(await scope.get(Site, str(site_id)))


@router.get("/sites")
async def list_sites(caller: Authenticated, place: NamedPaged, name: str | None = None) -> Page[SiteOut]:
    """Lists sites."""
    async with caller.reading() as scope:
        return await page_of(scope, Site, place, SiteOut.model_validate, equal={"name": name})


@router.get("/sites/{site_id}")
async def read_site(caller: Authenticated, site_id: Id) -> Data[SiteOut]:
    """Reads a site."""
    async with caller.reading() as scope:
        return caller.found(await _one(scope, site_id))


@router.post("/sites", status_code=201)
async def create_site(caller: Authenticated, site: Annotated[SiteNew, Body(embed=True)]) -> Data[SiteOut]:
    """Makes a site."""
    async with caller.writing() as unit:
        row = await sites.create_site(unit, site.given())
    return caller.created(SiteOut.model_validate(row), f"/sites/{row.id}")


@updates(router, "/sites/{site_id}")
async def update_site(caller: Authenticated, site_id: Id, site: Annotated[SiteIn, Body(embed=True)]) -> Data[SiteOut]:
    """Renames a site."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, site_id))
        row = await sites.update_site(unit, str(site_id), site.given())
    return caller.found(SiteOut.model_validate(row))


@router.delete("/sites/{site_id}")
async def delete_site(caller: Authenticated, site_id: Id) -> Data[SiteOut]:
    """Deletes a site with its gateways, tokens and resources."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, site_id))
        return Data(data=SiteOut.model_validate(await sites.delete_site(unit, str(site_id))))


async def _shown(caller: Caller, scope: Scope, rows: Sequence[Device]) -> list[GatewayOut]:
    rotated = await rotated_at_of_tokens(scope, [row.gateway_token_id for row in rows if row.gateway_token_id])
    names = [name for name in GatewayOut.model_fields if name not in ("online", "rotated_at")]
    shown = []
    for row in rows:
        online = caller.context.presence.is_online(AccountId(row.account_id), DeviceId(row.id))
        values = {name: getattr(row, name) for name in names}
        more = {"online": online, "rotated_at": rotated.get(row.gateway_token_id or "")}
        shown.append(GatewayOut.model_validate({**values, **more}))
    return shown


async def _gateway(caller: Caller, scope: Scope, site_id: Id, gateway_id: Id) -> GatewayOut:
    return (await _shown(caller, scope, [await sites.get_gateway(scope, str(site_id), str(gateway_id))]))[0]


@router.get("/sites/{site_id}/gateways")
async def list_gateways(
    caller: Authenticated,
    site_id: Id,
    place: NamedPaged,
    name: str | None = None,
    ipv4: IPv4Address | None = None,
    ipv6: IPv6Address | None = None,
) -> Page[GatewayOut]:
    """Lists a site's gateways."""
    only = {"type": "gateway", "site_id": str(site_id), "name": name, "ipv4": ipv4, "ipv6": ipv6}
    async with caller.reading() as scope:
        await scope.get(Site, str(site_id))
        return await shown_page_of(scope, Device, place, lambda scope, rows: _shown(caller, scope, rows), equal=only)


@router.get("/sites/{site_id}/gateways/{gateway_id}")
async def read_gateway(caller: Authenticated, site_id: Id, gateway_id: Id) -> Data[GatewayOut]:
    """Reads a gateway."""
    async with caller.reading() as scope:
        return caller.found(await _gateway(caller, scope, site_id, gateway_id))


@router.post("/sites/{site_id}/gateways", status_code=201)
async def provision_gateway(
    caller: Authenticated,
    site_id: Id,
    gateway: Annotated[GatewayIn | None, Body(embed=True)] = None,
) -> Data[GatewayProvisioned]:
    """Makes a gateway ahead of its first connect; its token is in this answer only."""
    async with caller.writing() as unit:
        row = await sites.create_gateway(unit, str(site_id), gateway.given() if gateway else {})
        issued = await tokens.create_gateway_token(unit, row.id)
        shown = (await _shown(caller, unit, [row]))[0]
    caller.created(shown, f"/sites/{site_id}/gateways/{row.id}")
    values = {name: getattr(shown, name) for name in GatewayOut.model_fields}
    return Data(data=GatewayProvisioned(**values, token=issued.text))


@updates(router, "/sites/{site_id}/gateways/{gateway_id}")
async def update_gateway(
    caller: Authenticated, site_id: Id, gateway_id: Id, gateway: Annotated[GatewayIn, Body(embed=True)]
) -> Data[GatewayOut]:
    """Renames a gateway."""
    if "name" not in gateway.given():
        raise BadRequest("gateway.name is needed.")
    async with caller.writing() as unit:
        await caller.expect(lambda: _gateway(caller, unit, site_id, gateway_id))
        row = await sites.update_gateway(unit, str(site_id), str(gateway_id), gateway.given())
        shown = (await _shown(caller, unit, [row]))[0]
    return caller.found(shown)


@router.delete("/sites/{site_id}/gateways/{gateway_id}")
async def delete_gateway(caller: Authenticated, site_id: Id, gateway_id: Id) -> Data[GatewayOut]:
    """Deletes a gateway with its tokens."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _gateway(caller, unit, site_id, gateway_id))
        shown = await _gateway(caller, unit, site_id, gateway_id)
        await sites.delete_gateway(unit, str(site_id), str(gateway_id))
    return Data(data=shown)


@router.post("/sites/{site_id}/gateways/{gateway_id}/token", status_code=201)
async def create_gateway_token(caller: Authenticated, site_id: Id, gateway_id: Id) -> Data[TokenCreated]:
    """Makes a gateway's first token."""
    async with caller.writing() as unit:
        await sites.get_gateway(unit, str(site_id), str(gateway_id))
        issued = await tokens.create_gateway_token(unit, str(gateway_id))
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.post("/sites/{site_id}/gateways/{gateway_id}/token/rotate", status_code=201)
async def rotate_gateway_token(caller: Authenticated, site_id: Id, gateway_id: Id) -> Data[TokenCreated]:
    """Makes another token; the old one works until the new one is used, at most four hours."""
    async with caller.writing() as unit:
        await sites.get_gateway(unit, str(site_id), str(gateway_id))
        issued = await tokens.rotate_gateway_token(unit, str(gateway_id))
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.post("/sites/{site_id}/gateway_tokens", status_code=201, deprecated=True)
async def create_site_token(caller: Authenticated, site_id: Id) -> Data[TokenCreated]:
    """Makes a token for any number of gateways of a site."""
    async with caller.writing() as unit:
        issued = await tokens.create_site_token(unit, str(site_id))
    caller.deprecated(SITE_TOKENS_SUNSET)
    return Data(data=TokenCreated(id=issued.row.id, token=issued.text))


@router.delete("/sites/{site_id}/gateway_tokens/{token_id}")
async def delete_gateway_token(caller: Authenticated, site_id: Id, token_id: Id) -> Data[Deleted]:
    """Revokes a token of the site or of one of its gateways; whoever joined with it is disconnected."""
    async with caller.writing() as unit:
        await tokens.delete_gateway_token(unit, str(site_id), str(token_id))
    return Data(data=Deleted(id=token_id))


@router.delete("/sites/{site_id}/gateway_tokens")
async def delete_site_tokens(caller: Authenticated, site_id: Id) -> Data[DeletedCount]:
    """Revokes all tokens that serve any gateway of the site."""
    async with caller.writing() as unit:
        return Data(data=DeletedCount(deleted_count=await tokens.delete_site_tokens(unit, str(site_id))))
