"""Clients as an admin changes them."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from wardgate.errors import NotFound
from wardgate.portal.db.authorizations import delete_where, grants_where
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Device
from wardgate.portal.domain import checks, tunnel_ips
from wardgate.portal.services.grants import redecide


async def get_client(scope: Scope, client_id: str) -> Device:
    """A client.

    Raises:
        NotFound: There is none with that id.
    """
    device = await scope.get(Device, client_id)
    if device.type != "client":
        raise NotFound(f"there is no client {client_id}")
    return device


async def update_client(unit: UnitOfWork, client_id: str, fields: Mapping[str, Any]) -> Device:
    """Renames a client, or gives it a host name for dynamic pools.

    Raises:
        NotFound: There is no such client.
        InvalidInput: A field is not acceptable, or the host name is taken.
    """
    device = await get_client(unit, client_id)
    problems = checks.Problems()
    values: dict[str, Any] = {"name": checks.text(problems, {"name": device.name, **fields}, "name")}
    if "hostname" in fields:
        values["hostname"] = checks.hostname(problems, fields)
    problems.raise_if_any()
    await unit.update(device, unique="hostname", **values)
    return device


async def change_addresses(unit: UnitOfWork, device_id: str, fields: Mapping[str, Any]) -> Device:
    """Gives a client or gateway other tunnel addresses; all grants to it and from it end, as they name the old ones.

    Raises:
        NotFound: There is no such device.
        InvalidInput: An address is not one of the tunnel's, or is taken.
    """
    device = await unit.get(Device, device_id)
    problems = checks.Problems()
    values: dict[str, Any] = {}
    for name, network in tunnel_ips.NETWORKS.items():
        if name in fields:
            values[name] = _tunnel_address(problems, name, network, fields[name])
    problems.raise_if_any()
    if all(values[name] == getattr(device, name) for name in values):
        return device
    for side in ("initiating_device_id", "receiving_device_id"):
        await delete_where(unit, **{side: device.id})
    for name, value in values.items():
        await unit.update(device, unique=name, **{name: value})
    return device


def _tunnel_address(problems: checks.Problems, name: str, network: IPv4Network | IPv6Network, value: Any) -> str:
    try:
        address = ip_address(str(value))
    except ValueError:
        problems.add(name, "is not an IP address")
        return ""
    if address not in network:
        problems.add(name, f"is not in {network}")
    return str(address)


async def set_verified(unit: UnitOfWork, client_id: str, is_verified: bool) -> Device:
    """Marks a client as verified, or takes that back, which ends its grants that need it. Idempotent.

    Raises:
        NotFound: There is no such client.
    """
    device = await get_client(unit, client_id)
    if is_verified == (device.verified_at is not None):
        return device
    await unit.update(device, verified_at=unit.at if is_verified else None)
    await redecide(unit, await grants_where(unit, initiating_device_id=device.id))
    return device


async def delete_client(unit: UnitOfWork, client_id: str) -> Device:
    """Removes a client; it comes back as a new one if its token still works.

    Raises:
        NotFound: There is no such client.
    """
    device = await get_client(unit, client_id)
    await unit.delete(device)
    return device
