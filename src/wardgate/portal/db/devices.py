"""Devices: found or made when they connect, and their tunnel addresses."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from wardgate.errors import Conflict, InvalidInput
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.sealing import seal
from wardgate.portal.db.tables import Actor, ChangeLog, ClientToken, Device, GatewayToken, new_id
from wardgate.portal.domain.subjects import Location
from wardgate.portal.domain.tunnel_ips import ipv4_candidates, ipv6_candidates

HARDWARE_IDS: Final = ("device_serial", "device_uuid", "identifier_for_vendor", "firebase_installation_id")
_PROBE: Final = 64
_MAX_COLLISIONS: Final = 10
_MAX_PROBES: Final = 2**21 // _PROBE


@dataclass(frozen=True, slots=True)
class Connecting:
    """What a device says of itself when it connects, and from where."""

    public_key: str
    user_agent: str
    version: str | None
    remote_ip: str | None
    location: Location
    name: str | None
    firezone_id: str | None
    hardware_ids: tuple[tuple[str, str], ...]
    token_id: str
    at: datetime


async def find_client(unit: UnitOfWork, actor_id: str, firezone_id: str) -> Device | None:
    """The actor's device with that self-reported id."""
    known = unit.shared.get(read_connecting) if unit.shared is not None else None
    if known is not None and (actor_id, firezone_id) in known:
        device: Device = known[actor_id, firezone_id]
        return device
    query = unit.select(Device).where(Device.actor_id == actor_id, Device.firezone_id == firezone_id)
    return (await unit.session.scalars(query)).one_or_none()


async def read_connecting(
    unit: UnitOfWork, connects: Sequence[tuple[str, str | None]]
) -> dict[tuple[str, str], Device]:
    """The devices of clients that connect, given as token and self-reported id; by actor and self-reported id.

    Their tokens and actors are read as well, so that whoever needs them next finds them without asking the database.
    """
    token_ids = {token_id for token_id, _ in connects}
    query = (
        select(ClientToken, Actor)
        .join(Actor, and_(Actor.account_id == ClientToken.account_id, Actor.id == ClientToken.actor_id))
        .where(ClientToken.account_id == unit.account_id, ClientToken.id.in_(token_ids))
    )
    owners = (await unit.session.execute(query)).all()
    unit.keep(owners)
    named = {external_id for _, external_id in connects if external_id is not None}
    actor_ids = {actor.id for _, actor in owners}
    found = await unit.all(unit.select(Device).where(Device.actor_id.in_(actor_ids), Device.firezone_id.in_(named)))
    return {(device.actor_id or "", device.firezone_id or ""): device for device in found}


async def find_by_address(scope: Scope, address: str) -> Device | None:
    """The client with that tunnel address."""
    query = scope.select(Device).where(Device.type == "client", or_(Device.ipv4 == address, Device.ipv6 == address))
    return (await scope.session.scalars(query)).one_or_none()


async def find_by_hostname(scope: Scope, hostname: str) -> Device | None:
    """The client with that host name."""
    query = scope.select(Device).where(Device.type == "client", Device.hostname == hostname)
    return (await scope.session.scalars(query)).one_or_none()


async def find_gateway(unit: UnitOfWork, site_id: str, firezone_id: str) -> Device | None:
    """The site's gateway with that self-reported id."""
    query = unit.select(Device).where(Device.site_id == site_id, Device.firezone_id == firezone_id)
    return (await unit.session.scalars(query)).one_or_none()


async def create_device(unit: UnitOfWork, *, start: int | None = None, **columns: Any) -> Device:
    """A new device with tunnel addresses of its own; or the one that another portal made of it in the same moment.

    Args:
        start: Which address to try first, instead of a random one.

    Raises:
        Conflict: The account's address pool is used up.
    """
    start = secrets.randbelow(2**21) if start is None else start
    for _ in range(_MAX_COLLISIONS):
        device_id = new_id()
        device = Device(
            account_id=unit.account_id,
            id=device_id,
            ipv4=await _free(unit, Device.ipv4, ipv4_candidates(start)),
            ipv6=await _free(unit, Device.ipv6, ipv6_candidates(start)),
            psk_base=seal(unit.keyring, secrets.token_bytes(32), Device, "psk_base", device_id),
            **columns,
        )
        try:
            await unit.insert(device, unique="address")
        except InvalidInput:
            # Another portal took the address, or made the device.
            made = await _same(unit, device)
            if made is not None:
                return made
            start = secrets.randbelow(2**21)
        else:
            return device
    raise Conflict("no tunnel address could be had: too many devices are made at once")


