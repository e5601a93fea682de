"""Who may connect, and what a refusal says."""

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import V1, V2, PortalUnderTest, Refusal, key, running_portal
from wardgate.portal.config import Settings
from wardgate.portal.db.tables import Actor, Device, GatewayToken
from wardgate.portal.services import actors, plans, sites, tokens
from wardgate.wire import portal

CLIENT: dict[str, Any] = {"external_id": "laptop", "public_key": key("laptop")}


async def refused(server: PortalUnderTest, *args: object, **options: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await server.connect(*args, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    "path", ["/client/websocket", "/client/v2/websocket", "/gateway/websocket", "/relay/websocket"]
)
async def test_without_a_token_a_connect_is_refused(server: PortalUnderTest, path: str) -> None:
    refusal = await refused(server, "client", None, path=path, **CLIENT)

    assert (refusal.status, refusal.problem["code"]) == (401, "missing_token")
    assert refusal.headers["content-type"] == "application/problem+json; charset=utf-8"
    assert refusal.problem.keys() == {"type", "title", "status", "detail", "code"}


@pytest.mark.parametrize("token", ["nonsense", "." * 600, ".wgc_AAAA", "tik.tok"])
async def test_a_wrong_token_is_refused(server: PortalUnderTest, token: str) -> None:
    refusal = await refused(server, "client", token, **CLIENT)

    assert (refusal.status, refusal.problem["code"]) == (401, "invalid_token")
    assert token not in str(refusal.problem)


async def test_a_token_of_another_kind_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    for topic, token in (("client", lab.site_token), ("gateway", lab.client_token), ("relay", lab.client_token)):
        refusal = await refused(server, topic, token, **CLIENT)
        assert (refusal.status, refusal.problem["code"]) == (401, "invalid_token")


async def test_a_revoked_token_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        await tokens.delete_client_token(unit, lab.actor.id, lab.client_token_id)
        await tokens.delete_gateway_token(unit, lab.site.id, lab.site_token_id)

    for topic, token in (("client", lab.client_token), ("gateway", lab.site_token)):
        refusal = await refused(server, topic, token, **CLIENT)
        assert (refusal.status, refusal.problem["code"]) == (401, "invalid_token")


async def test_an_expired_token_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    server.clock.advance(7 * 24 * 3600)

    assert (await refused(server, "client", lab.client_token, **CLIENT)).status == 401


async def test_a_disabled_actor_or_account_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        await unit.update(await unit.get(Actor, lab.actor.id), is_disabled=True)
    assert (await refused(server, "client", lab.client_token, **CLIENT)).problem["code"] == "invalid_token"
    other = await make_lab(server.hub.db, slug="other")
    async with server.hub.db.writing(other.subject) as unit:
        await unit.update(await unit.account(), is_disabled=True)
    assert (await refused(server, "client", other.client_token, **CLIENT)).problem["code"] == "invalid_token"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"external_id": None}, "external_id"),
        ({"external_id": "  "}, "external_id"),
        ({"external_id": "x" * 256}, "external_id"),
        ({"public_key": None}, "public_key"),
        ({"public_key": "short"}, "public_key"),
        ({"public_key": "A" * 44}, "public_key"),
        ({"external_id": None, "public_key": None}, "external_id can't be blank; public_key can't be blank"),
    ],
)
async def test_wrong_parameters_are_named(server: PortalUnderTest, lab: Lab, query: dict[str, str], named: str) -> None:
    for topic, token in (("client", lab.client_token), ("gateway", lab.site_token)):
        refusal = await refused(server, topic, token, **{**CLIENT, **query})
        assert (refusal.status, refusal.problem["code"]) == (400, "invalid_connect_params")
        assert named in refusal.problem["detail"]


