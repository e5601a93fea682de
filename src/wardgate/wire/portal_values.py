"""The parts that messages of the portal protocol are made of: scalars and shared objects.

Every type here is frozen and checks itself; a value that exists is a valid one. Names are those on the wire.
Unknown keys are ignored, so a newer portal can add some.
"""

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from wardgate.ids import ClientId, GatewayId, RelayId, ResourceId, SiteId
from wardgate.wire.addresses import SocketAddr

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON text decodes to."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_T = TypeVar("_T")


def is_uuid(value: object) -> bool:
    """Whether this is the dashed text of a UUID, in either case."""
    return isinstance(value, str) and _UUID.fullmatch(value.lower()) is not None


def _uuid(value: str) -> str:
    if not is_uuid(value):
        raise ValueError("is not a UUID")
    return value.lower()


def _textual(*kinds: type) -> Callable[[Any], Any]:
    """Lets text and ready values through, so that neither numbers nor bytes pass for addresses."""

    def check(value: object) -> object:
        if isinstance(value, kinds):
            return value
        if not isinstance(value, str) or "%" in value:
            raise ValueError("is not an address")
        return value

    return check


def _prefixed(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", value, re.ASCII):
        raise ValueError("is not a network with a prefix length")
    return value


def _key(value: object) -> object:
    if isinstance(value, bytes):
        raw = value
    elif isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("is not base64") from error
        if base64.b64encode(raw).decode() != value:
            raise ValueError("is not canonical base64")
    else:
        raise ValueError("is not a key")
    if len(raw) != 32:
        raise ValueError("is not 32 bytes")
    return raw


def _socket_addr(value: object) -> object:
    if isinstance(value, SocketAddr):
        return value
    if not isinstance(value, str) or "%" in value:
        raise ValueError("is not an address with a port")
    return SocketAddr.parse(value)


def key_text(key: bytes) -> str:
    """The 44 characters that stand for a WireGuard key on the wire."""
    return base64.b64encode(key).decode()


def lenient(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Takes a malformed value for an absent one; for fields that no receiver needs."""
    try:
        return handler(value)
    except ValidationError:
        return None


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Unsigned = Annotated[int, Strict(), Field(ge=0, lt=2**64)]
Port = Annotated[int, Strict(), Field(ge=0, le=65535)]
WireResourceId = Annotated[ResourceId, Strict(), AfterValidator(_uuid)]
WireClientId = Annotated[ClientId, Strict(), AfterValidator(_uuid)]
WireGatewayId = Annotated[GatewayId, Strict(), AfterValidator(_uuid)]
WireRelayId = Annotated[RelayId, Strict(), AfterValidator(_uuid)]
WireSiteId = Annotated[SiteId, Strict(), AfterValidator(_uuid)]
Ipv4 = Annotated[IPv4Address, BeforeValidator(_textual(IPv4Address))]
Ipv6 = Annotated[IPv6Address, BeforeValidator(_textual(IPv6Address))]
Ip = Annotated[IPv4Address | IPv6Address, BeforeValidator(_textual(IPv4Address, IPv6Address))]
Ipv4Net = Annotated[IPv4Network, BeforeValidator(_prefixed)]
Ipv6Net = Annotated[IPv6Network, BeforeValidator(_prefixed)]
Net = Annotated[IPv4Network | IPv6Network, BeforeValidator(_prefixed)]
Key = Annotated[bytes, BeforeValidator(_key), PlainSerializer(key_text, return_type=str)]
Address = Annotated[SocketAddr, BeforeValidator(_socket_addr), PlainSerializer(str, return_type=str)]
OptionalText = Annotated[Text | None, WrapValidator(lenient)]
"""Text that is sent for people or older programs and that no receiver insists on."""


class WireModel(BaseModel):
    """A frozen value with one JSON form."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset()
    RENAMED_FOR_OLD_CLIENTS: ClassVar[dict[str, str]] = {}

    @model_serializer(mode="wrap")
    def _to_json(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        omitted, renamed = self.OMITTED_WHEN_NONE, self.RENAMED_FOR_OLD_CLIENTS
        data: dict[str, Any] = handler(self)
        if omitted:
            data = {name: value for name, value in data.items() if value is not None or name not in omitted}
        if renamed and (info.context or {}).get("old_client"):
            data = {renamed.get(name, name): value for name, value in data.items()}
        return data


class Site(WireModel):
    """A named group of gateways that reach the same network."""

    id: WireSiteId
    name: Text


class Filter(WireModel):
    """Traffic that a resource allows: a protocol and a range of destination ports.

    A range with start > end matches nothing; it is kept rather than left out, because an empty list allows everything.
    """

    protocol: Literal["tcp", "udp", "icmp"]
    port_range_start: Port = 0
    port_range_end: Port = 65535

    @model_serializer(mode="plain")
    def _as_sent(self) -> dict[str, Any]:
        if self.protocol == "icmp" or (self.port_range_start, self.port_range_end) == (0, 65535):
            return {"protocol": self.protocol}
        start, end = self.port_range_start, self.port_range_end
        return {"protocol": self.protocol, "port_range_start": start, "port_range_end": end}

    def is_match(self, protocol: str, port: int) -> bool:
        """Whether a packet of that protocol to that port is covered; ICMP has no port."""
        if protocol != self.protocol:
            return False
        return protocol == "icmp" or self.port_range_start <= port <= self.port_range_end


def is_allowed(filters: tuple[Filter, ...], protocol: str, port: int) -> bool:
    """Whether a resource with these filters lets a packet through: an empty list allows everything."""
    return not filters or any(one.is_match(protocol, port) for one in filters)


class _SitedResource(WireModel):
    RENAMED_FOR_OLD_CLIENTS: ClassVar[dict[str, str]] = {"sites": "gateway_groups"}

    id: WireResourceId
    sites: tuple[Site, ...] = Field(min_length=1, validation_alias=AliasChoices("sites", "gateway_groups"))

    @model_validator(mode="before")
    @classmethod
    def _one_name_for_sites(cls, data: Any) -> Any:
        if isinstance(data, dict) and "sites" in data and "gateway_groups" in data:
            raise ValueError("sites are given twice")
        return data


class DnsResource(_SitedResource):
    """A domain pattern behind a site; `*`, `**` and `?` are wildcards."""

    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset({"ip_stack"})

    type: Literal["dns"] = "dns"
    address: Annotated[Text, Field(min_length=1)]
    name: Text
    address_description: Text | None = None
    filters: tuple[Filter, ...] = ()
    ip_stack: Literal["dual", "ipv4_only", "ipv6_only"] | None = None


class CidrResource(_SitedResource):
    """A network behind a site; a single address is sent as one of /32 or /128."""

    type: Literal["cidr"] = "cidr"
    address: Net
    name: Text
    address_description: Text | None = None
    filters: tuple[Filter, ...] = ()


class InternetResource(_SitedResource):
    """Everything else on the internet, through a site; unused until the user switches it on."""

    type: Literal["internet"] = "internet"
    name: Text = Field("Internet Resource", exclude=True)
    can_be_disabled: Flag = True


class PoolDevice(WireModel):
    """A device of a static pool, with host-length networks for its tunnel addresses."""

    client_id: WireClientId
    ipv4: Ipv4Net
    ipv6: Ipv6Net


class StaticDevicePool(WireModel):
    """Named devices of other people that may be reached directly."""

    type: Literal["static_device_pool"] = "static_device_pool"
    id: WireResourceId
    name: Text
    devices: tuple[PoolDevice, ...] = ()
    filters: tuple[Filter, ...] = ()


class DynamicDevicePool(WireModel):
    """Devices found by host name; gives names only, no route."""

    type: Literal["dynamic_device_pool"] = "dynamic_device_pool"
    id: WireResourceId
    name: Text
    address: Annotated[Text, Field(min_length=1)]
    filters: tuple[Filter, ...] = ()


ClientResource = DnsResource | CidrResource | InternetResource | StaticDevicePool | DynamicDevicePool
"""A resource as a client sees it."""
TaggedClientResource = Annotated[ClientResource, Field(discriminator="type")]
CLIENT_RESOURCE_TYPES: Final = frozenset({"dns", "cidr", "internet", "static_device_pool", "dynamic_device_pool"})
_CLIENT_RESOURCE: Final[TypeAdapter[ClientResource]] = TypeAdapter(TaggedClientResource)


class GatewayDnsResource(WireModel):
    """A domain pattern as a gateway sees it."""

    type: Literal["dns"] = "dns"
    id: WireResourceId
    address: Annotated[Text, Field(min_length=1)]
    name: Text
    filters: tuple[Filter, ...]


class GatewayCidrResource(WireModel):
    """A network as a gateway sees it."""

    type: Literal["cidr"] = "cidr"
    id: WireResourceId
    address: Net
    name: Text
    filters: tuple[Filter, ...]


class GatewayInternetResource(WireModel):
    """The internet as a gateway sees it."""

    type: Literal["internet"] = "internet"
    id: WireResourceId


GatewayResource = GatewayDnsResource | GatewayCidrResource | GatewayInternetResource
"""A resource as a gateway sees it."""
TaggedGatewayResource = Annotated[GatewayResource, Field(discriminator="type")]


class Relay(WireModel):
    """A TURN server and credentials for it: one object for each address family of a relay."""

    type: Literal["turn"] = "turn"
    id: WireRelayId
    addr: Address
    username: Text
    password: Text = Field(repr=False)
    expires_at: Unsigned


class AuthorizationRef(WireModel):
    """A grant that is still valid: of which client, to which resource, until when (unix seconds)."""

    client_id: WireClientId
    resource_id: WireResourceId
    expires_at: Unsigned


class FlowLogsConfig(WireModel):
    """Where flow logs go; interval 0 disables the upload, batch 0 stands for 1000."""

    api_url: Text
    upload_interval_secs: Unsigned
    upload_batch_size: Unsigned


class IceCredentials(WireModel):
    """What signs the connectivity checks of one side."""

    username: Text
    password: Text = Field(repr=False)


class Do53Server(WireModel):
    """A resolver on port 53."""

    ip: Ip


class DohServer(WireModel):
    """A resolver over HTTPS."""

    url: Text


class LegacyDnsServer(WireModel):
    """A resolver as older portals and clients name it."""

    protocol: Literal["ip_port"] = "ip_port"
    address: Address


class Interface(WireModel):
    """A client's tunnel addresses and resolvers; with all three lists empty the system's resolvers stay in use."""

    ipv4: Ipv4
    ipv6: Ipv6
    upstream_do53: tuple[Do53Server, ...] = ()
    upstream_doh: tuple[DohServer, ...] = ()
    upstream_dns: tuple[LegacyDnsServer, ...] = ()
    search_domain: Text | None = None


class GatewayInterface(WireModel):
    """A gateway's tunnel addresses."""

    ipv4: Ipv4
    ipv6: Ipv6


class GatewayConfig(WireModel):
    """Mandatory on the wire, constant since long."""

    ipv4_masquerade_enabled: Flag = True
    ipv6_masquerade_enabled: Flag = True


class Subject(WireModel):
    """For whom an authorization was made; information only."""

    actor_id: OptionalText = None
    actor_name: OptionalText = None
    actor_email: OptionalText = None
    actor_type: OptionalText = None
    auth_provider_id: OptionalText = None
    ip: OptionalText = None
    ip_region: OptionalText = None
    ip_city: OptionalText = None
    ip_lat: Annotated[float | None, WrapValidator(lenient)] = None
    ip_lon: Annotated[float | None, WrapValidator(lenient)] = None
    user_agent: OptionalText = None


OptionalSubject = Annotated[Subject | None, WrapValidator(lenient)]


def _candidates(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list")
    return tuple(one for one in value if is_candidate(one))


def is_candidate(value: object) -> bool:
    """Whether this has the form that receivers read: the prefix, and a 32-bit priority as the fourth word."""
    if not isinstance(value, str) or not value.startswith("candidate:"):
        return False
    words = value.split(" ")
    if len(words) < 8 or not words[3].isascii() or not words[3].isdigit() or len(words[3]) > 10:
        return False
    return int(words[3]) < 2**32


Candidates = Annotated[tuple[Text, ...], BeforeValidator(_candidates)]
"""SDP candidate lines; elements of another form are left out."""


def _known(values: Any, kind: Callable[[Any], _T | None]) -> tuple[tuple[_T, ...], int]:
    kept: list[_T] = []
    skipped = 0
    for value in values:
        one = kind(value)
        if one is None:
            skipped += 1
        else:
            kept.append(one)
    return tuple(kept), skipped


def _client_resource(value: Any) -> ClientResource | None:
    try:
        return _CLIENT_RESOURCE.validate_python(value)
    except ValidationError:
        return None


def _relay(value: Any) -> Relay | None:
    try:
        return Relay.model_validate(value)
    except ValidationError:
        return None


def forgiving_lists(data: Any) -> Any:
    """Leaves malformed or unknown `resources` and `relays` out of an init and counts them as `skipped`.

    Only lists, that is JSON, are looked at: a tuple is what our own code made, and a mistake in it must show.
    """
    if not isinstance(data, dict):
        return data
    data = dict(data)
    skipped = 0
    if isinstance(data.get("resources"), list):
        data["resources"], bad = _known(data["resources"], _client_resource)
        skipped += bad
    if isinstance(data.get("relays"), list):
        data["relays"], bad = _known(data["relays"], _relay)
        skipped += bad
    if skipped:
        data["skipped"] = skipped
    return data
