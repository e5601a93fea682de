"""Access, from the ask to the grant, and its end, over real websockets in both versions."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import V1, V2, WAIT_S, Peer, PortalUnderTest, key
from wardgate.ids import GatewayId, ResourceId
from wardgate.portal.db.sealing import unseal
from wardgate.portal.services import accounts, actors, groups, policies, resources, sites, tokens
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, key_text
from wardgate.wire.portal_secrets import ice_credentials, read_ingest_token

BOTH = pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
CANDIDATE = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"


async def granted(server: PortalUnderTest, lab: Lab, version: ApiVersion = V2) -> tuple[Peer, Peer]:
    """A client and a gateway with one grant."""
    gateway, client = await server.gateway(lab, version=version), await server.client(lab, version=version)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    await gateway.next(portal.REPLY)
    await client.take(portal.AuthorizationCreated)
    return client, gateway


async def ask(lab: Lab, client: Peer) -> None:
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))


@BOTH
async def test_a_client_learns_its_resources(server: PortalUnderTest, lab: Lab, version: ApiVersion) -> None:
    client = await server.client(lab, version=version)

    init = await client.take(portal.ClientInit)

    [resource] = init.resources
    assert (resource.id, resource.type, str(resource.address)) == (lab.resource.id, "cidr", "10.9.0.0/24")
    assert resource.sites[0].name == "Vienna"
    assert str(init.interface.ipv4).startswith("100.")


@BOTH
async def test_an_ask_is_granted_once_the_gateway_has_acknowledged(
    server: PortalUnderTest, lab: Lab, version: ApiVersion
) -> None:
    gateway, client = await server.gateway(lab, version=version), await server.client(lab, version=version)
    gateway_init, client_init = await gateway.take(portal.GatewayInit), await client.take(portal.ClientInit)

    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    assert await client.settle() == []
    ref = await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    reply = await gateway.next(portal.REPLY)
    answer = await client.take(portal.AuthorizationCreated)

    assert reply == portal.reply_ok("gateway", ref)
    assert answer.preshared_key == request.client.preshared_key
    assert (key_text(answer.gateway_public_key), key_text(request.client.public_key)) == (key("gw"), key("laptop"))
    assert (answer.gateway_ipv4, request.client.ipv4) == (gateway_init.interface.ipv4, client_init.interface.ipv4)
    assert (answer.client_ice_credentials, answer.gateway_ice_credentials) == ice_credentials(
        request.client.id, key("laptop"), answer.gateway_id, key("gw")
    )
    assert read_ingest_token(answer.flow_logs_ingest_token)["role"] == "initiator"
    signing_key = unseal(server.hub.db.keyring, lab.account, "ingest_signing_key")
    claims = read_ingest_token(request.flow_logs_ingest_token, key=signing_key)
    assert (claims["role"], claims["initiator_actor_name"], claims["actor_name"]) == ("responder", "Mia", "Mia")
    assert request.subject.actor_email == "mia@corp.example"
    assert request.expires_at == int(server.clock.utc_now().timestamp()) + 7 * 24 * 3600
    assert answer.use_iceless is False


async def test_iceless_needs_both_ends(server: PortalUnderTest, lab: Lab) -> None:
    gateway, client = await server.gateway(lab), await server.client(lab)
    await client.send(portal.SetSnownetCapabilities(iceless=True))
    await ask(lab, client)
    assert (await gateway.take(portal.CreateAuthorization)).use_iceless is False
    await gateway.send(portal.SetSnownetCapabilities(iceless=True))
    await gateway.settle()
    await ask(lab, client)
    assert (await gateway.take(portal.CreateAuthorization)).use_iceless is True

    async with server.hub.db.writing(lab.subject) as unit:
        await accounts.set_features(unit, {"iceless": False})
    await ask(lab, client)
    assert (await gateway.take(portal.CreateAuthorization)).use_iceless is False


@BOTH
async def test_the_ask_of_the_other_version_is_refused(server: PortalUnderTest, lab: Lab, version: ApiVersion) -> None:
    client = await server.client(lab, version=version)
    other = "create_flow" if version is V2 else "request_authorization"

    ref = await client.send_event(other, {"resource_id": lab.resource.id})

    assert await client.next(portal.REPLY) == portal.reply_error("client", ref, "unknown_message")


@BOTH
async def test_without_a_gateway_the_answer_is_offline(server: PortalUnderTest, lab: Lab, version: ApiVersion) -> None:
    client = await server.client(lab, version=version)

    await ask(lab, client)

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"


@BOTH
async def test_a_gateway_that_does_not_acknowledge_is_offline_after_15_seconds(
    server: PortalUnderTest, lab: Lab, version: ApiVersion
) -> None:
    gateway, client = await server.gateway(lab, version=version), await server.client(lab, version=version)
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)

    server.clock.advance(14.9)
    assert "authorization_creation_failed" not in await client.settle()
    server.clock.advance(0.2)
    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"

    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    await gateway.next(portal.REPLY)
    assert await client.settle() == ["init"]


async def test_a_newer_ask_takes_the_place_of_an_older_one(server: PortalUnderTest, lab: Lab) -> None:
    gateway, client = await server.gateway(lab), await server.client(lab)
    await ask(lab, client)
    first = await gateway.take(portal.CreateAuthorization)
    server.clock.advance(10)
    await ask(lab, client)
    second = await gateway.take(portal.CreateAuthorization)
    server.clock.advance(10)
    assert await client.settle() == ["init"]

    await gateway.send(portal.AuthorizationAcknowledged(ref=first.ref))
    await gateway.settle()
    assert await client.settle() == ["init"]
    await gateway.send(portal.AuthorizationAcknowledged(ref=second.ref))

    assert await client.take(portal.AuthorizationCreated)


async def test_an_acknowledgement_nobody_asked_for_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    gateway = await server.gateway(lab)

    ref = await gateway.send(portal.AuthorizationAcknowledged(ref="made up"))

    assert await gateway.next(portal.REPLY) == portal.reply_error("gateway", ref, "invalid_ref")


async def test_a_resource_that_is_not_listed_is_not_found(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)

    await client.send(portal.RequestAuthorization(resource_id=ResourceId("00000000-0000-4000-8000-000000000001")))

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "not_found"


async def test_an_incompatible_gateway_is_a_version_mismatch(server: PortalUnderTest, lab: Lab) -> None:
    await server.gateway(lab, agent="Debian/12.0.0 gateway/1.9.0")
    client = await server.client(lab)

    await ask(lab, client)

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "version_mismatch"


async def test_the_gateway_in_use_is_kept_and_dead_ones_are_ignored(server: PortalUnderTest, lab: Lab) -> None:
    peers = {}
    for name in ("gw-1", "gw-2"):
        peer = await server.gateway(lab, name)
        address = str((await peer.take(portal.GatewayInit)).interface.ipv4)
        online = server.hub.presence.gateways(lab.subject.account_id)
        peers[next(one.device_id for one in online if one.device.ipv4 == address)] = peer
    client = await server.client(lab)
    in_use, dead = max(peers), GatewayId("00000000-0000-4000-8000-000000000001")

    resource_id = ResourceId(lab.resource.id)
    await client.send(portal.RequestAuthorization(resource_id=resource_id, connected_gateway_ids=(dead, in_use)))

    request = await peers[in_use].take(portal.CreateAuthorization)
    await peers[in_use].send(portal.AuthorizationAcknowledged(ref=request.ref))
    assert (await client.take(portal.AuthorizationCreated)).gateway_id == in_use


@BOTH
async def test_candidates_are_passed_on_in_order(server: PortalUnderTest, lab: Lab, version: ApiVersion) -> None:
    client, gateway = await granted(server, lab, version)
    [channel] = server.hub.presence.gateways(lab.subject.account_id)
    [client_channel] = server.hub.presence.all_clients()
    other = CANDIDATE.replace("52625", "52626")

    await gateway.send(
        portal.BroadcastClientCandidates(client_ids=(client_channel.device_id,), candidates=(CANDIDATE,))
    )
    await gateway.send(portal.BroadcastClientCandidates(client_ids=(client_channel.device_id,), candidates=(other,)))
    await gateway.send(
        portal.BroadcastWithdrawnClientCandidates(client_ids=(client_channel.device_id,), candidates=(other,))
    )
    await client.send(portal.NewGatewayCandidates(gateway_id=channel.device_id, candidates=(CANDIDATE,)))
    await client.send(portal.WithdrawnGatewayCandidates(gateway_id=channel.device_id, candidates=(CANDIDATE,)))
    await client.send(portal.BroadcastGatewayCandidates(gateway_ids=(channel.device_id,), candidates=(other,)))

    assert (await client.take(portal.GatewayIceCandidates)).candidates == (CANDIDATE,)
    assert (await client.take(portal.GatewayIceCandidates)).candidates == (other,)
    assert (await client.take(portal.InvalidateGatewayIceCandidates)).gateway_id == channel.device_id
    assert (await gateway.take(portal.ClientIceCandidates)).client_id == client_channel.device_id
    assert (await gateway.take(portal.InvalidateClientIceCandidates)).candidates == (CANDIDATE,)
    assert (await gateway.take(portal.ClientIceCandidates)).candidates == (other,)


# --- live changes ---------------------------------------------------------------------------------------------------


@BOTH
async def test_a_policy_that_is_added_reaches_the_client_at_once(
    server: PortalUnderTest, lab: Lab, version: ApiVersion
) -> None:
    assert lab.policy
    async with server.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)
    client = await server.client(lab, version=version)
    assert (await client.take(portal.ClientInit)).resources == ()

    async with server.hub.db.writing(lab.subject) as unit:
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": lab.resource.id})

    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.id == lab.resource.id


@BOTH
async def test_a_policy_that_is_removed_ends_access_at_both_ends(
    server: PortalUnderTest, lab: Lab, version: ApiVersion
) -> None:
    assert lab.policy
    client, gateway = await granted(server, lab, version)
    [channel] = server.hub.presence.all_clients()

    async with server.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)

    rejected = await gateway.take(portal.RejectAccess)
    assert (rejected.client_id, rejected.resource_id) == (channel.device_id, lab.resource.id)
    assert (await client.take(portal.ResourceDeleted)).resource_id == lab.resource.id
    await ask(lab, client)
    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "not_found"


async def test_a_grant_that_ends_while_access_stays_makes_the_client_ask_again(
    server: PortalUnderTest, lab: Lab
) -> None:
    assert lab.policy
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await policies.update_policy(unit, lab.policy.id, {"flow_log_uploads_enabled": False})

    assert await gateway.take(portal.RejectAccess)
    assert (await client.next()).event == "resource_deleted"
    assert (await client.next()).event == "resource_created_or_updated"


async def test_an_acknowledgement_that_comes_after_the_revocation_grants_nothing(
    server: PortalUnderTest, lab: Lab
) -> None:
    assert lab.policy
    gateway, client = await server.gateway(lab), await server.client(lab)
    await client.take(portal.ClientInit)
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    async with server.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)
    assert await gateway.take(portal.RejectAccess)

    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    await gateway.next(portal.REPLY)
    assert await client.take(portal.ResourceDeleted)
    server.clock.advance(20)

    assert await client.settle() == []


async def test_an_unrelated_policy_is_not_heard_of(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)
    async with server.hub.db.writing(lab.subject) as unit:
        other = await groups.create_group(unit, {"name": "Finance"})
        policy = await policies.create_policy(unit, {"group_id": other.id, "resource_id": lab.resource.id})
        await policies.update_policy(unit, policy.id, {"is_disabled": True})
    await drained(server)

    assert await client.settle() == []
    assert await gateway.settle() == []


async def test_membership_gives_and_takes(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await groups.set_members(unit, lab.group.id, [])
    assert await gateway.take(portal.RejectAccess)
    assert await client.take(portal.ResourceDeleted)
    async with server.hub.db.writing(lab.subject) as unit:
        await groups.set_members(unit, lab.group.id, [lab.actor.id])
    assert await client.take(portal.ResourceCreatedOrUpdated)


async def test_changed_filters_reach_gateway_and_client_and_keep_the_grant(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await resources.update_resource(
            unit, lab.resource.id, {"filters": [{"protocol": "tcp", "ports": ["80", "8000-8100"]}]}
        )

    updated = await gateway.take(portal.ResourceUpdated)
    assert [one.port_range_end for one in updated.resource.filters] == [80, 8100]
    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.filters == updated.resource.filters
    assert await gateway.settle() == []


async def test_a_changed_address_ends_the_grant(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await resources.update_resource(unit, lab.resource.id, {"address": "10.8.0.0/24"})

    assert await gateway.take(portal.RejectAccess)
    assert await client.take(portal.ResourceDeleted)
    assert str((await client.take(portal.ResourceCreatedOrUpdated)).resource.address) == "10.8.0.0/24"


async def test_a_renamed_site_is_told(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await sites.update_site(unit, lab.site.id, {"name": "Graz"})

    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.sites[0].name == "Graz"
    assert await gateway.settle() == []


async def test_a_deleted_site_takes_its_gateways_and_resources_along(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await sites.delete_site(unit, lab.site.id)

    assert await client.take(portal.ResourceDeleted)
    await gateway.closed()


async def test_the_network_configuration_is_told_to_clients(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await accounts.update_config(
            unit,
            {
                "search_domain": "corp.example",
                "clients_upstream_dns": {"type": "custom", "addresses": ["9.9.9.9", "2001:db8::53"]},
            },
        )

    interface = (await client.take(portal.ConfigChanged)).interface
    assert interface.search_domain == "corp.example"
    assert [str(one.ip) for one in interface.upstream_do53] == ["9.9.9.9", "2001:db8::53"]
    assert [str(one.address) for one in interface.upstream_dns] == ["9.9.9.9:53", "[2001:db8::53]:53"]
    assert await gateway.settle() == []


async def test_time_windows_open_and_close_live(server: PortalUnderTest, lab: Lab) -> None:
    assert lab.policy
    values = ["M/12:00-12:30/UTC"]
    condition = {"property": "current_utc_datetime", "operator": "is_in_day_of_week_time_ranges", "values": values}
    async with server.hub.db.writing(lab.subject) as unit:
        await policies.update_policy(unit, lab.policy.id, {"conditions": [condition]})
    gateway, client = await server.gateway(lab), await server.client(lab)
    assert len((await client.take(portal.ClientInit)).resources) == 1
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    assert request.expires_at == int(server.clock.utc_now().timestamp()) + 30 * 60

    opened_at = server.clock.now()
    while "resource_deleted" not in await client.settle():
        assert server.clock.now() - opened_at < 32 * 60
        await gateway.settle()
        server.clock.advance(20)
        await server.refreshed()

    assert server.clock.now() - opened_at > 30 * 60


# --- revocation -----------------------------------------------------------------------------------------------------


@BOTH
async def test_a_revoked_client_token_ends_the_session_and_its_grants(
    server: PortalUnderTest, lab: Lab, version: ApiVersion
) -> None:
    client, gateway = await granted(server, lab, version)

    async with server.hub.db.writing(lab.subject) as unit:
        await tokens.delete_client_token(unit, lab.actor.id, lab.client_token_id)

    assert (await client.take(portal.Disconnect)).reason == "token_expired"
    await client.closed()
    assert await gateway.take(portal.RejectAccess)


@BOTH
async def test_a_revoked_gateway_token_ends_the_session(server: PortalUnderTest, lab: Lab, version: ApiVersion) -> None:
    gateway = await server.gateway(lab, version=version)

    async with server.hub.db.writing(lab.subject) as unit:
        await tokens.delete_gateway_token(unit, lab.site.id, lab.site_token_id)

    assert (await gateway.take(portal.Disconnect)).reason == "token_expired"
    await gateway.closed()


async def test_a_revoked_relay_token_closes_the_socket_without_a_word(server: PortalUnderTest) -> None:
    issued = await tokens.create_relay_token(server.hub.db)
    relay = await (await server.connect("relay", issued.text, ipv4="203.0.113.3")).join({"stamp_secret": "ab" * 32})
    await relay.take(portal.RelayInit)

    await tokens.delete_relay_token(server.hub.db, issued.row.id)

    await relay.closed()
    assert relay.events() == []


async def test_a_disabled_actor_is_disconnected(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await actors.update_actor(unit, lab.actor.id, {"is_disabled": True})

    assert (await client.take(portal.Disconnect)).reason == "token_expired"
    assert await gateway.take(portal.RejectAccess)


async def test_a_disabled_account_keeps_its_gateways_but_no_grants(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await accounts.set_disabled(unit, True, "unpaid")

    assert (await client.take(portal.Disconnect)).reason == "token_expired"
    assert await gateway.take(portal.RejectAccess)
    assert await gateway.settle() == []


async def test_a_token_that_expires_ends_the_session_at_that_instant(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        soon = unit.at + timedelta(seconds=30)
        issued = await tokens.create_client_token(
            unit, lab.actor.id, {"expires_at": soon}, actor_types=("account_user",)
        )
    client = await server.client(lab, token=issued.text)
    await client.take(portal.ClientInit)

    server.clock.advance(29.9)
    assert await client.settle() == []
    server.clock.advance(0.2)

    assert (await client.take(portal.Disconnect)).reason == "token_expired"
    await client.closed()


async def test_a_deleted_device_is_closed_without_a_disconnect(server: PortalUnderTest, lab: Lab) -> None:
    gateway = await server.gateway(lab)
    await gateway.take(portal.GatewayInit)
    [channel] = server.hub.presence.gateways(lab.subject.account_id)

    async with server.hub.db.writing(lab.subject) as unit:
        await sites.delete_gateway(unit, lab.site.id, channel.device_id)

    await gateway.closed()
    assert gateway.events() == ["phx_close"]


# --- reconnects -----------------------------------------------------------------------------------------------------


async def test_a_gateway_that_comes_back_learns_its_grants(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await granted(server, lab)
    [channel] = server.hub.presence.all_clients()
    await gateway.close()
    await gone(server)

    again = await server.gateway(lab)
    init = await again.take(portal.GatewayInit)

    assert [(one.client_id, one.resource_id) for one in init.authorizations] == [(channel.device_id, lab.resource.id)]
    assert await client.settle() == []


async def test_a_gateway_that_comes_back_with_another_key_makes_its_clients_ask_again(
    server: PortalUnderTest, lab: Lab
) -> None:
    client, gateway = await granted(server, lab)
    await gateway.close()
    await gone(server)

    await server.gateway(lab, public_key=key("another"))

    assert (await client.next()).event == "resource_deleted"
    assert (await client.next()).event == "resource_created_or_updated"


async def test_a_client_that_comes_back_takes_the_place_of_its_older_connection(
    server: PortalUnderTest, lab: Lab
) -> None:
    older = await server.client(lab)
    await older.take(portal.ClientInit)

    newer = await server.client(lab)
    await newer.take(portal.ClientInit)

    await older.closed()
    assert "disconnect" not in older.events()
    assert await newer.settle() == []
    assert len(server.hub.presence.all_clients()) == 1


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until the portal has noticed something."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def gone(server: PortalUnderTest) -> None:
    """Waits until no gateway is connected."""

    async def is_empty() -> bool:
        return not server.hub.presence.all_gateways()

    await until(is_empty)


async def drained(server: PortalUnderTest) -> None:
    """Waits until all changes are dispatched."""

    async def is_empty() -> bool:
        return not await server.hub.outbox.is_behind()

    await until(is_empty)