async def test_a_client_without_a_version_is_refused_and_a_gateway_is_not(server: PortalUnderTest, lab: Lab) -> None:
    refusal = await refused(server, "client", lab.client_token, agent="curl/8", **CLIENT)

    assert (refusal.status, refusal.problem["code"]) == (400, "invalid_connect_params")
    assert await server.gateway(lab, agent="curl/8")


async def test_the_token_may_be_in_the_query_and_the_id_have_its_other_name(server: PortalUnderTest, lab: Lab) -> None:
    query = urlencode({"firezone_id": "laptop", "public_key": key("a"), "token": lab.client_token})
    headers = {"X-Authorization": "Token something else"}

    peer = await server.connect("client", None, path=f"/client/v2/websocket?{query}&", headers=headers)

    assert await peer.join()


async def test_an_account_over_its_limits_has_no_new_clients(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        await plans.set_limits(unit, {"users_count": 0})

    refusal = await refused(server, "client", lab.client_token, **CLIENT)

    assert (refusal.status, refusal.problem["code"]) == (402, "limits_exceeded")
    assert await server.gateway(lab)

    async with server.hub.db.writing(lab.subject) as unit:  # room is made, and no job has run
        await unit.update(await unit.account(), limits={"users_count": 1})
    assert await server.client(lab)


@pytest.mark.parametrize("version", [V1, V2])
async def test_a_gateway_that_is_connected_keeps_a_second_one_out(
    server: PortalUnderTest, lab: Lab, version: portal.ApiVersion
) -> None:
    first = await server.gateway(lab, version=version)

    refusal = await refused(
        server, "gateway", lab.site_token, version=version, external_id="gw", public_key=key("other")
    )

    assert (refusal.status, refusal.problem["code"]) == (409, "gateway_already_connected")
    assert await first.settle() == ["init"]


async def test_a_gateway_whose_network_changed_takes_the_place_of_its_old_connection(
    server: PortalUnderTest, lab: Lab
) -> None:
    first = await server.gateway(lab)

    second = await server.gateway(lab)

    await first.closed()
    assert await second.settle() == ["init"]
    assert len(server.hub.presence.gateways(lab.subject.account_id)) == 1


async def test_a_gateway_that_missed_its_heartbeat_gives_way_to_another(
    server: PortalUnderTest, lab: Lab, clock: ManualClock
) -> None:
    first = await server.gateway(lab)
    clock.advance(11.0)
    assert (await refused(server, "gateway", lab.site_token, external_id="gw", public_key=key("other"))).status == 409
    clock.advance(1.5)

    other = await server.connect("gateway", lab.site_token, external_id="gw", public_key=key("other"))

    await first.closed()
    assert other is not None


async def test_a_relay_needs_an_address(server: PortalUnderTest) -> None:
    issued = await tokens.create_relay_token(server.hub.db)

    assert (await refused(server, "relay", issued.text)).problem["code"] == "unhandled_connect_error"
    assert (await refused(server, "relay", issued.text, ipv4="2001:db8::1")).status == 400
    assert (await refused(server, "relay", issued.text, ipv4="203.0.113.3", port="x")).status == 400
    assert await server.connect("relay", issued.text, ipv6="2001:db8::3", port="3479")


async def test_a_web_page_of_another_host_is_kept_out(server: PortalUnderTest, lab: Lab) -> None:
    refusal = await refused(server, "client", lab.client_token, headers={"Origin": "https://evil.example"}, **CLIENT)

    assert refusal.status == 403


async def test_connects_are_limited_for_each_address_and_token(settings: Settings, clock: ManualClock) -> None:
    slow = settings.model_copy(update={"connect_capacity": 1.0})
    async with running_portal(slow, clock) as server:
        lab = await make_lab(server.hub.db)
        await server.connect("client", lab.client_token, **CLIENT)

        refusal = await refused(server, "client", lab.client_token, **CLIENT)
        assert (refusal.status, refusal.problem["code"]) == (503, "rate_limit")
        assert refusal.headers["retry-after"] == "1"
        assert await server.connect("gateway", lab.site_token, **CLIENT)

        clock.advance(1.0)
        assert await server.connect("client", lab.client_token, **CLIENT)


async def test_a_device_is_made_once_and_keeps_its_addresses(server: PortalUnderTest, lab: Lab) -> None:
    first = await (await server.client(lab, name="laptop", device_serial="S1")).take(portal.ClientInit)
    second = await (await server.client(lab, name="laptop", public_key=key("new"))).take(portal.ClientInit)
    third = await (await server.client(lab, name="phone")).take(portal.ClientInit)

    assert first.interface == second.interface
    assert third.interface.ipv4 != first.interface.ipv4
    async with server.hub.db.scoped(lab.subject) as scope:
        rows = {row.firezone_id: row for row in await scope.all(scope.select(Device))}
    assert rows["laptop"].device_serial == "S1"
    assert rows["laptop"].public_key == key("new")
    assert rows["laptop"].last_seen_version == "1.5.11"


async def test_a_gateway_with_a_token_of_its_own_needs_no_id(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        device = await sites.create_gateway(unit, lab.site.id, {"name": "rack"})
        issued = await tokens.create_gateway_token(unit, device.id)

    gateway = await (await server.connect("gateway", issued.text, public_key=key("rack"))).join()

    assert str((await gateway.take(portal.GatewayInit)).interface.ipv4) == device.ipv4


async def test_a_rotated_token_ends_when_the_new_one_is_used(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        device = await sites.create_gateway(unit, lab.site.id, {"name": "rack"})
        old = await tokens.create_gateway_token(unit, device.id)
    gateway = await (await server.connect("gateway", old.text, public_key=key("rack"))).join()
    await gateway.close()
    async with server.hub.db.writing(lab.subject) as unit:
        new = await tokens.rotate_gateway_token(unit, device.id)
        assert await unit.find(GatewayToken, old.row.id) is not None
    await server.connect("gateway", new.text, public_key=key("rack"))

    refusal = await refused(server, "gateway", old.text, public_key=key("rack"))

    assert refusal.status == 401


async def test_forwarding_headers_are_believed_from_trusted_proxies_only(
    settings: Settings, clock: ManualClock
) -> None:
    headers = {
        "X-Forwarded-For": "192.0.2.7, 10.0.0.1",
        "X-Geo-Location-Region": "AT",
        "X-Geo-Location-Coordinates": "48.2,16.4",
    }
    for proxies, expected in ((("127.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "AT")), ((), ("127.0.0.1", None))):
        async with running_portal(settings.model_copy(update={"trusted_proxies": proxies}), clock) as server:
            lab = await make_lab(server.hub.db, slug=f"corp{len(proxies)}")
            await server.client(lab, headers=headers)
            [channel] = server.hub.presence.all_clients()
            assert (channel.device.remote_ip, channel.device.location.region) == expected


async def test_accounts_do_not_see_each_others_devices(server: PortalUnderTest, lab: Lab) -> None:
    other = await make_lab(server.hub.db, slug="other")
    gateway = await server.gateway(other)
    await gateway.take(portal.GatewayInit)
    [foreign] = server.hub.presence.all_gateways()
    client = await server.client(lab)
    candidate = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host"

    await client.send(portal.NewGatewayCandidates(gateway_id=foreign.device_id, candidates=(candidate,)))
    await client.settle()

    assert await gateway.settle() == []


async def test_a_service_account_is_not_in_everyone_and_sees_nothing_by_itself(
    server: PortalUnderTest, lab: Lab
) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        robot = await actors.create_actor(unit, {"name": "Backup", "type": "service_account"})
        expires_at = "2027-01-01T00:00:00Z"
        issued = await tokens.create_client_token(unit, robot.id, {"expires_at": expires_at})

    client = await server.client(lab, token=issued.text)

    assert (await client.take(portal.ClientInit)).resources == ()
