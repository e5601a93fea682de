"""The conversation with a gateway: who it lets in, until when, and its candidates for clients."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

from wardgate.ids import AccountId, GatewayId, ResourceId, SiteId, TokenId
from wardgate.portal.channels import views
from wardgate.portal.channels.base import Channel, Transport
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.relays import RelayShare
from wardgate.portal.channels.views import DeviceFacts
from wardgate.portal.db import authorizations
from wardgate.portal.db.tables import GatewayToken
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Subject
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame, Topic

MAX_PENDING: Final = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a gateway, or a client that others reach, was last told about one client and one resource."""

    authorization_id: str
    expires_at: datetime


class Grants:
    """The grants of one receiver: the newest for each client and resource."""

    def __init__(self, clock_now: Callable[[], datetime]) -> None:
        self._now = clock_now
        self._by_pair: dict[tuple[str, str], Grant] = {}
        self._gone_early: set[str] | None = None

    def begin_loading(self) -> None:
        """Remembers deletions until the stored grants have been read."""
        self._gone_early = set()

    def load(self, rows: Iterable[tuple[str, str, Grant]]) -> None:
        """Replaces everything by what is stored, except for what was deleted meanwhile."""
        gone, self._gone_early = self._gone_early or set(), None
        self._by_pair = {
            (client, resource): grant for client, resource, grant in rows if grant.authorization_id not in gone
        }

    def refs(self) -> tuple[portal.AuthorizationRef, ...]:
        """All of them, as an init lists them."""
        return tuple(
            views.authorization_ref(client, resource, grant.expires_at)
            for (client, resource), grant in self._by_pair.items()
        )

    def add(self, client_id: str, resource_id: str, grant: Grant) -> None:
        """A new grant takes the place of an older one."""
        self._by_pair[client_id, resource_id] = grant

    def remove(self, client_id: str, resource_id: str, authorization_id: str) -> bool:
        """Forgets a grant; whether its receiver must be told, because it was the current one and still valid."""
        if self._gone_early is not None:
            self._gone_early.add(authorization_id)
        grant = self._by_pair.get((client_id, resource_id))
        if grant is None or grant.authorization_id != authorization_id:
            return False
        del self._by_pair[client_id, resource_id]
        return grant.expires_at > self._now()

    def clear_client(self, client_id: str) -> list[str]:
        """Forgets all grants of one client and gives their resources."""
        resources = [resource for client, resource in self._by_pair if client == client_id]
        for resource in resources:
            del self._by_pair[client_id, resource]
        return resources

    def has_resource(self, resource_id: str) -> bool:
        """Whether anyone may reach that resource here."""
        return any(resource == resource_id for _, resource in self._by_pair)

    def pairs(self) -> list[tuple[str, str]]:
        """Client and resource of each valid grant."""
        now = self._now()
        return [pair for pair, grant in self._by_pair.items() if grant.expires_at > now]

    def prune(self) -> None:
        """Forgets what is over."""
        now = self._now()
        self._by_pair = {pair: grant for pair, grant in self._by_pair.items() if grant.expires_at > now}


@dataclass(frozen=True, slots=True)
class PendingAck:
    """A request that the gateway has not acknowledged yet."""

    acknowledged: Callable[[str], None]


SILENT_S: Final = 12.0
"""Longer than between two heartbeats, shorter than a gateway that starts keeps trying."""


