"""The conversation with a client: what it may reach, kept up to date, and its requests for access."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from wardgate.errors import NotFound
from wardgate.ids import AccountId, ActorId, ClientId, GatewayId, ResourceId, TokenId
from wardgate.portal.channels import views
from wardgate.portal.channels.asks import Asks
from wardgate.portal.channels.base import Channel, Transport, log
from wardgate.portal.channels.gateway import Grant, Grants
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.pools import Pools, pool_addresses
from wardgate.portal.channels.relays import RelayShare
from wardgate.portal.channels.views import DeviceFacts
from wardgate.portal.clock import Timer
from wardgate.portal.db import access, authorizations
from wardgate.portal.db.refusals import Refusal
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken, Device
from wardgate.portal.domain import versions
from wardgate.portal.domain.authorizations import connectable
from wardgate.portal.domain.conditions import Circumstances
from wardgate.portal.domain.resources import ResourceFacts, client_view
from wardgate.portal.domain.subjects import Subject
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, ClientResource, Frame, Topic

_RECHECK_S: Final = 60.0
_MAX_TIMER_S: Final = 24 * 3600.0


class ClientChannel(Channel):
    """One client."""

    topic: ClassVar[Topic] = "client"

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        version: ApiVersion,
        *,
        subject: Subject,
        token_id: TokenId,
        token_expires_at: datetime,
        device: DeviceFacts,
        previous_key: str | None,
    ) -> None:
        super().__init__(hub, transport, version)
        assert subject.actor_id is not None
        self.subject = subject
        self.token_id = token_id
        self.token_expires_at = token_expires_at
        self.device = device
        self.device_id = ClientId(device.id)
        self.account_id: AccountId = subject.account_id
        self.actor_id: ActorId = subject.actor_id
        self.has_iceless = False
        self.grants = Grants(hub.clock.utc_now)
        self.resources: dict[ResourceId, ResourceFacts] = {}
        self._views: dict[ResourceId, ClientResource] = {}
        self._previous_key = previous_key
        self._old_site_names = not versions.reads_sites(device.user_agent, device.version)
        self._resets: set[ResourceId] = set()
        self._is_stale = asyncio.Event()
        self._list_lock = asyncio.Lock()
        self._refresher: asyncio.Task[None] | None = None
        self._expiry: Timer | None = None
        self._recheck: Timer | None = None
        self._asks = Asks(self)
        self._pools = Pools(self)
        self._relays = RelayShare(
            hub,
            public_key=device.public_key,
            expires_at=int(token_expires_at.timestamp()),
            location=device.location,
            push=self.push,
        )

    # --- joining and leaving ----------------------------------------------------------------------------------------

    async def join(self, frame: Frame) -> None:
        """Confirms and sends the init; an older connection of the same device is closed."""
        if not self.is_joined:
            self.hub.metrics.connected.labels("client").inc()
        self.is_joined = True
        older = self.hub.presence.add_client(self)
        if older is not None:
            older.close()
        self.reply_ok(frame)
        await self.send_init()
        if self._refresher is None:
            self._refresher = asyncio.get_running_loop().create_task(self._refresh_when_stale())
            self._watch_expiry()
        if self._previous_key not in (None, self.device.public_key):
            self._pools.renew_initiators()
        self._previous_key = self.device.public_key

    async def send_init(self) -> None:
        """Sends everything a client needs to know."""
        async with self._list_lock:
            self._resets.clear()
            self._is_stale.clear()
            self.grants.begin_loading()
            async with self.hub.db.scoped(self.subject) as scope:
                account = await scope.account()
                if await scope.find(ClientToken, self.token_id) is None:
                    self.disconnect()
                    return
                await self._load_list(scope)
                rows = await authorizations.of_receiver(scope, self.device_id, self.hub.clock.utc_now())
            self.grants.load((row.initiating_device_id, row.resource_id, Grant(row.id, row.expires_at)) for row in rows)
            self.push(
                portal.ClientInit(
                    interface=views.interface(self.device, account.config),
                    resources=tuple(self._views.values()),
                    relays=self._relays.select(),
                    authorizations=self.grants.refs(),
                    flow_logs=self.hub.flow_logs,
                )
            )

    def push(self, message: portal.Message, *, old_client: bool = False) -> None:
        """Sends a message, with the names that a client this old knows."""
        super().push(message, old_client=old_client or self._old_site_names)

    def leave(self) -> None:
        """Takes the client out of presence and stops its timers."""
        if self.is_joined:
            self.is_joined = False
            self.hub.metrics.connected.labels("client").dec()
        if self._refresher is not None:
            self._refresher.cancel()
        for timer in (self._expiry, self._recheck):
            if timer is not None:
                timer.cancel()
        self._asks.close()
        self._relays.close()
        self.hub.presence.remove_client(self)

    def _watch_expiry(self) -> None:
        left_s = (self.token_expires_at - self.hub.clock.utc_now()).total_seconds()
        if left_s <= 0:
            self.disconnect()
        elif left_s > _MAX_TIMER_S:
            self._expiry = self.hub.clock.call_later(_MAX_TIMER_S, self._watch_expiry)
        else:
            self._expiry = self.hub.clock.call_later(left_s, self.disconnect)

    # --- messages ---------------------------------------------------------------------------------------------------

    async def handle_message(self, frame: Frame) -> bool:
        """Handles what clients say."""
        match portal.decode_from_client(frame.event, frame.payload, self.version):
            case portal.SetSnownetCapabilities(iceless=iceless):
                self.has_iceless = iceless
            case portal.RequestAuthorization() as request:
                await self._request(request)
            case portal.ResolveDevicePoolDomain() as query:
                await self._pools.resolve(query)
            case portal.NewGatewayCandidates(gateway_id=gateway_id, candidates=candidates):
                self._to_gateways([gateway_id], candidates, is_withdrawn=False)
            case portal.WithdrawnGatewayCandidates(gateway_id=gateway_id, candidates=candidates):
                self._to_gateways([gateway_id], candidates, is_withdrawn=True)
            case portal.BroadcastGatewayCandidates(gateway_ids=gateway_ids, candidates=candidates):
                self._to_gateways(gateway_ids, candidates, is_withdrawn=False)
            case portal.BroadcastWithdrawnGatewayCandidates(gateway_ids=gateway_ids, candidates=candidates):
                self._to_gateways(gateway_ids, candidates, is_withdrawn=True)
            case portal.NewPeerCandidates(client_id=client_id, candidates=candidates):
                self._pools.send_candidates(client_id, candidates)
            case portal.WithdrawnPeerCandidates(client_id=client_id, candidates=candidates):
                self._pools.withdraw_candidates(client_id, candidates)
            case portal.NoRelays():
                self._relays.answer_no_relays()
            case portal.RequestDeviceAccess():
                pass
            case portal.Unknown():
                return False
        return True

    async def _request(self, request: portal.RequestAuthorization) -> None:
        resource = self.resources.get(request.resource_id)
        if resource is not None and resource.type in ("static_device_pool", "dynamic_device_pool"):
            await self._pools.request(request, resource)
        else:
            await self._asks.request(request, resource)

    def _to_gateways(
        self,
        gateway_ids: Sequence[GatewayId],
        candidates: tuple[str, ...],
        *,
        is_withdrawn: bool,
    ) -> None:
        kind = portal.InvalidateClientIceCandidates if is_withdrawn else portal.ClientIceCandidates
        for gateway_id in gateway_ids:
            gateway = self.hub.presence.gateway(self.account_id, gateway_id)
            if gateway is not None:
                gateway.push(kind(client_id=self.device_id, candidates=candidates))

    # --- the list of resources --------------------------------------------------------------------------------------

    def request_refresh(self, reset: "set[ResourceId] | None" = None) -> None:
        """Something changed: the list is computed again soon.

        Args:
            reset: Resources whose grant ended; if they stay in the list, the client is made to ask anew.
        """
        self._resets |= reset or set()
        self._is_stale.set()

    async def wait_refreshed(self) -> None:
        """Returns when the list is computed, and what changed is sent."""
        while self._is_stale.is_set() or self._list_lock.locked():
            async with self._list_lock:  # whoever computes holds it; who waits for it comes before us, or soon after
                await asyncio.sleep(0)

    def grant_ended(self, resource_id: ResourceId, authorization_id: str) -> None:
        """A grant of this client was deleted, whatever it was waiting for."""
        self._asks.revoke(resource_id, authorization_id)

    def circumstances(self, *, is_verified: bool) -> Circumstances:
        """What conditions look at: of this connection, now."""
        return Circumstances(
            self.hub.clock.utc_now(),
            self.device.remote_ip,
            self.device.location.region,
            self.subject.auth_provider_id,
            is_verified,
        )

    def note_refusal(self, resource_id: ResourceId, reason: str, violated: tuple[str, ...] = ()) -> None:
        """Keeps that a request got no access, for whoever asks why."""
        device, at = self.device, self.hub.clock.utc_now()
        refusal = Refusal(
            self.account_id, self.actor_id, resource_id, self.device_id, reason, violated, device.remote_ip, at
        )
        self.hub.refusals.note(refusal)

    async def _refresh_when_stale(self) -> None:
        while True:
            await self._is_stale.wait()
            try:
                async with self.hub.refreshes, self._list_lock:
                    await self._refresh()
            except NotFound:
                return
            except Exception:
                self.hub.metrics.failures.labels("refresh").inc()
                log.exception("the list of a client could not be computed", client_id=self.device_id)
                self.close()
                return

    async def _refresh(self) -> None:
        resets, self._resets = self._resets, set()
        self._is_stale.clear()
        before, before_facts = dict(self._views), self.resources
        async with self.hub.db.scoped(self.subject) as scope:
            await self._load_list(scope)
        self._pools.deny_lost(before, self._views)
        deleted = [one for one in before if one not in self._views or one in resets or self._moved(before_facts, one)]
        for resource_id in deleted:
            self.push(portal.ResourceDeleted(resource_id=resource_id))
        for resource_id, view in self._views.items():
            if resource_id in deleted or before.get(resource_id) != view:
                self.push(portal.ResourceCreatedOrUpdated(resource=view))

    def _moved(self, before: dict[ResourceId, ResourceFacts], resource_id: ResourceId) -> bool:
        """Whether a client this old must see a moved resource go and come back."""
        old, new = before.get(resource_id), self.resources.get(resource_id)
        if old is None or new is None or old.site_id == new.site_id:
            return False
        return not versions.takes_site_change(self.device.user_agent, self.device.version)

    async def _load_list(self, scope: Scope) -> None:
        actor, device = await scope.find(Actor, self.actor_id), await scope.find(Device, self.device_id)
        if actor is None or device is None:
            raise NotFound("the client is gone")
        rules = await access.rules_of_actor(scope, actor)
        granted = connectable(rules, self.circumstances(is_verified=device.verified_at is not None))
        facts = await access.resource_facts(scope, granted)
        seen = ((one, client_view(fact, self.device.user_agent, self.device.version)) for one, fact in facts.items())
        self._views = {one: view for one, view in seen if view is not None}
        self.resources = {one: facts[one] for one in self._views}
        if any(condition.property == "current_utc_datetime" for rule in rules for condition in rule.conditions):
            self._recheck_later()

    def _recheck_later(self) -> None:
        """A time window may open or close: looks again in a minute."""
        if self._recheck is not None:
            self._recheck.cancel()
        self._recheck = self.hub.clock.call_later(_RECHECK_S, self.request_refresh)

    def holds_address(self, address: str) -> bool:
        """Whether any listed pool has a device with that address."""
        return any(address in pool_addresses(view) for view in self._views.values())

    def announce_config(self, config: dict[str, Any]) -> None:
        """The account's network configuration changed."""
        self.push(portal.ConfigChanged(interface=views.interface(self.device, config)))

    # --- as the target of others --------------------------------------------------------------------------------------

    def reject(self, client_id: str, resource_id: str, authorization_id: str) -> None:
        """A grant to reach this device was deleted: it is told if it still counts on it."""
        if self.grants.remove(client_id, resource_id, authorization_id):
            self.push(portal.RejectAccess.model_validate({"client_id": client_id, "resource_id": resource_id}))
