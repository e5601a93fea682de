"""Who is connected: clients, gateways and relays of this portal by id, account, actor, site and token, and what
other portals have said of theirs.

Registering and leaving are synchronous, so there is no moment in which two gateways of one portal hold one id. Lists
of channels are of this portal alone, since each portal tells its own what has changed; single devices are found
anywhere.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wardgate.ids import AccountId, ActorId, ClientId, GatewayId, RelayId, SiteId, TokenId
from wardgate.portal.channels.handles import ClientHandle, GatewayHandle, RelayHandle
from wardgate.portal.cluster.directory import Directory
from wardgate.portal.cluster.messages import Record
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.index import Index

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel
    from wardgate.portal.channels.gateway import GatewayChannel
    from wardgate.portal.channels.relay import RelayChannel

MAX_ENDED: Final = 100_000
_ACCOUNT, _ACTOR, _SITE, _TOKEN = 0, 1, 1, 2


class EndedGrants:
    """Grants that were deleted lately: one of another portal may arrive after its end.

    Messages between portals take seconds at most, so the last hundred thousand are more than enough.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, authorization_id: str) -> None:
        """A grant was deleted."""
        self._ids[authorization_id] = None
        if len(self._ids) > MAX_ENDED:
            self._ids.popitem(last=False)

    def __contains__(self, authorization_id: str) -> bool:
        return authorization_id in self._ids