class GatewayChannel(Channel):
    """One gateway."""

    topic: ClassVar[Topic] = "gateway"

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        version: ApiVersion,
        *,
        subject: Subject,
        token_id: TokenId,
        device: DeviceFacts,
        site_id: SiteId,
        previous_key: str | None,
    ) -> None:
        super().__init__(hub, transport, version)
        self.subject = subject
        self.token_id = token_id
        self.device = device
        self.device_id = GatewayId(device.id)
        self.account_id: AccountId = subject.account_id
        self.site_id = site_id
        self.has_iceless = False
        self.grants = Grants(hub.clock.utc_now)
        self._previous_key = previous_key
        self._pending: OrderedDict[str, PendingAck] = OrderedDict()
        self._relays = RelayShare(
            hub,
            public_key=device.public_key,
            expires_at=portal.NEVER_IN_PRACTICE,
            location=device.location,
            push=self.push,
        )

    @property
    def online(self) -> OnlineGateway:
        """What the choice of a gateway looks at."""
        return OnlineGateway(self.device_id, self.device.version, self.device.location)

    def gives_way_to(self, public_key: str) -> bool:
        """Whether a gateway of this id that comes with this key takes the place of the one here.

        The same key is the same program, whose network changed, as every start of a gateway makes its own. Another one
        is a second gateway, unless the one here has missed its heartbeat: then its host is gone, or what is between,
        and nobody could end the connection.
        """
        return public_key == self.device.public_key or self.hub.clock.now() - self.heard_at > SILENT_S

    async def join(self, frame: Frame) -> None:
        """Confirms, tells the grants that are still valid, and opens the gateway for requests."""
        if not self.is_joined:
            self.hub.metrics.connected.labels("gateway").inc()
            self.hub.metrics.joins.labels("gateway").inc()
        self.is_joined = True
        self.reply_ok(frame)
        await self.send_init()
        if self._previous_key not in (None, self.device.public_key):
            self._renew_clients()
        self._previous_key = self.device.public_key

    async def send_init(self) -> None:
        """Sends everything a gateway needs to know."""
        self.grants.begin_loading()
        async with self.hub.db.scoped(self.subject) as scope:
            account = await scope.account()
            if await scope.find(GatewayToken, self.token_id) is None:
                self.disconnect()
                return
            rows = await authorizations.of_receiver(scope, self.device_id, self.hub.clock.utc_now())
        self.grants.load((row.initiating_device_id, row.resource_id, Grant(row.id, row.expires_at)) for row in rows)
        self.push(
            portal.GatewayInit(
                interface=portal.GatewayInterface(
                    ipv4=IPv4Address(self.device.ipv4), ipv6=IPv6Address(self.device.ipv6)
                ),
                config=portal.GatewayConfig(),
                relays=self._relays.select(),
                account_slug=account.slug,
                authorizations=self.grants.refs(),
                flow_logs=self.hub.flow_logs,
            )
        )

    def _renew_clients(self) -> None:
        """A gateway with a new key does not know its peers: their clients are made to ask again at once."""
        for client_id, resource_id in self.grants.pairs():
            client = self.hub.presence.client(self.account_id, client_id)
            if client is not None:
                client.request_refresh(reset={ResourceId(resource_id)})

    async def handle_message(self, frame: Frame) -> bool:
        """Handles what gateways say."""
        match portal.decode_from_gateway(frame.event, frame.payload, self.version):
            case portal.SetSnownetCapabilities(iceless=iceless):
                self.has_iceless = iceless
            case portal.AuthorizationAcknowledged(ref=ref):
                self._acknowledge(frame, ref)
            case portal.BroadcastClientCandidates(client_ids=client_ids, candidates=candidates):
                for client_id in client_ids:
                    self._push_to_client(
                        client_id, portal.GatewayIceCandidates(gateway_id=self.device_id, candidates=candidates)
                    )
            case portal.BroadcastWithdrawnClientCandidates(client_ids=client_ids, candidates=candidates):
                for client_id in client_ids:
                    self._push_to_client(
                        client_id,
                        portal.InvalidateGatewayIceCandidates(gateway_id=self.device_id, candidates=candidates),
                    )
            case portal.NoRelays():
                self._relays.answer_no_relays()
            case portal.Unknown():
                return False
        return True

    def _acknowledge(self, frame: Frame, ref: str) -> None:
        pending = self._pending.pop(ref, None)
        if pending is None:
            self.reply_error(frame, portal.INVALID_REF)
            return
        self.reply_ok(frame)
        pending.acknowledged(ref)

    def _push_to_client(self, client_id: str, message: portal.Message) -> None:
        client = self.hub.presence.client(self.account_id, client_id)
        if client is not None:
            client.push(message)

    def new_ref(self, acknowledged: Callable[[str], None]) -> str:
        """A reference for one request; the oldest is forgotten when too many wait."""
        ref = secrets.token_urlsafe(18)
        self._pending[ref] = PendingAck(acknowledged)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        return ref

    def create(self, message: portal.CreateAuthorization, grant: Grant) -> None:
        """Lets a client in."""
        self.grants.add(message.client.id, message.resource.id, grant)
        self.push(message)

    def reject(self, client_id: str, resource_id: str, authorization_id: str) -> None:
        """A grant was deleted: the gateway is told if it still counts on it."""
        if self.grants.remove(client_id, resource_id, authorization_id):
            self.push(portal.RejectAccess.model_validate({"client_id": client_id, "resource_id": resource_id}))

    def leave(self) -> None:
        """Takes the gateway out of presence; clients notice by themselves and ask again."""
        if self.is_joined:
            self.is_joined = False
            self.hub.metrics.connected.labels("gateway").dec()
        self._relays.close()
        self._pending.clear()
        self.hub.presence.remove_gateway(self)
