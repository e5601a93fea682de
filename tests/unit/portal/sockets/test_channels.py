"""Frames, silence, floods, relays, and what older clients are told."""

import asyncio
import json

import pytest

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import V1, V2, WAIT_S, PortalUnderTest, key, running_portal
from wardgate.ids import RelayId, ResourceId
from wardgate.portal.config import Settings
from wardgate.portal.services import policies, resources
from wardgate.wire import portal
from wardgate.wire.portal import NEVER_IN_PRACTICE, Frame
from wardgate.wire.portal_secrets import relay_id, turn_credentials

SECRETS = ["ab" * 32, "cd" * 32, "ef" * 32]


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [None, {}, [], "x", 1])
async def test_any_join_payload_will_do_for_a_client(server: PortalUnderTest, lab: Lab, payload: portal.Json) -> None:
    client = await server.connect("client", lab.client_token, external_id="a", public_key=key("a"))

    await client.join(payload)

    assert await client.take(portal.ClientInit)


async def test_the_reply_to_the_join_comes_before_the_init(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.connect("client", lab.client_token, external_id="a", public_key=key("a"))
    await client.send_frame(portal.join("client", 7))

    assert await client.next() == Frame("client", "phx_reply", {"status": "ok", "response": {}}, 7)
    assert (await client.next()).event == "init"


@pytest.mark.parametrize("topic", ["client", "gateway", "elsewhere"])
async def test_what_comes_before_the_join_or_for_another_topic_is_unmatched(
    server: PortalUnderTest, lab: Lab, topic: str
) -> None:
    client = await server.connect("client", lab.client_token, external_id="a", public_key=key("a"))

    await client.send_frame(Frame(topic, "no_relays", {}, 3))

    assert await client.next() == portal.reply_error(topic, 3, "unmatched topic")


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("create_log_sink", {}),
        ("request_authorization", {"resource_id": "no uuid", "connected_gateway_ids": []}),
        ("request_authorization", {"resource_id": 7}),
        ("request_authorization", None),
        ("new_gateway_ice_candidates", {"gateway_id": "x", "candidates": []}),
        ("no_relays", "text"),
    ],
)
async def test_what_makes_no_sense_is_an_unknown_message_and_the_channel_lives_on(
    server: PortalUnderTest, lab: Lab, event: str, payload: portal.Json
) -> None:
    client = await server.client(lab)

    ref = await client.send_event(event, payload)

    assert await client.next(portal.REPLY) == portal.reply_error("client", ref, "unknown_message")
    assert await client.settle() == ["init"]


async def test_malformed_frames_are_counted_and_dropped(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    some: list[str | bytes] = [
        "",
        "{",
        "[]",
        b"\x00\xff",
        '{"topic":"client","event":"x","payload":{}}',
        '{"topic":"client","event":"x","payload":{},"ref":"1"}',
        "[" * 10_000,
    ]
    for text in some:
        await client.send_text(text)

    assert await client.settle() == ["init"]
    assert server.hub.metrics.ignored.labels("malformed_frame")._value.get() == len(some)


async def test_a_repeated_join_starts_afresh(server: PortalUnderTest, lab: Lab) -> None:
    gateway = await server.gateway(lab)
    await gateway.take(portal.GatewayInit)

    await gateway.join()

    assert await gateway.take(portal.GatewayInit)
    assert len(server.hub.presence.all_gateways()) == 1


async def test_a_component_that_leaves_is_closed(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)

    ref = await client.send_event("phx_leave", {})

    assert await client.next(portal.REPLY) == portal.reply_ok("client", ref)
    await client.closed()


@pytest.mark.parametrize(("topic", "idle_s"), [("client", 37.0), ("gateway", 37.0), ("relay", 41.0)])
async def test_a_silent_socket_is_closed(server: PortalUnderTest, lab: Lab, topic: str, idle_s: float) -> None:
    make = {"client": server.client, "gateway": server.gateway}
    peer = await (server.relay() if topic == "relay" else make[topic](lab))
    await peer.settle()

    server.clock.advance(idle_s - 0.1)
    await peer.settle()
    server.clock.advance(idle_s - 0.1)
    await peer.settle()
    server.clock.advance(idle_s + 0.1)

    await peer.closed()


async def test_a_consumer_that_does_not_read_is_cut_off(settings: Settings, clock: ManualClock) -> None:
    async with running_portal(settings.model_copy(update={"send_queue": 16}), clock) as server:
        lab = await make_lab(server.hub.db)
        client = await server.client(lab)
        await client.settle()
        [channel] = server.hub.presence.all_clients()

        long = portal.RelaysPresence(
            disconnected_ids=(RelayId("6e89c06a-6c1d-4475-a752-26a2c1af55c1"),) * 12_000, connected=()
        )

        for _ in range(40):  # more than buffers of sockets hold
            channel.push(long)

        await client.closed()
        assert server.hub.metrics.slow_consumers._value.get() == 1


async def test_a_flood_of_asks_is_bounded(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    for _ in range(300):
        await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))

    answers = await client.settle()

    assert 200 <= answers.count("authorization_creation_failed") <= 210
    server.clock.advance(1)
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))
    assert len(await client.settle()) == len(answers) + 1


