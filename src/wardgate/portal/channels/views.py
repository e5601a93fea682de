"""How rows look on the wire: the interface of a device, the two messages of a grant, the flow-log token."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from wardgate.ids import ClientId
from wardgate.portal.channels.handles import DeviceView
from wardgate.portal.cluster.messages import MAX_TEXT, DeviceRecord
from wardgate.portal.domain import versions
from wardgate.portal.domain.filters import wire_filters
from wardgate.portal.domain.resources import ResourceFacts, client_view
from wardgate.portal.domain.subjects import Location, Subject
from wardgate.wire import portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import Json
from wardgate.wire.portal_secrets import PskParty, sign_jwt

_DOH_URLS: Final = {
    "google": "https://dns.google/dns-query",
    "quad9": "https://dns.quad9.net/dns-query",
    "cloudflare": "https://cloudflare-dns.com/dns-query",
    "opendns": "https://doh.opendns.com/dns-query",
}
_TOKEN_GRACE_S: Final = 2_592_000


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A connected device, as it was when it connected."""

    id: str
    name: str
    public_key: str
    psk_base: bytes
    ipv4: str
    ipv6: str
    user_agent: str
    version: str | None
    remote_ip: str | None
    location: Location
    device_serial: str | None
    device_uuid: str | None
    identifier_for_vendor: str | None
    firebase_installation_id: str | None

    @property
    def psk_party(self) -> PskParty:
        """What goes into pre-shared keys."""
        return PskParty(self.id, self.public_key, self.psk_base)

    def __repr__(self) -> str:
        return f"DeviceFacts({self.id})"


def device_record(device: DeviceFacts) -> DeviceRecord:
    """A device as other portals know it: without its secrets."""
    return DeviceRecord(
        id=device.id,
        name=device.name[:MAX_TEXT],
        public_key=device.public_key,
        ipv4=device.ipv4,
        ipv6=device.ipv6,
        user_agent=device.user_agent[:MAX_TEXT],
        version=device.version[:MAX_TEXT] if device.version else None,
        remote_ip=device.remote_ip,
        location=cut_location(device.location),
    )


def cut_location(location: Location) -> Location:
    """A place with names no longer than other portals take."""
    region = location.region[:MAX_TEXT] if location.region else None
    return replace(location, region=region, city=location.city[:MAX_TEXT] if location.city else None)


def interface(device: DeviceFacts, config: dict[str, Any]) -> portal.Interface:
    """A client's addresses, and the resolvers and search domain of its account."""
    dns = config.get("clients_upstream_dns") or {}
    kind = dns.get("type", "system")
    custom = [ip_address(one) for one in dns.get("addresses", [])] if kind == "custom" else []
    urls = [_DOH_URLS[dns.get("doh_provider", "google")]] if kind == "secure" else []
    return portal.Interface(
        ipv4=IPv4Address(device.ipv4),
        ipv6=IPv6Address(device.ipv6),
        upstream_do53=tuple(portal.Do53Server(ip=one) for one in custom),
        upstream_doh=tuple(portal.DohServer(url=one) for one in urls),
        upstream_dns=tuple(portal.LegacyDnsServer(address=SocketAddr(str(one), 53)) for one in custom),
        search_domain=config.get("search_domain"),
    )


def authorized_client(device: DeviceFacts, preshared_key: bytes) -> portal.AuthorizedClient:
    """A client as its gateway is told."""
    system = versions.operating_system(device.user_agent)
    return portal.AuthorizedClient.model_validate(
        {
            "id": device.id,
            "public_key": device.public_key,
            "preshared_key": preshared_key,
            "ipv4": device.ipv4,
            "ipv6": device.ipv6,
            "version": device.version,
            "device_os_name": system.name,
            "device_os_version": system.version,
            "device_serial": device.device_serial,
            "device_uuid": device.device_uuid,
            "identifier_for_vendor": device.identifier_for_vendor,
            "firebase_installation_id": device.firebase_installation_id,
        }
    )


def subject(one: Subject, location: Location) -> portal.Subject:
    """Who a grant is for, as its receiver is told."""
    return portal.Subject(
        actor_id=one.actor_id,
        actor_name=one.actor_name,
        actor_email=one.actor_email,
        actor_type=one.actor_type,
        auth_provider_id=one.auth_provider_id,
        ip=one.remote_ip,
        ip_region=location.region,
        ip_city=location.city,
        ip_lat=location.lat,
        ip_lon=location.lon,
        user_agent=one.user_agent,
    )


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What a flow-log token says about a grant."""

    authorization_id: str
    policy_id: str
    uploads_enabled: bool
    authorized_at: datetime
    expires_at: datetime
    resource: ResourceFacts
    initiator: DeviceFacts
    responder_id: str
    subject: Subject
    signing_key: bytes

    def __repr__(self) -> str:
        return f"GrantFacts({self.authorization_id})"


def ingest_token(grant: GrantFacts, role: str) -> str:
    """The flow-log token of one side; it carries today's claim names and those of releases up to July 2026."""
    system = versions.operating_system(grant.initiator.user_agent)
    optional: dict[str, Json] = {
        "actor_email": grant.subject.actor_email,
        "auth_provider_id": grant.subject.auth_provider_id,
        "client_version": grant.initiator.version,
        "device_os_name": system.name,
        "device_os_version": system.version,
        "device_serial": grant.initiator.device_serial,
        "device_uuid": grant.initiator.device_uuid,
        "device_identifier_for_vendor": grant.initiator.identifier_for_vendor,
        "device_firebase_installation_id": grant.initiator.firebase_installation_id,
    }
    doubled: dict[str, Json] = {
        "device_id": grant.initiator.id,
        "actor_id": grant.subject.actor_id or "",
        "actor_name": grant.subject.actor_name or "",
        **{name: value for name, value in optional.items() if value is not None},
    }
    claims: dict[str, Json] = {
        "account_id": grant.subject.account_id,
        "role": role,
        "uploads_enabled": grant.uploads_enabled,
        "responder_device_id": grant.responder_id,
        "policy_authorization_id": grant.authorization_id,
        "policy_id": grant.policy_id,
        "resource_id": grant.resource.id,
        "resource_name": grant.resource.name,
        "authorized_at": _iso(grant.authorized_at),
        "authorization_expires_at": _iso(grant.expires_at),
        "iat": int(grant.authorized_at.timestamp()),
        "exp": int(grant.expires_at.timestamp()) + _TOKEN_GRACE_S,
        **{f"initiator_{name}": value for name, value in doubled.items()},
        **doubled,
    }
    if grant.resource.address is not None:
        claims["resource_address"] = grant.resource.address
    return sign_jwt(claims, grant.signing_key)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def pool_for_target(resource: ResourceFacts, target: DeviceView) -> portal.StaticDevicePool:
    """A pool as a device in it is told: in full if it knows pools, else id and filters, which is what it needs."""
    view = client_view(resource, target.user_agent, target.version)
    if isinstance(view, portal.StaticDevicePool):
        return view
    return portal.StaticDevicePool(id=resource.id, name=resource.name, filters=wire_filters(resource.filters))


def authorization_ref(client_id: str, resource_id: str, expires_at: datetime) -> portal.AuthorizationRef:
    """A grant as an init lists it."""
    return portal.AuthorizationRef.model_validate(
        {"client_id": ClientId(client_id), "resource_id": resource_id, "expires_at": int(expires_at.timestamp())}
    )
