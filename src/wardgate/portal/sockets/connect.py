"""What a connect request says: token, parameters, and where it comes from."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from starlette.requests import HTTPConnection

from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Clock
from wardgate.portal.db.devices import HARDWARE_IDS
from wardgate.portal.domain import tokens, versions
from wardgate.portal.domain.places import with_centroid
from wardgate.portal.domain.subjects import Location
from wardgate.portal.domain.tokens import ParsedToken, TokenKind
from wardgate.portal.sockets import refusal

_BEARER: Final = "Bearer "
_PUBLIC_KEY: Final = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
_MAX_TEXT: Final = 255
_MAX_BUCKETS: Final = 50_000
_PRESSURE_HALVES_S: Final = 5.0
_LEAST_RETRY_S, _LEAST_SPREAD_S, _MOST_SPREAD_S = 2, 6.0, 28.0
_TURNED_AWAY_PER_S: Final = 200.0
Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from."""

    remote_ip: str | None
    location: Location
    user_agent: str
    version: str | None


@dataclass(frozen=True, slots=True)
class DeviceParams:
    """What a client or gateway says of itself."""

    external_id: str | None
    name: str | None
    public_key: str
    hardware_ids: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RelayParams:
    """What a relay says of itself."""

    ipv4: str | None
    ipv6: str | None
    port: int


def read_token(request: HTTPConnection) -> str:
    """The token of the header, or else of the query.

    Raises:
        Refused: There is none.
    """
    header = request.headers.get("x-authorization", "")
    text = header.removeprefix(_BEARER) if header.startswith(_BEARER) else request.query_params.get("token", "")
    if not text:
        raise refusal.missing_token()
    return text


def parse_token(text: str, kind: TokenKind) -> ParsedToken:
    """The token, if it has the form of its kind.

    Raises:
        Refused: It is no token, or of another kind.
    """
    parsed = tokens.parse(text)
    if parsed is None or parsed.kind != kind:
        raise refusal.invalid_token()
    return parsed