# --- relays ---------------------------------------------------------------------------------------------------------


async def test_relays_are_handed_out_with_credentials(server: PortalUnderTest, lab: Lab) -> None:
    await server.relay(SECRETS[0], ipv6="2001:db8::3")
    client, gateway = await server.client(lab), await server.gateway(lab)

    ours = (await client.take(portal.ClientInit)).relays
    theirs = (await gateway.take(portal.GatewayInit)).relays

    assert [str(one.addr) for one in ours] == ["203.0.113.3:3478", "[2001:db8::3]:3478"]
    expires_at = int(server.clock.utc_now().timestamp()) + 7 * 24 * 3600
    assert (ours[0].username, ours[0].password) == turn_credentials(SECRETS[0], key("laptop"), expires_at)
    assert (theirs[0].username, theirs[0].password) == turn_credentials(SECRETS[0], key("gw"), NEVER_IN_PRACTICE)
    assert {one.id for one in (*ours, *theirs)} == {relay_id(SECRETS[0])}


async def test_a_lost_relay_is_replaced_after_a_second(server: PortalUnderTest, lab: Lab) -> None:
    first, second, third = [await server.relay(secret, ipv4=f"203.0.113.{n}") for n, secret in enumerate(SECRETS)]
    client = await server.client(lab)
    held = {one.id for one in (await client.take(portal.ClientInit)).relays}
    await client.settle()
    peers = dict(zip((relay_id(one) for one in SECRETS), (first, second, third), strict=True))
    lost, kept = sorted(held)

    await peers[lost].close()
    await relays_are(server, 2)
    server.clock.advance(0.9)
    assert await client.settle() == []
    server.clock.advance(0.2)

    presence = await client.take(portal.RelaysPresence)
    assert presence.disconnected_ids == (lost,)
    assert {one.id for one in presence.connected} == {kept, *(set(peers) - held)}


async def test_a_relay_that_is_back_within_a_second_was_never_gone(server: PortalUnderTest, lab: Lab) -> None:
    relay = await server.relay(SECRETS[0])
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    await relay.close()
    await relays_are(server, 0)
    server.clock.advance(0.5)

    await server.relay(SECRETS[0])
    server.clock.advance(5)

    assert await client.settle() == []


async def test_a_relay_started_again_at_its_address_is_told_at_once(server: PortalUnderTest, lab: Lab) -> None:
    relay = await server.relay(SECRETS[0])
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    await relay.close()
    await relays_are(server, 0)

    await server.relay(SECRETS[1])

    presence = await client.take(portal.RelaysPresence)  # though no time has passed
    assert presence.disconnected_ids == (relay_id(SECRETS[0]),)
    assert [one.id for one in presence.connected] == [relay_id(SECRETS[1])]


