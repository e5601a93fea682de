"""A client's requests for devices of pools: other clients, reached directly.

The target is told first, and the initiator in the same moment: both queues keep their order, so neither candidates nor
anything else overtakes the grant. A target never says goodbye when it loses a grant, so the initiator is told as well.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from wardgate.errors import DatabaseUnavailable
from wardgate.ids import ClientId, ResourceId
from wardgate.portal.channels import views
from wardgate.portal.channels.asks import Refusal, decide, grant_facts, store
from wardgate.portal.channels.base import log
from wardgate.portal.channels.handles import ClientHandle, DeviceView, Grant
from wardgate.portal.channels.held import HeldGrant
from wardgate.portal.channels.views import GrantFacts
from wardgate.portal.db import access, devices
from wardgate.portal.db.scope import Scope
from wardgate.portal.domain import versions
from wardgate.portal.domain.resources import ResourceFacts, matches_pattern
from wardgate.wire import portal
from wardgate.wire.portal_secrets import PskParty, ice_credentials, peer_preshared_key

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel


def pool_addresses(view: portal.ClientResource) -> set[str]:
    """The tunnel addresses of a listed static pool."""
    if not isinstance(view, portal.StaticDevicePool):
        return set()
    return {str(net.network_address) for device in view.devices for net in (device.ipv4, device.ipv6)}


class Pools:
    """The dealings of one client with others."""

    def __init__(self, channel: "ClientChannel") -> None:
        self._channel = channel
        self._hub = channel.hub

    async def request(self, request: portal.RequestAuthorization, resource: ResourceFacts) -> None:
        """Answers a request for one device of a pool."""
        given = [text for text in (request.ipv4, request.ipv6) if text is not None]
        if len(given) != 1:
            self._deny_request(request, "ambiguous_address" if given else "missing_address")
            return
        try:
            address = str(ip_address(given[0]))
        except ValueError:
            self._deny_request(request, "invalid_address")
            return
        try:
            refusal = await self._grant(request, resource, address)
        except DatabaseUnavailable as error:
            self._hub.metrics.failures.labels("database").inc()
            log.warning(
                "a grant could not be stored",
                client_id=self._channel.device_id,
                resource_id=resource.id,
                why=str(error),
            )
            refusal = "offline"
        except Exception:
            self._hub.metrics.failures.labels("grant").inc()
            log.exception("a grant could not be stored", client_id=self._channel.device_id, resource_id=resource.id)
            refusal = "offline"
        if refusal is not None:
            self._deny_request(request, refusal)

    def _deny_request(self, request: portal.RequestAuthorization, reason: str) -> None:
        self._hub.metrics.authorizations.labels(reason).inc()
        self._channel.note_refusal(request.resource_id, reason)
        values: dict[str, object] = {"reason": reason}
        if reason == "missing_address":
            values["resource_id"] = request.resource_id
        elif reason != "invalid_address":
            values |= {"ipv4": request.ipv4, "ipv6": request.ipv6}
        try:
            self._channel.push(portal.ClientDeviceAccessDenied.model_validate(values))
        except ValueError:
            self._channel.push(portal.ClientDeviceAccessDenied(reason=reason))

    async def _grant(self, request: portal.RequestAuthorization, resource: ResourceFacts, address: str) -> str | None:
        channel = self._channel
        async with self._hub.db.writing(channel.subject, shares=True) as unit:
            found = await access.resource_facts(unit, [resource.id])  # the list may be a moment older
            if resource.id not in found:
                return "forbidden"
            resource = found[resource.id]
            target_id = await self._find(unit, resource, address)
            if target_id is None or target_id == channel.device_id:
                return "forbidden"
            target = self._hub.presence.client(channel.account_id, target_id)
            if target is None or not target.is_joined:
                return "offline"
            if not versions.is_pool_target(target.device.user_agent, target.device.version, channel.device.version):
                return "version_mismatch"
            decision = await decide(unit, channel, resource.id)
            if isinstance(decision, Refusal):
                return "forbidden" if decision.reason == "not_found" else decision.reason
            granted, account, expires_at = decision
            is_iceless = bool(account.features.get("iceless")) and target.has_iceless and channel.has_iceless
            row = await store(
                unit, channel, granted, receiver=target.device, use_iceless=is_iceless, expires_at=expires_at
            )
            facts = grant_facts(channel, row, granted, account, resource)
            party = await target.psk_party(unit)
            unit.after_commit(lambda: self._deliver(request, target, party, facts, is_iceless))
        return None

    async def _find(self, scope: Scope, resource: ResourceFacts, address: str) -> ClientId | None:
        if resource.type == "static_device_pool":
            return next((one.client_id for one in resource.members if address in (one.ipv4, one.ipv6)), None)
        device = await devices.find_by_address(scope, address)
        if device is None or not matches_pattern(resource.address or "", device.hostname or ""):
            return None
        return ClientId(device.id)

    def _deliver(
        self,
        request: portal.RequestAuthorization,
        target: ClientHandle,
        party: PskParty,
        facts: GrantFacts,
        is_iceless: bool,
    ) -> None:
        initiator, responder = self._channel.device, target.device
        preshared_key = peer_preshared_key(initiator.psk_party, party)
        ice = ice_credentials(initiator.id, initiator.public_key, responder.id, responder.public_key)
        shared = {"preshared_key": preshared_key, "use_iceless": is_iceless}
        admission = portal.ClientDeviceAccessAuthorized.model_validate(
            {
                **shared,
                **_peer(initiator),
                "local_ice_credentials": ice.receiver,
                "remote_ice_credentials": ice.initiator,
                "ice_role": "controlled",
                "flow_logs_ingest_token": views.ingest_token(facts, "responder"),
                "resource": views.pool_for_target(facts.resource, responder),
                "subject": views.subject(self._channel.subject, initiator.location),
                "expires_at": int(facts.expires_at.timestamp()),
            }
        )
        if not target.admit(admission, facts.resource.id, Grant(facts.authorization_id, facts.expires_at)):
            self._deny_request(request, "offline")
            return
        self._channel.hold(HeldGrant(facts.authorization_id, facts.resource.id, responder.id, facts.expires_at))
        self._hub.metrics.authorizations.labels("created").inc()
        self._channel.push(
            portal.ClientDeviceAccessAuthorized.model_validate(
                {
                    **shared,
                    **_peer(responder),
                    "local_ice_credentials": ice.initiator,
                    "remote_ice_credentials": ice.receiver,
                    "ice_role": "controlling",
                    "flow_logs_ingest_token": views.ingest_token(facts, "initiator"),
                }
            )
        )

    def deny_lost(
        self, before: Mapping[ResourceId, portal.ClientResource], after: Mapping[ResourceId, portal.ClientResource]
    ) -> None:
        """Tells the client of devices that left its last pool; before the pools change, else it finds no route."""
        kept = {address for view in after.values() for address in pool_addresses(view)}
        for view in before.values():
            for device in view.devices if isinstance(view, portal.StaticDevicePool) else ():
                if str(device.ipv4.network_address) not in kept:
                    self._deny_device(device.ipv4.network_address, device.ipv6.network_address)
                    kept.add(str(device.ipv4.network_address))

    def _deny_device(self, ipv4: IPv4Address, ipv6: IPv6Address) -> None:
        self._channel.push(portal.ClientDeviceAccessDenied(ipv4=ipv4, ipv6=ipv6, reason="forbidden"))

    def renew_initiators(self) -> None:
        """This client has a new key and knows no peers: those that reached it are made to ask again."""
        initiators = {client_id: None for client_id, _ in self._channel.grants.pairs()}
        for client_id in initiators:
            peer = self._hub.presence.client(self._channel.account_id, client_id)
            if peer is not None:
                peer.push(
                    portal.ClientDeviceAccessDenied(
                        ipv4=IPv4Address(self._channel.device.ipv4),
                        ipv6=IPv6Address(self._channel.device.ipv6),
                        reason="forbidden",
                    )
                )

    def send_candidates(self, client_id: str, candidates: tuple[str, ...]) -> None:
        """Passes candidates on; for a peer that is not there they are dropped."""
        peer = self._hub.presence.client(self._channel.account_id, client_id)
        if peer is not None:
            peer.push(portal.PeerIceCandidates(client_id=self._channel.device_id, candidates=candidates))

    def withdraw_candidates(self, client_id: str, candidates: tuple[str, ...]) -> None:
        """Passes lost candidates on, or says that the peer is not there."""
        peer = self._hub.presence.client(self._channel.account_id, client_id)
        if peer is not None:
            peer.push(portal.InvalidatePeerIceCandidates(client_id=self._channel.device_id, candidates=candidates))
        else:
            self._channel.push(
                portal.PeerIceCandidateError.model_validate({"client_id": client_id, "reason": "offline"})
            )

    async def resolve(self, query: portal.ResolveDevicePoolDomain) -> None:
        """Answers which device a name of a dynamic pool stands for."""
        pool = self._channel.resources.get(query.resource_id)
        device = None
        name = query.domain.lower().rstrip(".")
        if pool is not None and pool.type == "dynamic_device_pool" and matches_pattern(pool.address or "", name):
            async with self._hub.db.scoped(self._channel.subject) as scope:
                device = await devices.find_by_hostname(scope, name)
        if device is None:
            failed = portal.DevicePoolDomainResolutionFailed(
                resource_id=query.resource_id, domain=query.domain, reason="not_found"
            )
            self._channel.push(failed)
            return
        self._channel.push(
            portal.DevicePoolDomainResolved(
                resource_id=query.resource_id,
                domain=query.domain,
                ipv4=IPv4Address(device.ipv4),
                ipv6=IPv6Address(device.ipv6),
            )
        )


def _peer(device: DeviceView) -> dict[str, object]:
    return {
        "client_id": device.id,
        "client_name": device.name,
        "client_public_key": device.public_key,
        "client_ipv4": IPv4Address(device.ipv4),
        "client_ipv6": IPv6Address(device.ipv6),
    }
