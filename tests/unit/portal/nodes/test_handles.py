"""What channels may do with another device is the same wherever that is connected."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.unit.portal.helpers import Lab
from tests.unit.portal.nodes.conftest import Nodes
from tests.unit.portal.nodes.test_cluster import until
from tests.unit.portal.nodes.test_messages import CANDIDATES, ICE, ID, KEY, SUBJECT
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest, key
from wardgate.ids import AccountId, SiteId
from wardgate.portal.channels.handles import ClientHandle, GatewayHandle, Grant
from wardgate.wire import portal


@pytest.fixture
def database_url(database_path: Path) -> str:
    """None of this depends on the database."""
    return f"sqlite:///{database_path}"


@dataclass
class World:
    """A gateway and a client, and the portal that looks at them: theirs, or another one."""

    home: PortalUnderTest
    viewer: PortalUnderTest
    lab: Lab
    gateway: Peer
    client: Peer

    @property
    def account_id(self) -> AccountId:
        return AccountId(self.lab.account.id)

    async def gateway_handle(self) -> GatewayHandle:
        def found() -> list[GatewayHandle]:
            return self.viewer.hub.presence.online_gateways(self.account_id, SiteId(self.lab.site.id))

        await until(found)
        return found()[0]

    async def client_handle(self) -> ClientHandle:
        [channel] = self.home.hub.presence.all_clients()
        await until(lambda: self.viewer.hub.presence.client(self.account_id, channel.device_id))
        handle = self.viewer.hub.presence.client(self.account_id, channel.device_id)
        assert handle is not None
        return handle

    def grant(self) -> Grant:
        return Grant(str(uuid4()), self.viewer.clock.utc_now() + timedelta(hours=1))


@pytest.fixture(params=["here", "elsewhere"])
async def world(request: pytest.FixtureRequest, nodes: Nodes, lab: Lab) -> World:
    home = nodes.first if request.param == "here" else nodes.second
    gateway, client = await home.gateway(lab), await home.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    return World(home, nodes.first, lab, gateway, client)


def creation(ref: str) -> portal.CreateAuthorization:
    return portal.CreateAuthorization.model_validate(
        {
            "ref": ref,
            "resource": {"type": "cidr", "id": ID, "name": "Lab", "address": "10.0.0.0/8", "filters": []},
            "client": {"id": ID, "public_key": KEY, "preshared_key": KEY, "ipv4": "100.64.0.9", "ipv6": "fd00::9"},
            "gateway_ice_credentials": ICE,
            "client_ice_credentials": ICE,
            "expires_at": 1_900_000_000,
            "flow_logs_ingest_token": "a.b.c",
            "subject": SUBJECT,
        }
    )


def access() -> portal.ClientDeviceAccessAuthorized:
    return portal.ClientDeviceAccessAuthorized.model_validate(
        {
            "client_id": ID,
            "client_name": "other",
            "client_public_key": KEY,
            "client_ipv4": "100.64.0.9",
            "client_ipv6": "fd00::9",
            "preshared_key": KEY,
            "local_ice_credentials": ICE,
            "remote_ice_credentials": ICE,
            "ice_role": "controlled",
            "flow_logs_ingest_token": "a.b.c",
        }
    )


async def test_a_gateway_shows_what_its_choice_needs(world: World) -> None:
    handle = await world.gateway_handle()

    assert (handle.account_id, handle.site_id) == (world.account_id, world.lab.site.id)
    assert (handle.online.id, handle.online.version) == (handle.device_id, "1.5.3")
    assert (handle.device.public_key, handle.device.remote_ip) == (key("gw"), "127.0.0.1")
    assert handle.has_iceless is False
    await world.gateway.send(portal.SetSnownetCapabilities(iceless=True))
    await world.gateway.settle()
    assert (await world.gateway_handle()).has_iceless is True


async def test_a_gateway_gives_way_to_itself_alone(world: World) -> None:
    handle = await world.gateway_handle()

    assert handle.gives_way_to(key("gw"))
    assert not handle.gives_way_to(key("other"))


async def test_both_find_the_secret_half_of_a_device(world: World) -> None:
    gateway, client = await world.gateway_handle(), await world.client_handle()
    async with world.viewer.hub.db.scoped(world.lab.subject) as scope:
        parties = [await gateway.psk_party(scope), await client.psk_party(scope)]

    [at_gateway], [at_client] = world.home.hub.presence.all_gateways(), world.home.hub.presence.all_clients()
    assert parties == [at_gateway.device.psk_party, at_client.device.psk_party]
    assert all(len(party.psk_base) == 32 for party in parties)


async def test_a_push_arrives(world: World) -> None:
    (await world.gateway_handle()).push(
        portal.ClientIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES})
    )
    (await world.client_handle()).push(
        portal.GatewayIceCandidates.model_validate({"gateway_id": ID, "candidates": CANDIDATES})
    )

    assert (await world.gateway.take(portal.ClientIceCandidates)).candidates == CANDIDATES
    assert (await world.client.take(portal.GatewayIceCandidates)).candidates == CANDIDATES


async def test_a_grant_is_acknowledged_once(world: World) -> None:
    handle, answers = await world.gateway_handle(), []
    ref = handle.new_ref(lambda ref: answers.append(("acknowledged", ref)), lambda ref: answers.append(("no", ref)))

    handle.create(creation(ref), world.grant())
    request = await world.gateway.take(portal.CreateAuthorization)
    for _ in range(2):
        await world.gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
        await world.gateway.next(portal.REPLY)

    assert answers == [("acknowledged", ref)]
    assert world.home.hub.presence.all_gateways()[0].grants.pairs() == [(ID, ID)]


async def test_grants_and_candidates_keep_their_order(world: World) -> None:
    handle = await world.gateway_handle()
    candidates = portal.ClientIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES})
    for _ in range(20):
        handle.create(creation(handle.new_ref(lambda ref: None, lambda ref: None)), world.grant())
        handle.push(candidates)

    events = [(await world.gateway.next()).event for _ in range(40)]

    assert events == ["create_authorization", "ice_candidates"] * 20


async def test_a_grant_that_has_ended_reaches_nobody(world: World) -> None:
    gateway, client, grant = await world.gateway_handle(), await world.client_handle(), world.grant()
    world.home.hub.presence.ended.add(grant.authorization_id)
    answers: list[str] = []

    gateway.create(creation(gateway.new_ref(answers.append, lambda ref: None)), grant)
    client.admit(access(), ID, grant)

    assert await world.gateway.settle() == []
    assert await world.client.settle() == []
    assert answers == []
    assert world.home.hub.presence.all_gateways()[0].grants.pairs() == []
    assert world.home.hub.presence.all_clients()[0].grants.pairs() == []


async def test_a_client_is_told_who_may_reach_it(world: World) -> None:
    handle = await world.client_handle()

    assert handle.admit(access(), ID, world.grant())

    assert (await world.client.take(portal.ClientDeviceAccessAuthorized)).client_name == "other"
    assert world.home.hub.presence.all_clients()[0].grants.pairs() == [(ID, ID)]


async def test_a_device_that_left_takes_no_harm(world: World) -> None:
    gateway, client = await world.gateway_handle(), await world.client_handle()
    await world.gateway.close()
    await world.client.close()
    await until(lambda: world.home.hub.presence.count() == 0)

    gateway.push(portal.ClientIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES}))
    client.push(portal.GatewayIceCandidates.model_validate({"gateway_id": ID, "candidates": CANDIDATES}))
    await until(lambda: world.viewer.hub.presence.client(world.account_id, client.device_id) is None)

    assert world.viewer.hub.presence.gateway(world.account_id, gateway.device_id) is None


async def test_another_accounts_devices_are_not_found(world: World) -> None:
    gateway, client = await world.gateway_handle(), await world.client_handle()
    other = AccountId(str(uuid4()))
    presence = world.viewer.hub.presence

    assert presence.gateway(other, gateway.device_id) is None
    assert presence.client(other, client.device_id) is None
    assert presence.online_gateways(other, SiteId(world.lab.site.id)) == []
    assert not presence.is_online(other, client.device_id)
    assert presence.is_online(world.account_id, client.device_id)
