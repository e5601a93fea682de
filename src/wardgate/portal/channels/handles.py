"""What channels may do with the device of another channel, whichever portal that is connected to.

All calls return at once and reach the device in their order, or not at all. A local channel and a handle on one of
another portal (`cluster/remote.py`) both do this.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from wardgate.ids import AccountId, ClientId, GatewayId, RelayId, SiteId
from wardgate.portal.db.scope import Scope
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Location
from wardgate.wire import portal
from wardgate.wire.portal_secrets import PskParty

Answered = Callable[[str], None]
"""Called with the reference of a request."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a gateway, or a client that others reach, was last told about one client and one resource.

    Attributes:
        authorized_at: When it was made, which says which of two is the newer one.
    """

    authorization_id: str
    expires_at: datetime
    authorized_at: datetime | None = field(default=None, compare=False)


class DeviceView(Protocol):
    """A connected device without its secrets."""

    @property
    def id(self) -> str:
        """The device."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def public_key(self) -> str:
        """Of this connection."""

    @property
    def ipv4(self) -> str:
        """Inside the tunnel."""

    @property
    def ipv6(self) -> str:
        """Inside the tunnel."""

    @property
    def user_agent(self) -> str:
        """As it was said."""

    @property
    def version(self) -> str | None:
        """Of the program."""

    @property
    def remote_ip(self) -> str | None:
        """Where it connected from."""

    @property
    def location(self) -> Location:
        """Where that is."""


class ClientHandle(Protocol):
    """A connected client."""

    @property
    def device_id(self) -> ClientId:
        """The device."""

    @property
    def device(self) -> DeviceView:
        """As it was when it connected."""

    @property
    def is_joined(self) -> bool:
        """Whether it takes messages."""

    @property
    def has_iceless(self) -> bool:
        """Whether it can do without ICE."""

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it.

        Raises:
            NotFound: The device is gone.
        """

    def push(self, message: portal.Message) -> None:
        """Sends a message, if it is still there."""

    def admit(self, message: portal.ClientDeviceAccessAuthorized, resource_id: str, grant: Grant) -> bool:
        """Lets another client reach it; false if that was revoked meanwhile, or if it cannot be told."""


class GatewayHandle(Protocol):
    """A connected gateway."""

    @property
    def device_id(self) -> GatewayId:
        """The device."""

    @property
    def account_id(self) -> AccountId:
        """Whose it is."""

    @property
    def site_id(self) -> SiteId:
        """Where it serves."""

    @property
    def device(self) -> DeviceView:
        """As it was when it connected."""

    @property
    def online(self) -> OnlineGateway:
        """What the choice of a gateway looks at."""

    @property
    def has_iceless(self) -> bool:
        """Whether it can do without ICE."""

    @property
    def order(self) -> int:
        """Which connection it is."""

    def gives_way_to(self, public_key: str) -> bool:
        """Whether a gateway of this id that comes with this key takes its place."""

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it.

        Raises:
            NotFound: The device is gone.
        """

    def push(self, message: portal.Message) -> None:
        """Sends a message, if it is still there."""

    def new_ref(self, acknowledged: Answered, refused: Answered) -> str:
        """A reference for one request; one of the two is called with it, once, or neither."""

    def create(self, message: portal.CreateAuthorization, grant: Grant) -> None:
        """Lets a client in; `message.ref` is a reference of `new_ref`."""


class RelayHandle(Protocol):
    """A connected relay."""

    @property
    def relay_id(self) -> RelayId:
        """What its secret gives."""

    @property
    def ipv4(self) -> str | None:
        """Where it is reached."""

    @property
    def ipv6(self) -> str | None:
        """Where it is reached."""

    @property
    def port(self) -> int:
        """Where it is reached."""

    @property
    def address(self) -> tuple[str | None, str | None, int]:
        """Where it is reached: IPv4 and IPv6 host, and the port."""

    @property
    def location(self) -> Location:
        """Where that is."""

    @property
    def stamp_secret(self) -> str:
        """What its TURN credentials are made from."""

    @property
    def order(self) -> int:
        """Which connection it is; a later one has a higher order."""