def check_origin(request: HTTPConnection) -> None:
    """Keeps web pages of other hosts out; components send no origin.

    Raises:
        Refused: The origin is another host.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host", ""):
        raise refusal.ForeignOrigin


def read_origin(request: HTTPConnection, hub: Hub) -> Origin:
    """The address behind trusted proxies, what they know of its place, and the program."""
    proxies = hub.settings.proxy_networks
    user_agent = request.headers.get("user-agent", "")
    location = location_of(request, proxies)
    return Origin(remote_ip(request, proxies), location, user_agent, versions.of_user_agent(user_agent))


def location_of(request: HTTPConnection, proxies: Networks) -> Location:
    """The place a request came from, as far as a trusted proxy says."""
    peer = _canonical_ip(request.client.host if request.client else None)
    return _location(request.headers) if _is_trusted(peer, proxies) else Location()


def remote_ip(request: HTTPConnection, proxies: Networks) -> str | None:
    """The address a request came from; a forwarding header is believed from trusted proxies only."""
    peer = _canonical_ip(request.client.host if request.client else None)
    if not _is_trusted(peer, proxies):
        return peer
    for hop in reversed(",".join(request.headers.getlist("x-forwarded-for")).split(",")):
        address = _canonical_ip(hop.strip())
        if address is None:
            return peer
        if not _is_trusted(address, proxies):
            return address
    return peer


def _is_trusted(address: str | None, proxies: Networks) -> bool:
    return address is not None and any(ip_address(address) in network for network in proxies)


def _canonical_ip(text: str | None) -> str | None:
    try:
        address = ip_address((text or "").strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _location(headers: Mapping[str, str]) -> Location:
    region = headers.get("x-geo-location-region") or headers.get("x-azure-geo-country")
    lat, _, lon = headers.get("x-geo-location-coordinates", "").partition(",")
    return with_centroid(Location(region, headers.get("x-geo-location-city"), *_place(lat, lon)))


def _place(lat: str, lon: str) -> tuple[float, float] | tuple[None, None]:
    try:
        place = float(lat), float(lon)
    except ValueError:
        return None, None
    return place if abs(place[0]) <= 90 and abs(place[1]) <= 180 else (None, None)


def read_device_params(
    query: Mapping[str, str], origin: Origin, *, needs_version: bool, needs_id: bool
) -> DeviceParams:
    """Checks the parameters of a client or gateway.

    Raises:
        Refused: One is missing or wrong; the detail lists them all.
    """
    problems: list[str] = []
    external_id = (query.get("external_id") or query.get("firezone_id") or "").strip() or None
    if external_id is None and needs_id:
        problems.append("external_id can't be blank")
    elif external_id is not None and len(external_id) > _MAX_TEXT:
        problems.append(f"external_id should be at most {_MAX_TEXT} character(s)")
    public_key = query.get("public_key", "")
    if not public_key:
        problems.append("public_key can't be blank")
    elif not _PUBLIC_KEY.fullmatch(public_key):
        problems.append("public_key is not a WireGuard key in base64")
    if needs_version and origin.version is None:
        problems.append("user_agent names no known program and version")
    name = (query.get("name") or "").strip()[:_MAX_TEXT] or None
    if any("\x00" in value for value in (external_id or "", name or "")):
        problems.append("external_id and name may not hold zero bytes")
    hardware = tuple((one, query[one].strip()[:_MAX_TEXT]) for one in HARDWARE_IDS if query.get(one, "").strip())
    if problems:
        raise refusal.invalid_params(problems)
    return DeviceParams(external_id, name, public_key, hardware)


def read_relay_params(query: Mapping[str, str]) -> RelayParams:
    """Checks the parameters of a relay.

    Raises:
        Refused: An address or port is wrong, or there is no address.
    """
    addresses: dict[int, str | None] = {4: None, 6: None}
    for version, name in ((4, "ipv4"), (6, "ipv6")):
        text = query.get(name, "").strip()
        if not text:
            continue
        address = _canonical_ip(text)
        if address is None or ip_address(address).version != version:
            raise refusal.invalid_params([f"{name} is not an address"])
        addresses[version] = address
    if not any(addresses.values()):
        raise refusal.unhandled()
    port = query.get("port", "3478")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise refusal.invalid_params(["port is not a port"])
    return RelayParams(addresses[4], addresses[6], int(port))


class ConnectLimiter:
    """A token bucket for each source address and token."""

    def __init__(self, clock: Clock, refill_rate: float, capacity: float) -> None:
        self._clock = clock
        self._refill_rate = refill_rate
        self._capacity = capacity
        self._buckets: OrderedDict[tuple[str | None, str], tuple[float, float]] = OrderedDict()

    def check(self, remote_ip: str | None, token: str) -> None:
        """Counts one connect.

        Raises:
            Refused: There were too many.
        """
        key = (remote_ip, hashlib.sha256(token.encode()).hexdigest()[:16])
        now = self._clock.now()
        level, at = self._buckets.pop(key, (self._capacity, now))
        level = min(self._capacity, level + (now - at) * self._refill_rate)
        is_allowed = level >= 1
        self._buckets[key] = (level - 1 if is_allowed else level, now)
        while len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not is_allowed:
            raise refusal.rate_limited()


class Pressure:
    """How many were turned away lately because too many came at once; the more, the longer they are told to wait.

    Turning somebody away costs as well, so those who are keep away long enough for the others to be let in.
    """

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def retry_after_s(self, now: float, chance: float) -> int:
        """Counts one more, and says when it may come back.

        Args:
            chance: From 0 to 1, so that they do not come back together.
        """
        self._level = self._level * 0.5 ** ((now - self._at) / _PRESSURE_HALVES_S) + 1
        self._at = now
        return _LEAST_RETRY_S + round(
            chance * min(_MOST_SPREAD_S, max(_LEAST_SPREAD_S, self._level / _TURNED_AWAY_PER_S))
        )
