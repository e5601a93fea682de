"""The conversation with a gateway: who it lets in, until when, and its candidates for clients."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final, Protocol

from wardgate.ids import AccountId, GatewayId, ResourceId, SiteId, TokenId
from wardgate.portal.channels import renewals, views
from wardgate.portal.channels.base import Channel, Transport, log
from wardgate.portal.channels.handles import Answered, Grant
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.relays import RelayShare
from wardgate.portal.channels.views import DeviceFacts, GrantFacts
from wardgate.portal.clock import Timer
from wardgate.portal.cluster.messages import GatewayRecord
from wardgate.portal.db import authorizations, outbox
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import GatewayToken, PolicyAuthorization
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Subject
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame, Topic
from wardgate.wire.portal_secrets import PskParty

MAX_PENDING: Final = 10_000


class Grants:
    """The grants of one receiver: the newest for each client and resource."""

    def __init__(self, clock_now: Callable[[], datetime]) -> None:
        self._now = clock_now
        self._by_pair: dict[tuple[str, str], Grant] = {}
        self._gone_early: set[str] | None = None
        self._came_early: dict[tuple[str, str], Grant] = {}

    def begin_loading(self) -> None:
        """Remembers what comes and goes until the stored grants have been read."""
        self._gone_early = set()
        self._came_early = {}

    def load(self, rows: Iterable[tuple[str, str, Grant]]) -> None:
        """Replaces everything by what is stored, except for what came or was deleted meanwhile."""
        gone, self._gone_early = self._gone_early or set(), None
        came, self._came_early = self._came_early, {}
        stored = {(client, resource): grant for client, resource, grant in rows}
        self._by_pair = {pair: grant for pair, grant in (stored | came).items() if grant.authorization_id not in gone}

    def refs(self) -> tuple[portal.AuthorizationRef, ...]:
        """All of them, as an init lists them."""
        return tuple(
            views.authorization_ref(client, resource, grant.expires_at)
            for (client, resource), grant in self._by_pair.items()
        )

    def add(self, client_id: str, resource_id: str, grant: Grant) -> None:
        """A new grant takes the place of an older one."""
        self._by_pair[client_id, resource_id] = grant
        if self._gone_early is not None:
            self._came_early[client_id, resource_id] = grant

    def remove(
        self, client_id: str, resource_id: str, authorization_id: str, authorized_at: datetime | None = None
    ) -> bool:
        """Forgets a grant; whether its receiver must be told, because it was the current one and still valid.

        One that is newer than the current took its place and was lost on the way here: both are over.
        """
        if self._gone_early is not None:
            self._gone_early.add(authorization_id)
        grant = self._by_pair.get((client_id, resource_id))
        if grant is None:
            return False
        is_newer = None not in (authorized_at, grant.authorized_at) and authorized_at > grant.authorized_at  # type: ignore[operator]
        if grant.authorization_id != authorization_id and not is_newer:
            return False
        del self._by_pair[client_id, resource_id]
        return grant.expires_at > self._now()

    def extend(self, client_id: str, resource_id: str, grant: Grant) -> bool:
        """A grant lasts until another moment; whether its receiver must be told."""
        known = self._by_pair.get((client_id, resource_id))
        if known is None or known.authorization_id != grant.authorization_id or known == grant:
            return False
        self._by_pair[client_id, resource_id] = grant
        return True

    def snapshot(self) -> dict[tuple[str, str], Grant]:
        """What is known at this moment, by client and resource."""
        return dict(self._by_pair)

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


class Receiver(Protocol):
    """Who holds grants: a gateway, or a client that others reach."""

    hub: Hub
    subject: Subject
    grants: Grants

    @property
    def device_id(self) -> str:
        """Whose they are."""

    def reject(
        self, client_id: str, resource_id: str, authorization_id: str, authorized_at: datetime | None = None
    ) -> None:
        """A grant is no more."""

    def extend(self, grant: PolicyAuthorization, facts: GrantFacts) -> None:
        """A grant ends at another moment."""


async def reconcile(receiver: Receiver) -> None:
    """Ends what the database does not know any more, and corrects ends that are others there."""
    before = receiver.grants.snapshot()
    if not before:
        return
    async with receiver.hub.db.scoped(receiver.subject) as scope:
        at = receiver.hub.clock.utc_now()
        stored = {row.id: row for row in await authorizations.of_receiver(scope, receiver.device_id, at)}
        for (client_id, resource_id), grant in before.items():
            row = stored.get(grant.authorization_id)
            if row is None:
                receiver.reject(client_id, resource_id, grant.authorization_id)
            elif row.expires_at != grant.expires_at:
                facts = await renewals.stored_facts(scope, row)
                if facts is not None:
                    receiver.extend(row, facts)


@dataclass(frozen=True, slots=True)
class PendingAck:
    """A request that the gateway has not acknowledged yet."""

    acknowledged: Answered
    refused: Answered


RECONCILE_S: Final = 900.0
"""How often the grants at a receiver are compared with the database for no reason that is known."""
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
        self.was_silent = False
        self._previous_key = previous_key
        self._pending: OrderedDict[str, PendingAck] = OrderedDict()
        self._reconciling: Timer | None = None
        self._reconciler: asyncio.Task[None] | None = None
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
        return public_key == self.device.public_key or self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether it missed its heartbeat."""
        return self.hub.clock.now() - self.heard_at > SILENT_S

    @property
    def record(self) -> GatewayRecord:
        """What other portals must know."""
        return GatewayRecord(
            order=self.order,
            account_id=self.account_id,
            site_id=self.site_id,
            token_id=self.token_id,
            device=views.device_record(self.device),
            has_iceless=self.has_iceless,
            is_joined=self.is_joined,
            is_silent=self.was_silent,
            replaces=self.replaces,
        )

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it."""
        return self.device.psk_party

    async def join(self, frame: Frame) -> None:
        """Confirms, tells the grants that are still valid, and opens the gateway for requests."""
        if not self.is_joined:
            self.hub.metrics.connected.labels("gateway").inc()
            self.hub.metrics.joins.labels("gateway").inc()
        self.is_joined = True
        self.hub.presence.changed(self)
        self.reply_ok(frame)
        await self.send_init()
        if self._previous_key not in (None, self.device.public_key):
            await self._renew_clients()
        self._previous_key = self.device.public_key
        self._reconcile_later()

    async def send_init(self) -> None:
        """Sends everything a gateway needs to know."""
        self.grants.begin_loading()
        async with self.hub.db.scoped(self.subject) as scope:
            account = await scope.account()
            if await scope.find(GatewayToken, self.token_id) is None:
                self.disconnect()
                return
            rows = await authorizations.of_receiver(scope, self.device_id, self.hub.clock.utc_now())
        self.grants.load(
            (row.initiating_device_id, row.resource_id, Grant(row.id, row.expires_at, row.inserted_at)) for row in rows
        )
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

    def _reconcile_later(self) -> None:
        if self._reconciling is not None:
            self._reconciling.cancel()
        self._reconciling = self.hub.clock.call_later(
            RECONCILE_S * self.hub.spread(self.device_id), self._reconcile_now
        )

    def _reconcile_now(self) -> None:
        self._reconciler = asyncio.get_running_loop().create_task(self._reconcile())

    async def _reconcile(self) -> None:
        """Finds what was missed, or done behind the portal's back."""
        try:
            await reconcile(self)
        except Exception:
            self.hub.metrics.failures.labels("reconcile").inc()
            log.exception("the grants of a gateway could not be compared", gateway_id=self.device_id)
        self._reconcile_later()

    async def _renew_clients(self) -> None:
        """A gateway with a new key does not know its peers: their clients are made to ask again at once.

        Those that are not here are reached through the database, lest a message be lost that keeps them from asking.
        """
        elsewhere = []
        for client_id, resource_id in self.grants.pairs():
            client = self.hub.presence.local_client(self.account_id, client_id)
            if client is not None:
                client.request_refresh(reset={ResourceId(resource_id)})
            else:
                elsewhere.append((client_id, resource_id))
        if elsewhere and self.hub.cluster is not None:
            await outbox.request_refresh(self.hub.db, self.account_id, elsewhere)

    async def handle_message(self, frame: Frame) -> bool:
        """Handles what gateways say."""
        match portal.decode_from_gateway(frame.event, frame.payload, self.version):
            case portal.SetSnownetCapabilities(iceless=iceless):
                self.has_iceless = iceless
                self.hub.presence.changed(self)
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

    def new_ref(self, acknowledged: Answered, refused: Answered) -> str:
        """A reference for one request; one of the two is called with it, once, or neither."""
        ref = secrets.token_urlsafe(18)
        self.expect(ref, acknowledged, refused)
        return ref

    def expect(self, ref: str, acknowledged: Answered, refused: Answered) -> None:
        """Waits for the answer to one request; the oldest is forgotten when too many wait."""
        self._pending[ref] = PendingAck(acknowledged, refused)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    def create(self, message: portal.CreateAuthorization, grant: Grant) -> None:
        """Lets a client in, unless that was revoked meanwhile."""
        if grant.authorization_id in self.hub.presence.ended:
            pending = self._pending.pop(message.ref, None)
            if pending is not None:
                pending.refused(message.ref)
            return
        self.grants.add(message.client.id, message.resource.id, grant)
        self.push(message)

    async def readdress(self, ipv4: str, ipv6: str) -> None:
        """The gateway has other tunnel addresses: everything is told anew."""
        self.device = replace(self.device, ipv4=ipv4, ipv6=ipv6)
        self.hub.presence.changed(self)
        await self.send_init()

    def extend(self, grant: PolicyAuthorization, facts: GrantFacts) -> None:
        """A grant ends at another moment: the gateway is told if it counts on it."""
        known = Grant(grant.id, grant.expires_at, grant.inserted_at)
        if self.grants.extend(grant.initiating_device_id, grant.resource_id, known):
            message = renewals.for_gateway(self, grant, facts)
            if message is not None:
                self.push(message)

    def reject(
        self, client_id: str, resource_id: str, authorization_id: str, authorized_at: datetime | None = None
    ) -> None:
        """A grant was deleted: the gateway is told if it still counts on it."""
        if self.grants.remove(client_id, resource_id, authorization_id, authorized_at):
            self.push(portal.RejectAccess.model_validate({"client_id": client_id, "resource_id": resource_id}))

    def leave(self) -> None:
        """Takes the gateway out of presence; clients notice by themselves and ask again."""
        if self.is_joined:
            self.is_joined = False
            self.hub.metrics.connected.labels("gateway").dec()
        if self._reconciling is not None:
            self._reconciling.cancel()
        if self._reconciler is not None:
            self._reconciler.cancel()
        self._relays.close()
        self._pending.clear()
        self.hub.presence.remove_gateway(self)
