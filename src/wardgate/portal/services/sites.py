"""Sites and their gateways."""

from collections.abc import Mapping
from typing import Any

from wardgate.errors import Forbidden, NotFound
from wardgate.portal.db.devices import create_device, short_name
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Device, Site
from wardgate.portal.domain import checks
from wardgate.portal.services import limits


async def create_site(unit: UnitOfWork, fields: Mapping[str, Any]) -> Site:
    """Makes a site.

    Raises:
        InvalidInput: The name is not acceptable or taken.
        Forbidden: The account is disabled, or its plan has no room.
    """
    await limits.check_open(unit)
    site = Site(account_id=unit.account_id, **_check(fields))
    await limits.check_room(unit, ["sites"])
    await unit.insert(site, unique="name")
    return site


async def update_site(unit: UnitOfWork, site_id: str, fields: Mapping[str, Any]) -> Site:
    """Renames a site, or changes how many gateways it needs to be healthy (`health_threshold`).

    Raises:
        NotFound: There is no such site.
        Forbidden: It is the system's.
        InvalidInput: The name is not acceptable or taken.
    """
    site = await _editable(unit, site_id)
    await unit.update(site, unique="name", **_check({"name": site.name, **fields}))
    return site


def _check(fields: Mapping[str, Any]) -> dict[str, Any]:
    problems = checks.Problems()
    values: dict[str, Any] = {"name": checks.text(problems, fields, "name", most=64)}
    if "health_threshold" in fields:
        values["health_threshold"] = checks.number(problems, fields, "health_threshold", least=1, most=1000)
    problems.raise_if_any()
    return values


async def delete_site(unit: UnitOfWork, site_id: str) -> Site:
    """Removes a site with its gateways, their tokens and its resources.

    Raises:
        NotFound: There is no such site.
        Forbidden: It is the system's.
    """
    site = await _editable(unit, site_id)
    await unit.delete(site)
    return site


async def _editable(unit: UnitOfWork, site_id: str) -> Site:
    site = await unit.get(Site, site_id)
    if site.managed_by == "system":
        raise Forbidden("the Internet site is managed by the system", "system_managed")
    return site


async def create_gateway(unit: UnitOfWork, site_id: str, fields: Mapping[str, Any]) -> Device:
    """Makes a gateway before it first connects; without a name it gets five random letters.

    Raises:
        NotFound: There is no such site.
        InvalidInput: The name is not acceptable.
    """
    await limits.check_open(unit)
    site = await unit.get(Site, site_id)
    problems = checks.Problems()
    name = checks.text(problems, fields, "name") if "name" in fields else short_name()
    problems.raise_if_any()
    return await create_device(unit, type="gateway", site_id=site.id, name=name)


async def get_gateway(scope: Scope, site_id: str, gateway_id: str) -> Device:
    """A gateway of that site.

    Raises:
        NotFound: There is none.
    """
    device = await scope.get(Device, gateway_id)
    if device.type != "gateway" or device.site_id != site_id.lower():
        raise NotFound(f"the site has no gateway {gateway_id}")
    return device


async def update_gateway(unit: UnitOfWork, site_id: str, gateway_id: str, fields: Mapping[str, Any]) -> Device:
    """Renames a gateway.

    Raises:
        NotFound: The site has no such gateway.
        InvalidInput: The name is not acceptable.
    """
    device = await get_gateway(unit, site_id, gateway_id)
    problems = checks.Problems()
    name = checks.text(problems, fields, "name")
    problems.raise_if_any()
    await unit.update(device, name=name)
    return device


async def delete_gateway(unit: UnitOfWork, site_id: str, gateway_id: str) -> Device:
    """Removes a gateway with its tokens; it is disconnected.

    Raises:
        NotFound: The site has no such gateway.
    """
    device = await get_gateway(unit, site_id, gateway_id)
    await unit.delete(device)
    return device
