"""Clients as an admin changes them."""

from collections.abc import Mapping
from typing import Any

from wardgate.errors import NotFound
from wardgate.portal.db.authorizations import delete_where
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Device
from wardgate.portal.domain import checks


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


async def set_verified(unit: UnitOfWork, client_id: str, is_verified: bool) -> Device:
    """Marks a client as verified, or takes that back, which ends the grants it asked for. Idempotent.

    Raises:
        NotFound: There is no such client.
    """
    device = await get_client(unit, client_id)
    if is_verified == (device.verified_at is not None):
        return device
    if not is_verified:
        await delete_where(unit, initiating_device_id=device.id)
    await unit.update(device, verified_at=unit.at if is_verified else None)
    return device


async def delete_client(unit: UnitOfWork, client_id: str) -> Device:
    """Removes a client; it comes back as a new one if its token still works.

    Raises:
        NotFound: There is no such client.
    """
    device = await get_client(unit, client_id)
    await unit.delete(device)
    return device