async def _same(unit: UnitOfWork, device: Device) -> Device | None:
    if device.firezone_id is None:
        return None
    if device.actor_id is not None:
        return await find_client(unit, device.actor_id, device.firezone_id)
    return await find_gateway(unit, device.site_id or "", device.firezone_id)


async def _free(unit: UnitOfWork, column: InstrumentedAttribute[str], candidates: Iterator[str]) -> str:
    for _ in range(_MAX_PROBES):
        some = list(islice(candidates, _PROBE))
        query = select(column).where(Device.account_id == unit.account_id, column.in_(some))
        taken = set((await unit.session.scalars(query)).all())
        for address in some:
            if address not in taken:
                return address
    raise Conflict("all tunnel addresses of the account are taken", "addresses_used_up")


async def record_session(unit: UnitOfWork, device: Device, seen: Connecting) -> None:
    """Keeps what a device connected with; no change event comes of it."""
    columns: dict[str, Any] = {
        "public_key": seen.public_key,
        "last_seen_user_agent": seen.user_agent[:255],
        "last_seen_remote_ip": seen.remote_ip,
        "last_seen_remote_ip_location_region": seen.location.region,
        "last_seen_remote_ip_location_city": seen.location.city,
        "last_seen_remote_ip_location_lat": seen.location.lat,
        "last_seen_remote_ip_location_lon": seen.location.lon,
        "last_seen_version": seen.version,
        "last_seen_at": seen.at,
        **dict(seen.hardware_ids),
    }
    columns["client_token_id" if device.type == "client" else "gateway_token_id"] = seen.token_id
    await unit.update(device, silent=True, **columns)


def short_name(choose: Callable[[str], str] = secrets.choice) -> str:
    """Five random letters, for a gateway that gave no name."""
    return "".join(choose("abcdefghijklmnopqrstuvwxyz") for _ in range(5))


async def latest_client(scope: Scope, actor_id: str) -> Device | None:
    """The client that the actor connected with last."""
    query = (
        scope.select(Device)
        .where(Device.actor_id == actor_id, Device.last_seen_at.is_not(None))
        .order_by(Device.last_seen_at.desc(), Device.id)
        .limit(1)
    )
    return (await scope.session.scalars(query)).one_or_none()


async def last_seen_of_actors(scope: Scope, actor_ids: Sequence[str]) -> dict[str, datetime]:
    """When each actor's clients last connected."""
    query = (
        select(Device.actor_id, func.max(Device.last_seen_at))
        .where(Device.account_id == scope.account_id, Device.actor_id.in_(actor_ids))
        .group_by(Device.actor_id)
    )
    return {actor_id: at for actor_id, at in (await scope.session.execute(query)).all() if actor_id and at is not None}


async def ids_of_clients(scope: Scope, actor_ids: Iterable[str]) -> dict[str, list[str]]:
    """The clients of each actor."""
    wanted = sorted(actor_ids)
    query = select(Device.actor_id, Device.id).where(
        Device.account_id == scope.account_id, Device.actor_id.in_(wanted), Device.type == "client"
    )
    found: dict[str, list[str]] = {}
    for actor_id, device_id in (await scope.session.execute(query.order_by(Device.id))).all():
        if actor_id is not None:
            found.setdefault(actor_id, []).append(device_id)
    return found


async def verified_as_of(scope: Scope, device: Device, at: datetime) -> datetime | None:
    """Since when the device was verified at another time, by the change log; `None` if it was not."""
    query = (
        select(ChangeLog.operation, ChangeLog.before)
        .where(
            ChangeLog.account_id == scope.account_id,
            ChangeLog.object == Device.__tablename__,
            ChangeLog.timestamp > at,
            or_(ChangeLog.before["id"].as_string() == device.id, ChangeLog.after["id"].as_string() == device.id),
        )
        .order_by(ChangeLog.timestamp, ChangeLog.log_id)
        .limit(1)
    )
    found = (await scope.session.execute(query)).one_or_none()
    if found is None:
        return device.verified_at
    verified_at = found.before["verified_at"] if found.before else None
    return datetime.fromisoformat(verified_at) if verified_at else None


async def rotated_at_of_tokens(scope: Scope, token_ids: Sequence[str]) -> dict[str, datetime | None]:
    """Since when each of some gateway tokens is being replaced, if it is."""
    query = select(GatewayToken.id, GatewayToken.rotated_at).where(
        GatewayToken.account_id == scope.account_id, GatewayToken.id.in_(token_ids)
    )
    return {row[0]: row[1] for row in await scope.session.execute(query)}
