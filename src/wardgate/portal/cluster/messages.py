"""What portals say to each other, as values; any bytes give one of them or `RemoteProtocolError`.

A record is what others must know of a channel to choose it, or to be told that its device moved. `order` names a
channel within its portal: microseconds since 1970, raised above those of other channels and of any connection of the
same device that the portal knows, so that "newer" means the same everywhere, whatever clocks say. `replaces` is the
order of the connection whose place it took.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from wardgate.errors import RemoteProtocolError
from wardgate.ids import AccountId, ActorId, ClientId, GatewayId, RelayId, SiteId, TokenId
from wardgate.portal.domain.subjects import Location
from wardgate.wire import portal
from wardgate.wire.portal import Json

MAX_RECORDS: Final = 100
"""Records in one message: some 600 bytes each, two kilobytes with the longest texts."""
MAX_TEXT: Final = 255
"""Characters of a text that a device says of itself, or a proxy of its place; what is longer is cut off."""

_Text = Annotated[str, Field(max_length=1024)]
_Id = Annotated[str, Field(max_length=64)]
_Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, lt=1e11)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A connected device without its secrets."""

    id: _Id
    name: _Text
    public_key: _Id
    ipv4: _Id
    ipv6: _Id
    user_agent: _Text
    version: _Text | None
    remote_ip: _Id | None
    location: Location


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client of another portal."""

    order: _Count
    account_id: AccountId
    actor_id: ActorId
    token_id: TokenId
    device: DeviceRecord
    has_iceless: bool
    replaces: _Count | None = None
    kind: Literal["client"] = "client"

    @property
    def id(self) -> ClientId:
        """The device."""
        return ClientId(self.device.id)


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """A gateway of another portal.

    Attributes:
        is_silent: Whether it missed its heartbeat, so that another one may take its place.
    """

    order: _Count
    account_id: AccountId
    site_id: SiteId
    token_id: TokenId
    device: DeviceRecord
    has_iceless: bool
    is_joined: bool
    is_silent: bool = False
    replaces: _Count | None = None
    kind: Literal["gateway"] = "gateway"

    @property
    def id(self) -> GatewayId:
        """The device."""
        return GatewayId(self.device.id)


@dataclass(frozen=True, slots=True)
class RelayRecord:
    """A relay of another portal."""

    order: _Count
    relay_id: RelayId
    token_id: TokenId
    ipv4: _Id | None
    ipv6: _Id | None
    port: Annotated[int, Field(ge=0, le=65535)]
    location: Location
    stamp_secret: _Text = field(repr=False)
    replaces: _Count | None = None
    kind: Literal["relay"] = "relay"

    @property
    def id(self) -> RelayId:
        """What its secret gives."""
        return self.relay_id

    @property
    def address(self) -> tuple[str | None, str | None, int]:
        """Where it is reached: IPv4 and IPv6 host, and the port."""
        return self.ipv4, self.ipv6, self.port


Record = ClientRecord | GatewayRecord | RelayRecord
_Records = Annotated[tuple[Annotated[Record, Field(discriminator="kind")], ...], Field(max_length=MAX_RECORDS)]


# --- to all ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beat:
    """A portal lives, and where it is in its own series of deltas."""

    position: _Count
    count: _Count
    kind: Literal["beat"] = "beat"


@dataclass(frozen=True, slots=True)
class Delta:
    """Channels that came or changed, and the orders of those that left."""

    position: _Count
    changed: _Records = ()
    gone: Annotated[tuple[_Count, ...], Field(max_length=MAX_RECORDS)] = ()
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Hello:
    """A portal started, or was cut off: it needs to know everything."""

    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Bye:
    """A portal ends in good order."""

    kind: Literal["bye"] = "bye"


@dataclass(frozen=True, slots=True)
class Wake:
    """Something was committed: look at the outbox."""

    kind: Literal["wake"] = "wake"


# --- to one ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Want:
    """The sender missed something and needs all records of the receiver."""

    kind: Literal["want"] = "want"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some of the records of a portal, as they were at one position of its deltas."""

    position: _Count
    part: _Count
    parts: Annotated[int, Field(ge=1, le=100_000)]
    records: _Records = ()
    kind: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True, slots=True)
class Push:
    """A message for a device of the receiver, as an event of the V2 protocol."""

    topic: Literal["client", "gateway"]
    account_id: AccountId
    device_id: _Id
    event: _Id
    payload: Any = field(repr=False)
    kind: Literal["push"] = "push"


@dataclass(frozen=True, slots=True)
class Authorize:
    """A grant for a gateway or target client of the receiver, with the message that tells it.

    Attributes:
        expires_at: Seconds since 1970; so is when it was made.
        ref: What the receiver's answer names; `None` if none is wanted.
    """

    topic: Literal["client", "gateway"]
    account_id: AccountId
    device_id: _Id
    resource_id: _Id
    authorization_id: _Id
    expires_at: _Seconds
    ref: _Id | None
    event: _Id
    payload: Any = field(repr=False)
    authorized_at: _Seconds | None = None
    kind: Literal["authorize"] = "authorize"


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The gateway has taken a grant, or will not."""

    ref: _Id
    is_taken: bool
    kind: Literal["acknowledge"] = "acknowledge"


Message = Beat | Delta | Hello | Bye | Wake | Want | Snapshot | Push | Authorize | Acknowledge
_ADAPTER: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _ADAPTER.dump_json(message)


def decode(data: bytes) -> Message:
    """The message.

    Raises:
        RemoteProtocolError: The bytes are none, or one of a newer version.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RemoteProtocolError(f"{place} {first['msg']}"[:200]) from None


def frame_of(message: portal.Message) -> tuple[str, Json]:
    """Event and payload of a message of the portal protocol, in the form of V2."""
    return message.event_names(portal.ApiVersion.V2)[0], message.payload()