async def test_a_relay_whose_former_self_is_still_connected_takes_its_place(server: PortalUnderTest, lab: Lab) -> None:
    await server.relay(SECRETS[0])
    client = await server.client(lab)
    await client.take(portal.ClientInit)

    await server.relay(SECRETS[1])

    presence = await client.take(portal.RelaysPresence)
    assert presence.disconnected_ids == (relay_id(SECRETS[0]),)
    assert [one.id for one in presence.connected] == [relay_id(SECRETS[1])]
    assert list(server.hub.presence.relays()) == [relay_id(SECRETS[1])]


async def test_the_last_relay_is_not_withdrawn_without_a_substitute(server: PortalUnderTest, lab: Lab) -> None:
    relay = await server.relay(SECRETS[0])
    gateway = await server.gateway(lab)
    await gateway.take(portal.GatewayInit)

    await relay.close()
    await relays_are(server, 0)
    server.clock.advance(5)
    assert await gateway.settle() == []
    await server.relay(SECRETS[1], ipv4="203.0.113.9")
    server.clock.advance(1.1)

    presence = await gateway.take(portal.RelaysPresence)
    assert presence.disconnected_ids == (relay_id(SECRETS[0]),)
    assert [one.id for one in presence.connected] == [relay_id(SECRETS[1])]


async def test_whoever_has_no_relays_is_given_some(server: PortalUnderTest, lab: Lab) -> None:
    client, gateway = await server.client(lab), await server.gateway(lab)
    await server.relay(SECRETS[0])

    for peer in (client, gateway):
        await peer.send(portal.NoRelays())
        presence = await peer.take(portal.RelaysPresence)
        assert presence.disconnected_ids == ()
        assert [one.id for one in presence.connected] == [relay_id(SECRETS[0])]


@pytest.mark.parametrize("payload", [None, {}, {"stamp_secret": "short"}, {"stamp_secret": "AB" * 32}, []])
async def test_a_relay_without_a_secret_does_not_join(server: PortalUnderTest, payload: portal.Json) -> None:
    relay = await server.relay()
    await relay.settle()

    await relay.send_frame(portal.join("relay", 9, payload))

    reply = await relay.next(portal.REPLY)
    assert isinstance(reply.payload, dict)
    assert reply.payload["status"] == "error"


async def test_the_same_secret_again_closes_the_older_relay(server: PortalUnderTest) -> None:
    older = await server.relay(SECRETS[0])

    await server.relay(SECRETS[0])

    await older.closed()
    assert list(server.hub.presence.relays()) == [relay_id(SECRETS[0])]


async def relays_are(server: PortalUnderTest, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(server.hub.presence.relays()) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- older clients --------------------------------------------------------------------------------------------------


async def test_old_clients_are_told_gateway_groups(server: PortalUnderTest, lab: Lab) -> None:
    gateway = await server.gateway(lab, version=V1)
    client = await server.client(lab, version=V1, agent="Debian/12.0.0 headless-client/1.5.5")

    init = await client.next("init")
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    created = await client.next("flow_created")

    text = json.dumps(init.payload)
    assert "gateway_groups" in text
    assert '"sites"' not in text
    assert isinstance(created.payload, dict)
    assert created.payload["gateway_group_id"] == lab.site.id
    assert "site_id" not in created.payload


async def test_resources_that_a_client_does_not_understand_are_hidden_from_it(
    server: PortalUnderTest, lab: Lab
) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        for address in ("**.corp.example", "a.*.corp.example"):
            row = await resources.create_resource(
                unit, {"name": address, "type": "dns", "address": address, "site_id": lab.site.id}
            )
            await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": row.id})
        pool = await resources.create_resource(
            unit, {"name": "Printers", "type": "static_device_pool"}, ("static_device_pool",)
        )
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": pool.id})

    new = (await (await server.client(lab, version=V2)).take(portal.ClientInit)).resources
    old_client = await server.client(lab, "old", version=V1, agent="Debian/12 headless-client/1.1.9")
    old = (await old_client.take(portal.ClientInit)).resources

    assert {getattr(one, "address", None) for one in new} >= {"**.corp.example", "a.*.corp.example"}
    assert {one.type for one in new} == {"cidr", "dns", "static_device_pool"}
    assert [one.address for one in old if isinstance(one, portal.DnsResource)] == ["*.corp.example"]
    assert {one.type for one in old} == {"cidr", "dns"}
