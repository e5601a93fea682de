"""A client's requests for resources behind gateways.

A grant is stored, given to the gateway in the moment of its commit, and to the client once the gateway has acknowledged
it, or refused as `offline` after 15 seconds. A newer request for the same resource takes the place of an older one.
"""

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from wardgate.errors import DatabaseUnavailable
from wardgate.ids import ResourceId
from wardgate.portal.channels import views
from wardgate.portal.channels.base import log
from wardgate.portal.channels.handles import DeviceView, GatewayHandle, Grant
from wardgate.portal.channels.held import HeldGrant
from wardgate.portal.channels.views import GrantFacts
from wardgate.portal.clock import Timer
from wardgate.portal.db import access, authorizations
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Account, Actor, ClientToken, Device, PolicyAuthorization, Resource
from wardgate.portal.domain.authorizations import Denied, Granted, authorize
from wardgate.portal.domain.resources import ResourceFacts, gateway_view
from wardgate.portal.domain.selection import NoGateway, choose_gateway
from wardgate.wire import portal
from wardgate.wire.portal_secrets import PskParty, gateway_preshared_key, ice_credentials

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel

ACK_WAIT_S: Final = 15.0
_REFILL_PER_S: Final = 20.0
_BURST: Final = 200.0


@dataclass(slots=True)
class Pending:
    """A request that waits for its gateway."""

    ref: str
    authorization_id: str
    answer: portal.AuthorizationCreated
    timer: Timer


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no access."""

    reason: str
    violated_properties: tuple[str, ...] = ()


_CHANGED: Final = Refusal("changed")
"""Never told: the resource is not what it was when its gateway was chosen."""
_MAX_TRIES: Final = 3


class Pace:
    """Lets a client ask so often, and no oftener: an offline resource is asked for with every packet."""

    def __init__(self, now: float) -> None:
        self._level = _BURST
        self._at = now

    def is_allowed(self, now: float) -> bool:
        """Whether one more request is fine."""
        self._level = min(_BURST, self._level + (now - self._at) * _REFILL_PER_S)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


async def decide(
    unit: UnitOfWork, channel: "ClientChannel", resource_id: ResourceId
) -> "tuple[Granted, Account, datetime] | Refusal":
    """Decides in the transaction that stores the grant, so that no policy change comes between."""
    actor, device = await unit.find(Actor, channel.actor_id), await unit.find(Device, channel.device_id)
    token = await unit.find(ClientToken, channel.token_id)
    if actor is None or device is None or token is None or actor.is_disabled:
        return Refusal("not_found")
    known = authorizations.asked_of(unit)
    asked = (channel.actor_id, resource_id)
    if known is not None and asked in known.rules:
        rules = known.rules[asked]
    else:
        rules = await access.rules_of_actor(unit, actor, resource_id)
    if not rules:
        return Refusal("not_found")
    circumstances = channel.circumstances(is_verified=device.verified_at is not None)
    verdict = authorize(rules, circumstances, token.expires_at)
    if isinstance(verdict, Denied):
        return Refusal("forbidden", verdict.violated_properties)
    return verdict, await unit.account(), verdict.expires_at or token.expires_at


async def store(
    unit: UnitOfWork,
    channel: "ClientChannel",
    granted: Granted,
    *,
    receiver: DeviceView,
    use_iceless: bool,
    expires_at: datetime,
) -> PolicyAuthorization:
    """Stores a grant in place of an older one between the same two."""
    return await authorizations.record(
        unit,
        granted,
        token_id=channel.token_id,
        initiating_device_id=channel.device_id,
        receiving_device_id=receiver.id,
        initiator_remote_ip=channel.device.remote_ip,
        initiator_user_agent=channel.device.user_agent,
        receiver_remote_ip=receiver.remote_ip,
        keys=(channel.device.public_key, receiver.public_key),
        use_iceless=use_iceless,
        expires_at=expires_at,
    )


def grant_facts(
    channel: "ClientChannel",
    row: PolicyAuthorization,
    granted: Granted,
    account: Account,
    resource: ResourceFacts,
) -> GrantFacts:
    """What the flow-log tokens of both sides say."""
    return GrantFacts(
        authorization_id=row.id,
        policy_id=row.policy_id,
        uploads_enabled=granted.rule.flow_log_uploads_enabled,
        authorized_at=row.inserted_at,
        expires_at=row.expires_at,
        resource=resource,
        initiator=channel.device,
        responder_id=row.receiving_device_id,
        subject=channel.subject,
        signing_key=unseal(channel.hub.db.keyring, account, "ingest_signing_key"),
    )


class Asks:
    """The requests of one client."""

    def __init__(self, channel: "ClientChannel") -> None:
        self._channel = channel
        self._hub = channel.hub
        self._pending: dict[ResourceId, Pending] = {}
        self._pace = Pace(channel.hub.clock.now())

    async def request(self, request: portal.RequestAuthorization, resource: ResourceFacts | None) -> None:
        """Answers a request, now or when the gateway has acknowledged it."""
        if not self._pace.is_allowed(self._hub.clock.now()):
            self._hub.metrics.ignored.labels("too_many_requests").inc()
            return
        if resource is None:
            self._fail(request.resource_id, Refusal("not_found"))
            return
        try:
            refusal = await self._serve(request, resource)
        except DatabaseUnavailable as error:
            self._hub.metrics.failures.labels("database").inc()
            log.warning(
                "a grant could not be stored",
                client_id=self._channel.device_id,
                resource_id=resource.id,
                why=str(error),
            )
            refusal = Refusal("offline")
        except Exception:
            self._hub.metrics.failures.labels("grant").inc()
            log.exception("a grant could not be stored", client_id=self._channel.device_id, resource_id=resource.id)
            refusal = Refusal("offline")
        if refusal is not None:
            self._fail(resource.id, refusal)

    async def _serve(self, request: portal.RequestAuthorization, resource: ResourceFacts) -> Refusal | None:
        """Grants, by what the resource is now: the list may be a moment older."""
        for _ in range(_MAX_TRIES):
            gateway = self._choose(request, resource)
            if isinstance(gateway, Refusal):
                return gateway
            refusal = await self._grant(resource, gateway)
            if refusal is not _CHANGED:
                return refusal
            async with self._hub.db.scoped(self._channel.subject) as scope:
                found = await access.resource_facts(scope, [resource.id])
            if resource.id not in found:
                return Refusal("not_found")
            resource = found[resource.id]
        return Refusal("offline")

    def _choose(self, request: portal.RequestAuthorization, resource: ResourceFacts) -> GatewayHandle | Refusal:
        channel = self._channel
        online = {
            one.device_id: one for one in self._hub.presence.online_gateways(channel.account_id, resource.site_id)
        }
        chosen = choose_gateway(
            [one.online for one in online.values() if gateway_view(resource, one.device.version) is not None]
            or [one.online for one in online.values()],
            client_version=channel.device.version,
            client_location=channel.device.location,
            connected=request.connected_gateway_ids,
            is_internet=resource.type == "internet",
            choose=lambda some: self._hub.shuffled(some)[0],
        )
        if isinstance(chosen, NoGateway):
            return Refusal(chosen.reason)
        return online[chosen.id]

    async def _grant(self, resource: ResourceFacts, gateway: GatewayHandle) -> Refusal | None:
        view = gateway_view(resource, gateway.device.version)
        if view is None:
            return Refusal("version_mismatch")
        channel = self._channel

        async def work(unit: UnitOfWork) -> Refusal | None:
            row = await unit.find(Resource, resource.id)
            if row is None or not access.is_same(row, resource):
                return Refusal("not_found") if row is None else _CHANGED
            decision = await decide(unit, self._channel, resource.id)
            if isinstance(decision, Refusal):
                return decision
            granted, account, expires_at = decision
            is_iceless = bool(account.features.get("iceless")) and gateway.has_iceless and self._channel.has_iceless
            grant = await store(
                unit, self._channel, granted, receiver=gateway.device, use_iceless=is_iceless, expires_at=expires_at
            )
            facts = grant_facts(self._channel, grant, granted, account, resource)
            responder = await gateway.psk_party(unit)
            unit.after_commit(lambda: self._deliver(gateway, responder, view, facts, is_iceless))
            return None

        needs = {
            Actor: channel.actor_id,
            Device: channel.device_id,
            ClientToken: channel.token_id,
            Resource: resource.id,
        }
        wants = (authorizations.read_asked, (channel.actor_id, channel.device_id, resource.id))
        return await self._hub.writes.run(channel.subject, work, needs=needs, wants=wants)

    def _deliver(
        self,
        gateway: GatewayHandle,
        responder: PskParty,
        view: portal.GatewayResource,
        facts: GrantFacts,
        is_iceless: bool,
    ) -> None:
        if facts.authorization_id in self._hub.presence.ended:
            self._fail(facts.resource.id, Refusal("offline"))
            return
        client = self._channel.device
        preshared_key = gateway_preshared_key(client.psk_party, responder)
        ice = ice_credentials(client.id, client.public_key, gateway.device.id, gateway.device.public_key)
        ref = gateway.new_ref(
            lambda ref: self._acknowledged(facts.resource.id, ref), lambda ref: self._timed_out(facts.resource.id, ref)
        )
        answer = portal.AuthorizationCreated.model_validate(
            {
                "resource_id": facts.resource.id,
                "gateway_id": gateway.device_id,
                "gateway_public_key": gateway.device.public_key,
                "gateway_ipv4": IPv4Address(gateway.device.ipv4),
                "gateway_ipv6": IPv6Address(gateway.device.ipv6),
                "site_id": gateway.site_id,
                "preshared_key": preshared_key,
                "client_ice_credentials": ice.initiator,
                "gateway_ice_credentials": ice.receiver,
                "use_iceless": is_iceless,
                "flow_logs_ingest_token": views.ingest_token(facts, "initiator"),
            }
        )
        self._await_ack(facts, ref, answer)
        self._channel.hold(HeldGrant(facts.authorization_id, facts.resource.id, None, facts.expires_at))
        gateway.create(
            portal.CreateAuthorization(
                ref=ref,
                resource=view,
                client=views.authorized_client(client, preshared_key),
                client_ice_credentials=ice.initiator,
                gateway_ice_credentials=ice.receiver,
                expires_at=int(facts.expires_at.timestamp()),
                use_iceless=is_iceless,
                subject=views.subject(self._channel.subject, client.location),
                flow_logs_ingest_token=views.ingest_token(facts, "responder"),
            ),
            Grant(facts.authorization_id, facts.expires_at),
        )

    def _await_ack(self, facts: GrantFacts, ref: str, answer: portal.AuthorizationCreated) -> None:
        resource_id = facts.resource.id
        older = self._pending.pop(resource_id, None)
        if older is not None:
            older.timer.cancel()
        timer = self._hub.clock.call_later(ACK_WAIT_S, lambda: self._timed_out(resource_id, ref))
        self._pending[resource_id] = Pending(ref, facts.authorization_id, answer, timer)

    def _acknowledged(self, resource_id: ResourceId, ref: str) -> None:
        pending = self._pending.get(resource_id)
        if pending is None or pending.ref != ref:
            self._hub.metrics.ignored.labels("late_acknowledgement").inc()
            return
        del self._pending[resource_id]
        pending.timer.cancel()
        self._hub.metrics.authorizations.labels("created").inc()
        self._channel.push(pending.answer)

    def revoke(self, resource_id: ResourceId, authorization_id: str) -> None:
        """A grant ended before its gateway acknowledged it: the acknowledgement will not count."""
        pending = self._pending.get(resource_id)
        if pending is not None and pending.authorization_id == authorization_id:
            pending.timer.cancel()
            del self._pending[resource_id]

    def _timed_out(self, resource_id: ResourceId, ref: str) -> None:
        pending = self._pending.get(resource_id)
        if pending is not None and pending.ref == ref:
            pending.timer.cancel()
            del self._pending[resource_id]
            self._fail(resource_id, Refusal("offline"))

    def _fail(self, resource_id: ResourceId, refusal: Refusal) -> None:
        self._hub.metrics.authorizations.labels(refusal.reason).inc()
        self._channel.note_refusal(resource_id, refusal.reason, refusal.violated_properties)
        self._channel.push(
            portal.AuthorizationCreationFailed(
                resource_id=resource_id, reason=refusal.reason, violated_properties=refusal.violated_properties
            )
        )

    def close(self) -> None:
        """The client is gone: nothing is waited for any more."""
        for pending in self._pending.values():
            pending.timer.cancel()
        self._pending.clear()
