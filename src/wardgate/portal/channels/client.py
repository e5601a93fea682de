"""The conversation with a client: what it may reach, kept up to date, and its requests for access."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Final

from wardgate.errors import DatabaseUnavailable, NotFound
from wardgate.ids import AccountId, ActorId, ClientId, GatewayId, ResourceId, TokenId
from wardgate.portal.channels import renewals, views
from wardgate.portal.channels.asks import Asks
from wardgate.portal.channels.base import Channel, Transport, log
from wardgate.portal.channels.gateway import Grants, reconcile
from wardgate.portal.channels.handles import Grant
from wardgate.portal.channels.held import RENEW_AHEAD, HeldGrant, HeldGrants
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.listed import FactsOf, Listed, ViewsOf
from wardgate.portal.channels.lists import Look, Patch, may_reach
from wardgate.portal.channels.pools import Pools, pool_addresses
from wardgate.portal.channels.relays import RelayShare
from wardgate.portal.channels.views import DeviceFacts, GrantFacts
from wardgate.portal.clock import Timer
from wardgate.portal.cluster.messages import ClientRecord
from wardgate.portal.db import authorizations
from wardgate.portal.db.authorizations import Past
from wardgate.portal.db.refusals import Refusal
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import PolicyAuthorization
from wardgate.portal.domain import versions
from wardgate.portal.domain.conditions import Circumstances, Condition, next_change
from wardgate.portal.domain.resources import POOL_TYPES, ResourceFacts
from wardgate.portal.domain.subjects import Subject
from wardgate.portal.services import grants
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, ClientResource, Frame, Topic
from wardgate.wire.portal_secrets import PskParty

_LOOK_EVERY_S: Final = 60.0
"""No timer is longer: the wall clock may be set, and what is due by it is then noticed."""
RECOMPUTE_S: Final = 900.0
"""How often a list is computed for no reason that is known: what was missed, or done behind the portal's back."""
_REFRESH_RETRY_S: Final = 1.0
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
        self.sight = versions.sight_of(device.user_agent, device.version)
        self._listed: dict[ResourceId, Listed] = {}
        self._actor_type: str = subject.actor_type or ""
        self._is_verified = False
        self._previous_key = previous_key
        self._old_site_names = not versions.reads_sites(device.user_agent, device.version)
        self._resets: set[ResourceId] = set()
        self._patches: list[Patch] = []
        self._is_stale = False
        self._has_init = False
        self._list_lock = asyncio.Lock()
        self._refresher: asyncio.Task[None] | None = None
        self._expiry: Timer | None = None
        self._look: Timer | None = None
        self._held = HeldGrants()
        self._past = Past((), frozenset(), False)
        self._changes_at: datetime | None = None
        self._recompute_at = 0.0
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
            self.hub.metrics.joins.labels("client").inc()
        self.is_joined = True
        older = self.hub.presence.add_client(self)
        if older is not None:
            older.close()
        self.reply_ok(frame)
        await self.send_init(is_back=True)
        if not self._has_init:
            self._has_init = True
            self._watch_expiry()
        self._start_refresher()
        if self._previous_key not in (None, self.device.public_key):
            self._pools.renew_initiators()
        self._previous_key = self.device.public_key
        await self._forget_ended()

    async def send_init(self, *, is_back: bool = False) -> None:
        """Sends everything a client needs to know.

        Args:
            is_back: Whether it may have missed the end of grants that it believes in.
        """
        async with self._list_lock:
            self._resets.clear()
            self._patches.clear()
            self._is_stale = False
            self.grants.begin_loading()
            found = await self.hub.lists.begin(self)
            if not found.has_token:
                self.disconnect()
                return
            self._adopt(found.look)
            self._listed = found.look.listed
            self._past = found.past
            self.grants.load(
                (row.initiating_device_id, row.resource_id, Grant(row.id, row.expires_at)) for row in found.grants
            )
            self._held.load(self._held_of(row) for row in self._past.held)
            init = portal.ClientInit(
                interface=views.interface(self.device, found.config),
                relays=self._relays.select(),
                authorizations=self.grants.refs(),
                flow_logs=self.hub.flow_logs,
            )
            if is_back and self._past.lost:
                listed = tuple(ViewsOf(self._listed).values())
                kept = self._still_granted(listed)
                if kept != listed:
                    self.push(init.model_copy(update={"resources": kept}))
            self._send_init(init, self._listed.values())
            self._look_later()

    def _send_init(self, init: portal.ClientInit, listed: Iterable[Listed]) -> None:
        if self.is_joined:
            resources = [one.json(old_client=self._old_site_names) for one in listed]
            self._transport.send_encoded(portal.encode_init(init, resources, old_client=self._old_site_names))

    def _held_of(self, row: PolicyAuthorization) -> HeldGrant:
        resource_id = ResourceId(row.resource_id)
        is_pool = resource_id in self.resources and self.resources[resource_id].type in POOL_TYPES
        return HeldGrant(row.id, resource_id, row.receiving_device_id if is_pool else None, row.expires_at)

    def _still_granted(self, listed: Sequence[ClientResource]) -> tuple[ClientResource, ...]:
        """What is listed, without what this program may believe it has: an init without that makes it ask anew."""
        if self._previous_key != self.device.public_key:
            return tuple(listed)
        kept: list[ClientResource] = []
        for view in listed:
            held = self._held.devices(view.id)
            if view.id not in self._past.lost or None in held:
                kept.append(view)
            elif isinstance(view, portal.StaticDevicePool) and held:
                devices = tuple(one for one in view.devices if one.client_id in held)
                kept.append(view.model_copy(update={"devices": devices}))
        return tuple(kept)

    async def _forget_ended(self) -> None:
        """The program knows now what it lost."""
        if not self._past.has_ended:
            return
        try:
            async with self.hub.db.writing(self.subject) as unit:
                await authorizations.forget_ended(unit, self.device_id)
        except Exception:
            self.hub.metrics.failures.labels("forget").inc()
            log.exception("a client will be told again what it lost", client_id=self.device_id)

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
        for timer in (self._expiry, self._look):
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
                self.hub.presence.changed(self)
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
        if resource is not None and resource.type in POOL_TYPES:
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
        self._is_stale = True
        self._start_refresher()

    def patch(self, patch: Patch, reset: "set[ResourceId] | None" = None) -> None:
        """Some resources changed: what is different is sent at once, or once the list that is being computed is there.

        Args:
            reset: Resources of the patch whose grant ended.
        """
        self._resets |= reset or set()
        if self._is_stale or not self._has_init or self._list_lock.locked():
            self._patches.append(patch)
            self._start_refresher()
            return
        try:
            self._apply(patch)
        except Exception:
            self._fail()

    async def wait_refreshed(self) -> None:
        """Returns when the list is computed, and what changed is sent."""
        while self._is_stale or self._patches or self._refresher is not None or self._list_lock.locked():
            if self._refresher is not None:
                await asyncio.wait([self._refresher])
            else:
                await asyncio.sleep(0.001)

    def hold(self, grant: HeldGrant) -> None:
        """A grant was made for this client: it is renewed in time."""
        self._held.add(grant)
        self._look_later()

    def grant_ended(self, resource_id: ResourceId, authorization_id: str) -> bool:
        """A grant of this client was deleted; whether the client counted on it and must be made to ask anew."""
        self._asks.revoke(resource_id, authorization_id)
        return self._held.end(authorization_id)

    def grant_moved(self, authorization_id: str, expires_at: datetime) -> None:
        """A grant of this client lasts until another moment."""
        if self._held.extend(authorization_id, expires_at):
            self._look_later()

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

    def _start_refresher(self) -> None:
        if self._refresher is None and self._has_init and (self._is_stale or self._patches):
            self._refresher = asyncio.get_running_loop().create_task(self._refresh_until_fresh())

    async def _refresh_until_fresh(self) -> None:
        try:
            while self._is_stale or self._patches:
                async with self._list_lock:
                    await self._refresh()
        except NotFound:
            self._patches.clear()
        except DatabaseUnavailable:
            self._is_stale = True
            self._look = self.hub.clock.call_later(_REFRESH_RETRY_S, self._start_refresher)
        except Exception:
            self._patches.clear()
            self._fail()
        finally:
            self._refresher = None

    def _fail(self) -> None:
        """The client comes back and gets a fresh init."""
        self.hub.metrics.failures.labels("refresh").inc()
        log.exception("the list of a client could not be computed", client_id=self.device_id)
        self.close()

    async def _refresh(self) -> None:
        if not self._is_stale:
            patches, self._patches = self._patches, []
            for patch in patches:
                self._apply(patch)
            return
        self._is_stale = False
        if self.hub.clock.now() >= self._recompute_at:
            await reconcile(self)
        await self._renew_held()
        self._resets |= self._held.take_ended(self.hub.clock.utc_now())
        self._patches.clear()  # the list is read after they were, so it has them
        look = await self.hub.lists.look(self)
        self._adopt(look)
        self._replace({**dict.fromkeys(self._listed), **look.listed})
        self._resets.clear()
        self._look_later()

    async def _renew_held(self) -> None:
        """Extends what ends soon; receivers hear of it as of every change, through the outbox."""
        at = self.hub.clock.utc_now()
        if not self._held.is_due(at):
            return
        async with self.hub.db.writing(self.subject) as unit:
            await grants.renew(unit, self.device_id, self.token_id, at + RENEW_AHEAD)
        self._held.tried(at)

    def _adopt(self, look: Look) -> None:
        self._actor_type, self._is_verified = look.standing.actor_type, look.standing.is_verified
        self._changes_at = next_change(look.conditions, look.at)
        self._recompute_at = self.hub.clock.now() + RECOMPUTE_S * self.hub.spread(self.device_id)

    def _apply(self, patch: Patch) -> None:
        """Looks at the resources of a patch only."""
        new: dict[ResourceId, Listed | None] = {}
        at = self.hub.clock.utc_now()
        for resource_id in patch.rules:
            rules = patch.rules_for(resource_id, self.actor_id, self._actor_type)
            is_allowed = may_reach(rules, lambda: self.circumstances(is_verified=self._is_verified))
            new[resource_id] = patch.see(resource_id, self.sight) if is_allowed else None
            self._expect_change([condition for rule in rules for condition in rule.conditions], at)
        self._replace(new)

    def _expect_change(self, conditions: Sequence[Condition], at: datetime) -> None:
        """Wakes up earlier if these conditions say something else before anything else is due."""
        change = next_change(conditions, at) if conditions else None
        if change is not None and (self._changes_at is None or change < self._changes_at):
            self._changes_at = change
            self._look_later()

    def _replace(self, new: Mapping[ResourceId, Listed | None]) -> None:
        """Puts other views, or none, in the place of some; the client is told of what is different."""
        resets = self._resets & new.keys()
        self._resets -= resets
        before = {one: self._listed[one] for one in new if one in self._listed}
        after = {one: listed for one, listed in new.items() if listed is not None}
        if any(listed.view.type == "static_device_pool" for listed in before.values()):
            others = {one: listed for one, listed in self._listed.items() if one not in new}
            self._pools.deny_lost(ViewsOf(before), ViewsOf({**others, **after}))
        deleted = [
            one for one, old in before.items() if one not in after or one in resets or self._is_moved(old, after[one])
        ]
        for resource_id in deleted:
            self._listed.pop(resource_id)
            self._held.forget(resource_id)
            self.push(portal.ResourceDeleted(resource_id=resource_id))
        for resource_id, listed in after.items():
            old = before.get(resource_id)
            self._listed[resource_id] = listed
            is_same = old is listed or (old is not None and old.view == listed.view)
            if self.is_joined and (resource_id in deleted or not is_same):
                self._transport.send_encoded(listed.update(self.version, old_client=self._old_site_names))

    def _is_moved(self, old: Listed, new: Listed) -> bool:
        """Whether a client this old must see a moved resource go and come back."""
        if old.facts.site_id == new.facts.site_id:
            return False
        return not versions.takes_site_change(self.device.user_agent, self.device.version)

    @property
    def resources(self) -> Mapping[ResourceId, ResourceFacts]:
        """What the client was told that it may reach."""
        return FactsOf(self._listed)

    def _look_later(self) -> None:
        """Wakes up when a time window opens or closes, a grant has to be renewed, or it has been long."""
        if self._look is not None:
            self._look.cancel()
        now = self.hub.clock.utc_now()
        left_s = [(one - now).total_seconds() for one in (self._changes_at, self._held.next_due()) if one is not None]
        nearest_s = min([*left_s, self._recompute_at - self.hub.clock.now()])
        delay_s = min(nearest_s, _LOOK_EVERY_S) if nearest_s > 0 else _REFRESH_RETRY_S
        self._look = self.hub.clock.call_later(delay_s, self._look_now)

    def _look_now(self) -> None:
        now = self.hub.clock.utc_now()
        due = [one for one in (self._changes_at, self._held.next_due()) if one is not None]
        if any(one <= now for one in due) or self.hub.clock.now() >= self._recompute_at:
            self.request_refresh()
        else:
            self._look_later()

    def holds_address(self, address: str) -> bool:
        """Whether any listed pool has a device with that address."""
        return any(address in pool_addresses(view) for view in ViewsOf(self._listed).values())

    async def readdress(self, ipv4: str, ipv6: str) -> None:
        """The device has other tunnel addresses: everything is told anew."""
        self.device = replace(self.device, ipv4=ipv4, ipv6=ipv6)
        self.hub.presence.changed(self)
        await self.send_init()

    @property
    def record(self) -> ClientRecord:
        """What other portals must know."""
        return ClientRecord(
            order=self.order,
            account_id=self.account_id,
            actor_id=self.actor_id,
            token_id=self.token_id,
            device=views.device_record(self.device),
            has_iceless=self.has_iceless,
            replaces=self.replaces,
        )

    def announce_config(self, config: dict[str, Any]) -> None:
        """The account's network configuration changed."""
        self.push(portal.ConfigChanged(interface=views.interface(self.device, config)))

    # --- as the target of others --------------------------------------------------------------------------------------

    def extend(self, grant: PolicyAuthorization, facts: GrantFacts) -> None:
        """A grant to reach this device ends at another moment: it is told if it counts on it."""
        known = Grant(grant.id, grant.expires_at)
        if self.grants.extend(grant.initiating_device_id, grant.resource_id, known):
            message = renewals.for_target(self, grant, facts)
            if message is not None:
                self.push(message)

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it."""
        return self.device.psk_party

    def admit(self, message: portal.ClientDeviceAccessAuthorized, resource_id: str, grant: Grant) -> bool:
        """Lets another client reach this device; false if that was revoked meanwhile."""
        if grant.authorization_id in self.hub.presence.ended:
            return False
        self.grants.add(message.client_id, resource_id, grant)
        self.push(message)
        return True

    def reject(self, client_id: str, resource_id: str, authorization_id: str) -> None:
        """A grant to reach this device was deleted: it is told if it still counts on it."""
        if self.grants.remove(client_id, resource_id, authorization_id):
            self.push(portal.RejectAccess.model_validate({"client_id": client_id, "resource_id": resource_id}))
