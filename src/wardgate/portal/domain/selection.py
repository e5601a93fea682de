"""Which gateway serves a request, and which relays a device is given.

Source: portal-protocol section 8. `choose` picks one of several equal candidates; it is an argument so that the choice
can be repeated.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import asin, cos, radians, sin, sqrt
from typing import Final, TypeVar

from wardgate.ids import GatewayId, RelayId
from wardgate.portal.domain import versions
from wardgate.portal.domain.subjects import Location

_T = TypeVar("_T")
Choose = Callable[[Sequence[_T]], _T]
MAX_RELAYS: Final = 2
_EARTH_KM: Final = 6371.0


@dataclass(frozen=True, slots=True)
class OnlineGateway:
    """A gateway that is connected, as far as the choice goes."""

    id: GatewayId
    version: str | None
    location: Location = field(default_factory=Location)


@dataclass(frozen=True, slots=True)
class OnlineRelay:
    """A relay that is connected."""

    id: RelayId
    location: Location = field(default_factory=Location)


@dataclass(frozen=True, slots=True)
class NoGateway:
    """None can serve: `offline` or `version_mismatch`."""

    reason: str


def choose_gateway(
    online: Sequence[OnlineGateway],
    *,
    client_version: str | None,
    client_location: Location,
    connected: Collection[GatewayId],
    is_internet: bool,
    choose: Callable[[Sequence[OnlineGateway]], OnlineGateway],
) -> OnlineGateway | NoGateway:
    """The gateway for one request, out of those of the resource's site that are online."""
    if not online:
        return NoGateway("offline")
    fitting = [one for one in online if _is_fitting(one, client_version, is_internet)]
    if not fitting:
        return NoGateway("version_mismatch")
    fitting = [one for one in fitting if one.id in connected] or fitting
    if client_location.lat is not None and client_location.lon is not None:
        fitting = _newest(_nearest(fitting, client_location))
    return choose(sorted(fitting, key=lambda one: one.id))


def _is_fitting(gateway: OnlineGateway, client_version: str | None, is_internet: bool) -> bool:
    if is_internet and not (versions.has_internet(client_version) and versions.has_internet(gateway.version)):
        return False
    return versions.is_compatible(client_version, gateway.version)


def _nearest(gateways: Sequence[OnlineGateway], location: Location) -> list[OnlineGateway]:
    distances = [_distance_km(one.location, location) for one in gateways]
    least = min(distances)
    return [one for one, distance in zip(gateways, distances, strict=True) if distance == least]


def _newest(gateways: Sequence[OnlineGateway]) -> list[OnlineGateway]:
    newest = max(versions.parse(one.version) or (0, 0, 0) for one in gateways)
    return [one for one in gateways if (versions.parse(one.version) or (0, 0, 0)) == newest]


def choose_relays(
    online: Sequence[OnlineRelay],
    *,
    location: Location,
    shuffle: Callable[[Sequence[OnlineRelay]], Sequence[OnlineRelay]],
) -> list[OnlineRelay]:
    """At most two: the nearest, those of unknown place last; any two for a device of unknown place."""
    mixed = list(shuffle(sorted(online, key=lambda one: one.id)))
    if location.lat is not None and location.lon is not None:
        mixed.sort(key=lambda one: _distance_km(one.location, location))
    return mixed[:MAX_RELAYS]


def _distance_km(one: Location, other: Location) -> float:
    if one.lat is None or one.lon is None or other.lat is None or other.lon is None:
        return float("inf")
    lat1, lon1, lat2, lon2 = (radians(value) for value in (one.lat, one.lon, other.lat, other.lon))
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(half)))