class Presence:
    """The channels of this portal, and handles on those of others."""

    def __init__(self, utc_now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._utc_now = utc_now
        self._clients: Index[ClientId, ClientChannel] = Index(
            lambda client: client.account_id,
            lambda client: (client.account_id, client.actor_id),
            lambda client: client.token_id,
        )
        self._gateways: Index[GatewayId, GatewayChannel] = Index(
            lambda gateway: gateway.account_id,
            lambda gateway: (gateway.account_id, gateway.site_id),
            lambda gateway: gateway.token_id,
        )
        self._relays: Index[RelayId, RelayChannel] = Index(lambda relay: relay.token_id)
        self._last_order = 0
        self.relay_listeners: dict[object, Callable[[], None]] = {}
        self.ended = EndedGrants()
        self.remote = Directory()
        self.announce: Callable[[int, Record | None], None] | None = None

    def _next_order(self, known: int | None) -> int:
        now = int(self._utc_now().timestamp() * 1_000_000)
        self._last_order = max(now, self._last_order + 1, (known or 0) + 1)
        return self._last_order

    def _say(self, channel: "ClientChannel | GatewayChannel | RelayChannel") -> None:
        if self.announce is not None:
            self.announce(channel.order, channel.record)

    def _say_gone(self, channel: "ClientChannel | GatewayChannel | RelayChannel") -> None:
        if self.announce is not None:
            self.announce(channel.order, None)

    # --- clients ----------------------------------------------------------------------------------------------------

    def add_client(self, channel: "ClientChannel") -> "ClientChannel | None":
        """Registers a client and gives the older channel of the same device here, which is over now."""
        older = self._clients.put(channel.device_id, channel)
        if older is channel:
            return None
        known = self.remote.client(channel.device_id)
        channel.replaces = known.order if known else None
        channel.order = self._next_order(channel.replaces)
        if older is not None:
            self._say_gone(older)
        self._say(channel)
        return older

    def remove_client(self, channel: "ClientChannel") -> None:
        """Forgets a client, unless a newer channel took its place."""
        if self._clients.get(channel.device_id) is channel:
            self._clients.remove(channel.device_id)
            self._say_gone(channel)

    def local_client(self, account_id: AccountId, client_id: str) -> "ClientChannel | None":
        """The account's client with that id, if it is connected to this portal."""
        channel = self._clients.get(ClientId(client_id))
        return channel if channel is not None and channel.account_id == account_id else None

    def client(self, account_id: AccountId, client_id: str) -> ClientHandle | None:
        """The account's client with that id, if it is connected."""
        local = self.local_client(account_id, client_id)
        if local is not None:
            return local
        remote = self.remote.client(ClientId(client_id))
        return remote if remote is not None and remote.account_id == account_id else None

    def clients(self, account_id: AccountId, actor_ids: Iterable[str] | None = None) -> "list[ClientChannel]":
        """The account's clients here, or those of some actors."""
        if actor_ids is None:
            return self._clients.of(_ACCOUNT, account_id)
        wanted = dict.fromkeys(actor_ids)
        return [one for actor in wanted for one in self._clients.of(_ACTOR, (account_id, ActorId(actor)))]

    def all_clients(self) -> "list[ClientChannel]":
        """Every client of every account here."""
        return self._clients.values()

    # --- gateways ---------------------------------------------------------------------------------------------------

    def add_gateway(self, channel: "GatewayChannel") -> bool:
        """Registers a gateway; false if its id is connected already by another program: the first one wins."""
        older = self._gateways.get(channel.device_id)
        known: GatewayHandle | None = older or self.remote.gateway(channel.device_id)
        if known is not None and not known.gives_way_to(channel.device.public_key):
            return False
        channel.replaces = known.order if known else None
        channel.order = self._next_order(channel.replaces)
        self._gateways.put(channel.device_id, channel)
        if older is not None:
            self._say_gone(older)
            older.close()
        self._say(channel)
        return True

    def remove_gateway(self, channel: "GatewayChannel") -> None:
        """Forgets a gateway."""
        if self._gateways.get(channel.device_id) is channel:
            self._gateways.remove(channel.device_id)
            self._say_gone(channel)

    def local_gateway(self, account_id: AccountId, gateway_id: str) -> "GatewayChannel | None":
        """The account's gateway with that id, if it is connected to this portal."""
        channel = self._gateways.get(GatewayId(gateway_id))
        return channel if channel is not None and channel.account_id == account_id else None

    def gateway(self, account_id: AccountId, gateway_id: str) -> GatewayHandle | None:
        """The account's gateway with that id, if it is connected."""
        local = self.local_gateway(account_id, gateway_id)
        if local is not None:
            return local
        remote = self.remote.gateway(GatewayId(gateway_id))
        return remote if remote is not None and remote.account_id == account_id else None

    def gateways(self, account_id: AccountId) -> "list[GatewayChannel]":
        """The account's gateways here."""
        return self._gateways.of(_ACCOUNT, account_id)

    def all_gateways(self) -> "list[GatewayChannel]":
        """Every gateway of every account here."""
        return self._gateways.values()

    def online_gateways(self, account_id: AccountId, site_id: SiteId | None) -> list[GatewayHandle]:
        """The gateways of a site that can serve requests, those of other portals behind ours."""
        local = [channel for channel in self._gateways.of(_SITE, (account_id, site_id)) if channel.is_joined]
        ours = {channel.device_id for channel in local}
        others = self.remote.gateways(account_id, site_id)
        return [*local, *(one for one in others if one.is_joined and one.device_id not in ours)]

    # --- relays -----------------------------------------------------------------------------------------------------

    def add_relay(self, channel: "RelayChannel") -> "RelayChannel | None":
        """Registers a relay and gives the older channel with the same secret here, which is over now."""
        older = self._relays.put(channel.relay_id, channel)
        known = self.remote.relay(channel.relay_id)
        channel.replaces = known.order if known else None
        if older is not None and older is not channel:
            self._say_gone(older)
        channel.order = self._next_order(channel.replaces)
        self._say(channel)
        self.tell_about_relays()
        return older if older is not channel else None

    def remove_relay(self, channel: "RelayChannel") -> None:
        """Forgets a relay, unless a newer channel took its place."""
        if self._relays.get(channel.relay_id) is channel:
            self._relays.remove(channel.relay_id)
            self._say_gone(channel)
            self.tell_about_relays()

    def local_relay(self, relay_id: RelayId) -> "RelayChannel | None":
        """The relay with that id, if it is connected to this portal."""
        return self._relays.get(relay_id)

    def relays(self) -> dict[RelayId, RelayHandle]:
        """All relays that are connected, but for those whose address a later one has: it was started again since."""
        everywhere: list[RelayHandle] = [*self._relays.values(), *self.remote.relays()]
        latest: dict[object, RelayHandle] = {}
        for relay in sorted(everywhere, key=lambda one: one.order):
            latest.pop(relay.address, None)
            latest[relay.address] = relay
        return {relay.relay_id: relay for relay in latest.values()}

    def tell_about_relays(self) -> None:
        """A relay came or went, here or elsewhere."""
        for listener in list(self.relay_listeners.values()):
            listener()

    # --- everyone ---------------------------------------------------------------------------------------------------

    def with_token(self, token_id: TokenId) -> "Iterator[ClientChannel | GatewayChannel | RelayChannel]":
        """Every channel here that joined with that token."""
        yield from self._clients.of(_TOKEN, token_id)
        yield from self._gateways.of(_TOKEN, token_id)
        yield from self._relays.of(0, token_id)

    def all_channels(self) -> "list[ClientChannel | GatewayChannel | RelayChannel]":
        """Every channel here."""
        return [*self._clients.values(), *self._gateways.values(), *self._relays.values()]

    def is_online(self, account_id: AccountId, device_id: str) -> bool:
        """Whether a client or gateway of the account is connected."""
        return (self.client(account_id, device_id) or self.gateway(account_id, device_id)) is not None

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        """The site's gateways that can serve requests, as the choice among them looks at them."""
        return [channel.online for channel in self.online_gateways(account_id, site_id)]

    # --- for other portals --------------------------------------------------------------------------------------------

    def changed(self, channel: "ClientChannel | GatewayChannel") -> None:
        """What others know of a channel is different now."""
        held: object = self._clients.get(ClientId(channel.device.id)) or self._gateways.get(
            GatewayId(channel.device.id)
        )
        if held is channel:
            self._say(channel)

    def watch_silence(self) -> None:
        """Says which gateways missed their heartbeat, or are heard again."""
        for gateway in self._gateways.values():
            if gateway.is_silent != gateway.was_silent:
                gateway.was_silent = gateway.is_silent
                self._say(gateway)

    def records(self) -> Iterator[Record]:
        """Everything that others must know."""
        for channel in self.all_channels():
            yield channel.record

    def count(self) -> int:
        """How many channels there are here."""
        return len(self._clients) + len(self._gateways) + len(self._relays)
