"""Telling a receiver that a grant it has ends at another moment, without the client having to do anything.

The message is the one that made the grant: keys, pre-shared key and ICE credentials are the same, so both ends keep
their connection, and the receiver adopts the new end. Everything comes from the database, so that the portal which
holds the receiver's connection needs nothing of the one that holds the client's.

Source: portal-protocol sections 3.2 and 5; data-plane section 3.2 for what is the same connection.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from wardgate.ids import AccountId, ActorId
from wardgate.portal.channels import views
from wardgate.portal.channels.views import DeviceFacts, GrantFacts
from wardgate.portal.db import access
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Actor, ClientToken, Device, Policy, PolicyAuthorization
from wardgate.portal.domain.resources import gateway_view
from wardgate.portal.domain.subjects import Location, Subject
from wardgate.wire import portal
from wardgate.wire.portal_secrets import gateway_preshared_key, ice_credentials, peer_preshared_key

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel
    from wardgate.portal.channels.gateway import GatewayChannel


async def stored_facts(scope: Scope, grant: PolicyAuthorization) -> GrantFacts | None:
    """A grant and its client as the database has them; none if the client runs as another program by now."""
    client = await scope.find(Device, grant.initiating_device_id)
    token, policy = await scope.find(ClientToken, grant.token_id), await scope.find(Policy, grant.policy_id)
    actor = await scope.find(Actor, client.actor_id or "") if client is not None else None
    resources = await access.resource_facts(scope, [grant.resource_id])
    if client is None or actor is None or token is None or policy is None or not resources:
        return None
    if client.public_key != grant.initiator_public_key:
        return None
    [resource] = resources.values()
    return GrantFacts(
        authorization_id=grant.id,
        policy_id=grant.policy_id,
        uploads_enabled=policy.flow_log_uploads_enabled,
        authorized_at=grant.inserted_at,
        expires_at=grant.expires_at,
        resource=resource,
        initiator=_device_facts(scope, client),
        responder_id=grant.receiving_device_id,
        subject=_subject(client, actor, token),
        signing_key=unseal(scope.keyring, await scope.account(), "ingest_signing_key"),
    )


def _device_facts(scope: Scope, device: Device) -> DeviceFacts:
    return DeviceFacts(
        id=device.id,
        name=device.name,
        public_key=device.public_key or "",
        psk_base=unseal(scope.keyring, device, "psk_base"),
        ipv4=device.ipv4,
        ipv6=device.ipv6,
        user_agent=device.last_seen_user_agent or "",
        version=device.last_seen_version,
        remote_ip=device.last_seen_remote_ip,
        location=_location(device),
        device_serial=device.device_serial,
        device_uuid=device.device_uuid,
        identifier_for_vendor=device.identifier_for_vendor,
        firebase_installation_id=device.firebase_installation_id,
    )


def _location(device: Device) -> Location:
    return Location(
        device.last_seen_remote_ip_location_region,
        device.last_seen_remote_ip_location_city,
        device.last_seen_remote_ip_location_lat,
        device.last_seen_remote_ip_location_lon,
    )


def _subject(client: Device, actor: Actor, token: ClientToken) -> Subject:
    return Subject(
        AccountId(actor.account_id),
        "client",
        actor_id=ActorId(actor.id),
        actor_type=actor.type,  # type: ignore[arg-type]
        actor_name=actor.name,
        actor_email=actor.email,
        auth_provider_id=token.auth_provider_id,
        remote_ip=client.last_seen_remote_ip,
        user_agent=client.last_seen_user_agent,
    )


def for_gateway(
    gateway: "GatewayChannel", grant: PolicyAuthorization, facts: GrantFacts
) -> portal.CreateAuthorization | None:
    """What tells a gateway; none if it runs as another program by now, or cannot serve the resource."""
    view = gateway_view(facts.resource, gateway.device.version)
    if view is None or gateway.device.public_key != grant.receiver_public_key:
        return None
    client = facts.initiator
    preshared_key = gateway_preshared_key(client.psk_party, gateway.device.psk_party)
    ice = ice_credentials(client.id, client.public_key, gateway.device.id, gateway.device.public_key)
    return portal.CreateAuthorization(
        ref=gateway.new_ref(lambda _: None, lambda _: None),
        resource=view,
        client=views.authorized_client(client, preshared_key),
        client_ice_credentials=ice.initiator,
        gateway_ice_credentials=ice.receiver,
        expires_at=int(grant.expires_at.timestamp()),
        use_iceless=grant.use_iceless,
        subject=views.subject(facts.subject, client.location),
        flow_logs_ingest_token=views.ingest_token(facts, "responder"),
    )


def for_target(
    target: "ClientChannel", grant: PolicyAuthorization, facts: GrantFacts
) -> portal.ClientDeviceAccessAuthorized | None:
    """What tells a device of a pool; none if it runs as another program by now."""
    if target.device.public_key != grant.receiver_public_key:
        return None
    client, own = facts.initiator, target.device
    ice = ice_credentials(client.id, client.public_key, own.id, own.public_key)
    return portal.ClientDeviceAccessAuthorized.model_validate(
        {
            "client_id": client.id,
            "client_name": client.name,
            "client_public_key": client.public_key,
            "client_ipv4": IPv4Address(client.ipv4),
            "client_ipv6": IPv6Address(client.ipv6),
            "preshared_key": peer_preshared_key(client.psk_party, own.psk_party),
            "use_iceless": grant.use_iceless,
            "local_ice_credentials": ice.receiver,
            "remote_ice_credentials": ice.initiator,
            "ice_role": "controlled",
            "flow_logs_ingest_token": views.ingest_token(facts, "responder"),
            "resource": views.pool_for_target(facts.resource, own),
            "subject": views.subject(facts.subject, client.location),
            "expires_at": int(grant.expires_at.timestamp()),
        }
    )
