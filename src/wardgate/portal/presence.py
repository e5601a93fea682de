"""Who is connected to this node: clients, gateways and relays by id, by token and by site.

Registering and leaving are synchronous, so there is no moment in which two gateways hold one id.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from wardgate.ids import AccountId, ClientId, GatewayId, RelayId, SiteId, TokenId
from wardgate.portal.domain.selection import OnlineGateway

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel
    from wardgate.portal.channels.gateway import GatewayChannel
    from wardgate.portal.channels.relay import RelayChannel


class Presence:
    """The channels of this node."""

    def __init__(self) -> None:
        self._clients: dict[ClientId, ClientChannel] = {}
        self._gateways: dict[GatewayId, GatewayChannel] = {}
        self._relays: dict[RelayId, RelayChannel] = {}
        self.relay_listeners: dict[object, Callable[[], None]] = {}

    # --- clients ----------------------------------------------------------------------------------------------------

    def add_client(self, channel: "ClientChannel") -> "ClientChannel | None":
        """Registers a client and gives the older channel of the same device, which is over now."""
        older = self._clients.get(channel.device_id)
        self._clients[channel.device_id] = channel
        return older if older is not channel else None

    def remove_client(self, channel: "ClientChannel") -> None:
        """Forgets a client, unless a newer channel took its place."""
        if self._clients.get(channel.device_id) is channel:
            del self._clients[channel.device_id]

    def client(self, account_id: AccountId, client_id: str) -> "ClientChannel | None":
        """The account's client with that id, if it is connected."""
        channel = self._clients.get(ClientId(client_id))
        return channel if channel is not None and channel.account_id == account_id else None

    def clients(self, account_id: AccountId, actor_ids: Iterable[str] | None = None) -> "list[ClientChannel]":
        """The account's clients, or those of some actors."""
        wanted = None if actor_ids is None else set(actor_ids)
        return [
            channel
            for channel in self._clients.values()
            if channel.account_id == account_id and (wanted is None or channel.actor_id in wanted)
        ]

    def all_clients(self) -> "list[ClientChannel]":
        """Every client of every account."""
        return list(self._clients.values())

    # --- gateways ---------------------------------------------------------------------------------------------------

    def add_gateway(self, channel: "GatewayChannel") -> bool:
        """Registers a gateway; false if its id is connected already by another program: the first one wins."""
        older = self._gateways.get(channel.device_id)
        if older is not None and not older.gives_way_to(channel.device.public_key):
            return False
        self._gateways[channel.device_id] = channel
        if older is not None:
            older.close()
        return True

    def remove_gateway(self, channel: "GatewayChannel") -> None:
        """Forgets a gateway."""
        if self._gateways.get(channel.device_id) is channel:
            del self._gateways[channel.device_id]

    def gateway(self, account_id: AccountId, gateway_id: str) -> "GatewayChannel | None":
        """The account's gateway with that id, if it is connected."""
        channel = self._gateways.get(GatewayId(gateway_id))
        return channel if channel is not None and channel.account_id == account_id else None

    def gateways(self, account_id: AccountId) -> "list[GatewayChannel]":
        """The account's gateways."""
        return [channel for channel in self._gateways.values() if channel.account_id == account_id]

    def all_gateways(self) -> "list[GatewayChannel]":
        """Every gateway of every account."""
        return list(self._gateways.values())

    def online_gateways(self, account_id: AccountId, site_id: SiteId | None) -> "list[GatewayChannel]":
        """The gateways of a site that can serve requests."""
        return [
            channel
            for channel in self._gateways.values()
            if channel.account_id == account_id and channel.site_id == site_id and channel.is_joined
        ]

    # --- relays -----------------------------------------------------------------------------------------------------

    def add_relay(self, channel: "RelayChannel") -> "RelayChannel | None":
        """Registers a relay and gives the older channel with the same secret, which is over now."""
        older = self._relays.pop(channel.relay_id, None)
        self._relays[channel.relay_id] = channel  # the last one, see `relays`
        self._tell_about_relays()
        return older if older is not channel else None

    def remove_relay(self, channel: "RelayChannel") -> None:
        """Forgets a relay, unless a newer channel took its place."""
        if self._relays.get(channel.relay_id) is channel:
            del self._relays[channel.relay_id]
            self._tell_about_relays()

    def relays(self) -> "dict[RelayId, RelayChannel]":
        """All relays that are connected, but for those whose address a later one has: it was started again since."""
        latest = {channel.address: one for one, channel in self._relays.items()}
        return {one: self._relays[one] for one in latest.values()}

    def _tell_about_relays(self) -> None:
        for listener in list(self.relay_listeners.values()):
            listener()

    # --- everyone ---------------------------------------------------------------------------------------------------

    def with_token(self, token_id: TokenId) -> "Iterator[ClientChannel | GatewayChannel | RelayChannel]":
        """Every channel that joined with that token."""
        some: list[ClientChannel | GatewayChannel | RelayChannel] = [
            *self._clients.values(),
            *self._gateways.values(),
            *self._relays.values(),
        ]
        return (channel for channel in some if channel.token_id == token_id)

    def is_online(self, account_id: AccountId, device_id: str) -> bool:
        """Whether a client or gateway of the account is connected."""
        return (self.client(account_id, device_id) or self.gateway(account_id, device_id)) is not None

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        """The site's gateways that can serve requests, as the choice among them looks at them."""
        return [channel.online for channel in self.online_gateways(account_id, site_id)]
