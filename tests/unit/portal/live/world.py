"""Two accounts with everything in them, over real websockets, on one node or on two.

Scenarios use the small interface of `World`: connect_client, connect_gateway, ask, change, rest, told and silent. Which
node a peer connects to is the world's business: clients to the first, gateways to the last.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import Any

import httpx

from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.live.fold import wire_name
from tests.unit.portal.sockets.harness import V1, V2, WAIT_S, Peer, PortalUnderTest, key
from wardgate.ids import AccountId, ResourceId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Device, Group, PolicyAuthorization, Resource
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject
from wardgate.portal.services import accounts, actors, groups, policies, resources, sites, tokens
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame

Expected = dict[str, list[str]]
_QUIET_ROUNDS = 2


@dataclass
class Tenant:
    """An account and the ids of what is in it, by name."""

    subject: Subject
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    token_ids: dict[str, str] = field(default_factory=dict)
    api_token: str = ""


@dataclass
class Dialled:
    """How a peer connected, so that it can come back the same way."""

    token: str
    options: dict[str, Any]


class World:
    """The nodes, the tenants and their peers.

    Attributes:
        versions: The protocol of clients and gateways by turns, so that both namings are in every scenario.
    """

    def __init__(self, nodes: Sequence[PortalUnderTest], *, is_flipped: bool = False) -> None:
        self.nodes = nodes
        self.clock: ManualClock = nodes[0].clock
        self.tenants: dict[str, Tenant] = {}
        self.peers: dict[str, Peer] = {}
        self.names: dict[str, str] = {}
        self._dialled: dict[str, Dialled] = {}
        self._marks: dict[str, int] = {}
        self._frames = -1
        self.versions: tuple[ApiVersion, ApiVersion] = (V1, V2) if is_flipped else (V2, V1)

    @property
    def db(self) -> Database:
        """The database that all nodes share."""
        return self.nodes[0].hub.db

    # --- building -----------------------------------------------------------------------------------------------------

    async def add_tenant(self, slug: str, build: "Callable[[World, UnitOfWork, Tenant], Awaitable[None]]") -> Tenant:
        """Makes an account and what is in it."""
        account = await accounts.create_account(self.db, {"slug": slug})
        tenant = self.tenants[slug] = Tenant(subjects.system(AccountId(account.id)))
        tenant.ids[slug] = account.id
        async with self.db.writing(tenant.subject) as unit:
            [everyone] = await unit.all(unit.select(Group))
            [internet] = await unit.all(unit.select(Resource))
            tenant.ids |= {"everyone": everyone.id, "internet": internet.id}
            await build(self, unit, tenant)
            robot = await actors.create_actor(unit, {"name": "robot", "type": "api_client"}, ("api_client",))
            tenant.api_token = (await tokens.create_api_token(unit, robot.id, {})).text
        self.names |= {one: name for name, one in tenant.ids.items()}
        return tenant

    async def connect_client(self, name: str, token: str, *, version: ApiVersion | None = None, **options: Any) -> Peer:
        """A client that has joined; the name is its external id as well, unless another one is given."""
        settled = {"version": version or self.versions[0], "external_id": name, "public_key": key(name), **options}
        self._dialled[name] = Dialled(token, settled)
        peer = await (await self.nodes[0].connect("client", token, **settled)).join()
        return await self._add(name, peer, "client")

    async def connect_gateway(
        self, name: str, token: str, *, version: ApiVersion | None = None, **options: Any
    ) -> Peer:
        """A gateway that has joined."""
        settled = {"version": version or self.versions[0], "external_id": name, "public_key": key(name), **options}
        self._dialled[name] = Dialled(token, settled)
        peer = await (await self.nodes[-1].connect("gateway", token, **settled)).join()
        return await self._add(name, peer, "gateway")

    async def _add(self, name: str, peer: Peer, topic: str) -> Peer:
        await peer.next("init")
        self.peers[name] = peer
        self._marks[name] = 1  # after the reply to the join
        channel = next(one for one in self._channels(topic) if one.device.public_key == self.key_of(name))
        self.names[channel.device_id] = name
        for tenant in self.tenants.values():
            if tenant.subject.account_id == channel.account_id:
                tenant.ids[name] = channel.device_id
        return peer

    def key_of(self, name: str) -> str:
        """The public key that a peer last connected with."""
        return str(self._dialled[name].options["public_key"])

    def _channels(self, topic: str) -> list[Any]:
        some: list[Any] = []
        for node in self.nodes:
            presence = node.hub.presence
            some += presence.all_clients() if topic == "client" else presence.all_gateways()
        return some

    async def leave(self, name: str) -> None:
        """A peer goes, and its node has noticed."""
        peer = self.peers.pop(name)
        device_id = self.id(name)
        await peer.close()
        async with asyncio.timeout(WAIT_S):
            while any(one.device_id == device_id for one in self._channels(peer.topic)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def come_back(self, name: str, **changed: Any) -> Peer:
        """A peer connects again, the same way but for what is changed; everything it is told follows its init."""
        topic = "gateway" if self.peers[name].topic == "gateway" else "client"
        if not self.peers[name].is_closed.is_set() and topic == "gateway":
            await self.leave(name)
        return await self.dial_again(name, topic, **changed)

    async def dial_again(self, name: str, topic: str, *, token: str | None = None, **changed: Any) -> Peer:
        """Connects a peer that has left."""
        before = self._dialled[name]
        options = {**before.options, **changed}
        connect = self.connect_gateway if topic == "gateway" else self.connect_client
        return await connect(name, token or before.token, **options)

    def id(self, name: str) -> str:
        """The id of a thing of any tenant."""
        return next(tenant.ids[name] for tenant in self.tenants.values() if name in tenant.ids)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, client: str, resource: str, *, device: str | None = None) -> None:
        """Sends an ask."""
        extra = {"ipv4": (await self.device(device)).ipv4} if device else {}
        message = portal.RequestAuthorization.model_validate({"resource_id": ResourceId(self.id(resource)), **extra})
        await self.peers[client].send(message)

    async def granted(
        self, client: str, resource: str, *, gateway: str | None = None, device: str | None = None
    ) -> Any:
        """Asks and waits until both ends have the grant; gives what the receiver was told."""
        await self.ask(client, resource, device=device)
        if device:
            told = await self.peers[device].take(portal.ClientDeviceAccessAuthorized)
            await self.peers[client].take(portal.ClientDeviceAccessAuthorized)
            return told
        assert gateway
        request = await self.peers[gateway].take(portal.CreateAuthorization)
        await self.acknowledge(gateway, request.ref)
        await self.peers[client].take(portal.AuthorizationCreated)
        return request

    async def acknowledge(self, gateway: str, ref: str) -> None:
        """Confirms a grant, as gateways do."""
        await self.peers[gateway].send(portal.AuthorizationAcknowledged(ref=ref))
        await self.peers[gateway].next(portal.REPLY)

    async def device(self, name: str) -> Device:
        """The row of a client or gateway."""
        tenant = next(one for one in self.tenants.values() if name in one.ids)
        async with self.db.scoped(tenant.subject) as scope:
            return await scope.get(Device, tenant.ids[name])

    async def grants(self, tenant: str = "corp") -> list[PolicyAuthorization]:
        """The grants that the database has."""
        async with self.db.scoped(self.tenants[tenant].subject) as scope:
            return list(await scope.all(scope.select(PolicyAuthorization)))

    # --- changing -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def change(self, tenant: str = "corp") -> AsyncIterator[UnitOfWork]:
        """One commit through the services."""
        async with self.db.writing(self.tenants[tenant].subject) as unit:
            yield unit

    async def rest(
        self, method: str, path: str, body: Any = None, *, status: Sequence[int] = (200, 201), tenant: str = "corp"
    ) -> Any:
        """The same through the REST API; `{name}` in the path stands for an id."""
        url = self.nodes[0].url.replace("ws:", "http:") + path.format_map(_Ids(self))
        headers = {"Authorization": f"Bearer {self.tenants[tenant].api_token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
            response = await client.request(method, url, json=body, headers=headers)
        assert response.status_code in status, response.text
        return response.json() if response.content else None

    # --- listening ----------------------------------------------------------------------------------------------------

    async def quiesce(self) -> None:
        """Everything that was committed has reached whom it concerns, on every node."""
        quiet = 0
        async with asyncio.timeout(WAIT_S):
            while quiet < _QUIET_ROUNDS:
                for node in self.nodes:
                    while await node.hub.outbox.is_behind():  # noqa: ASYNC110
                        await asyncio.sleep(0.002)
                    await node.refreshed()
                for peer in self.peers.values():
                    if not peer.is_closed.is_set():
                        await _beat(peer)
                after = sum(len(self._told(peer, 0)) for peer in self.peers.values())
                quiet = quiet + 1 if after == self._frames else 0
                self._frames = after

    async def mark(self) -> None:
        """From here on, what peers are told counts."""
        await self.quiesce()
        for name, peer in self.peers.items():
            self._marks[name] = len(peer.seen)
            peer.unread.clear()
            peer.bytes_of_events = 0

    async def told(self) -> Expected:
        """What each peer was told since the mark, as short texts; peers that got no byte are not in it."""
        await self.quiesce()
        heard = {}
        for name, peer in self.peers.items():
            frames = self._told(peer, self._marks.get(name, 0))
            assert bool(frames) is bool(peer.bytes_of_events), name
            if frames or peer.is_closed.is_set():
                heard[name] = [self.describe(peer, frame) for frame in frames]
        return Heard({name: _in_no_order(texts) for name, texts in heard.items()})

    async def advance(self, seconds: float, *, step: float = 10.0) -> None:
        """Lets time pass while all peers keep saying that they live."""
        left = seconds
        while left > 0:
            self.clock.advance(min(step, left))
            left -= step
            await self.quiesce()

    @staticmethod
    def _told(peer: Peer, mark: int) -> list[Frame]:
        return [frame for frame in peer.seen[mark:] if frame.topic == peer.topic]

    def describe(self, peer: Peer, frame: Frame) -> str:
        """An event by its V2 name, checked to be on the wire as the peer's version has it, and what it is about."""
        event = next(
            (one for one in _TWO_NAMES if wire_name(one, peer.topic, peer.version) == frame.event), frame.event
        )
        assert event == frame.event or frame.event == wire_name(event, peer.topic, peer.version)
        return " ".join([event, *self._about(frame)])

    def _about(self, frame: Frame) -> list[str]:
        payload: Any = frame.payload
        if isinstance(payload, str):
            return [self._name(payload)]
        if frame.event in ("disconnect",):
            return [payload["reason"]]
        if "config" in payload or "interface" in payload:
            return []
        named = [payload.get("client_id") or payload.get("client", {}).get("id")]
        named += [payload.get("resource_id") or (payload.get("resource") or {}).get("id") or payload.get("id")]
        words = [self._name(one) for one in named if one]
        if frame.event.endswith("_denied"):
            words += [payload["reason"]]
        return words

    def _name(self, one: str) -> str:
        return self.names.get(one, one)


class Heard(dict[str, list[str]]):
    """What peers were told. Neighbours of one event have no order: they are about different things."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        return dict(self) == {name: _in_no_order(texts) for name, texts in other.items()}

    def __ne__(self, other: object) -> bool:
        return not self == other


def _in_no_order(texts: list[str]) -> list[str]:
    runs = [sorted(run) for _, run in groupby(texts, key=lambda text: text.partition(" ")[0])]
    return [text for run in runs for text in run]


_TWO_NAMES = ("authorization_created", "authorization_creation_failed", "create_authorization")


async def _beat(peer: Peer) -> None:
    """One heartbeat, answered: what was queued before it has come. A socket that closes meanwhile is fine."""
    try:
        await peer.settle()
    except Exception:
        await peer.closed()


class _Ids(dict[str, str]):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __missing__(self, name: str) -> str:
        return self._world.id(name)


# --- the cast ---------------------------------------------------------------------------------------------------------


async def _corp(world: World, unit: UnitOfWork, tenant: Tenant) -> None:
    ids = tenant.ids
    people = {"mia": "account_user", "ugo": "account_user", "ada": "account_admin_user", "pia": "service_account"}
    for name, kind in people.items():
        email = {"email": f"{name}@corp.example"} if kind != "service_account" else {}
        ids[name] = (await actors.create_actor(unit, {"name": name.title(), "type": kind, **email})).id
        expires_at = (unit.at + timedelta(days=7)).isoformat()
        issued = await tokens.create_client_token(unit, ids[name], {"expires_at": expires_at}, actor_types=(kind,))
        tenant.tokens[name], tenant.token_ids[name] = issued.text, issued.row.id
    for name, members in {"engineering": ["mia"], "oncall": ["mia"], "finance": ["ugo"], "nobody": []}.items():
        ids[name] = (await groups.create_group(unit, {"name": name.title()})).id
        await groups.change_members(unit, ids[name], add=[ids[one] for one in members])
    for name in ("vienna", "graz"):
        ids[name] = (await sites.create_site(unit, {"name": name.title()})).id
        issued = await tokens.create_site_token(unit, ids[name])
        tenant.tokens[name], tenant.token_ids[name] = issued.text, issued.row.id
    await _resources(unit, ids)


async def _resources(unit: UnitOfWork, ids: dict[str, str]) -> None:
    for name, address, site in (
        ("lab", "10.9.0.0/24", "vienna"),
        ("web", "app.corp.example", "vienna"),
        ("wiki", "10.8.0.0/24", "graz"),
        ("ledger", "10.7.0.0/24", "graz"),
        ("spare", "10.6.0.0/24", "vienna"),
    ):
        kind = "dns" if address.endswith("example") else "cidr"
        fields = {"name": name.title(), "type": kind, "address": address, "site_id": ids[site]}
        ids[name] = (await resources.create_resource(unit, fields)).id
    pool = await resources.create_resource(
        unit, {"name": "Printers", "type": "static_device_pool"}, ("static_device_pool",)
    )
    ids["printers"] = pool.id
    for group, name in (
        ("engineering", "lab"),
        ("engineering", "web"),
        ("engineering", "wiki"),
        ("engineering", "printers"),
        ("finance", "ledger"),
    ):
        policy = await policies.create_policy(unit, {"group_id": ids[group], "resource_id": ids[name]})
        ids[f"p-{name}"] = policy.id


async def _rival(world: World, unit: UnitOfWork, tenant: Tenant) -> None:
    ids = tenant.ids
    actor = await actors.create_actor(unit, {"name": "Eve", "type": "account_user", "email": "eve@rival.example"})
    group = await groups.create_group(unit, {"name": "Engineering"})
    await groups.change_members(unit, group.id, add=[actor.id])
    site = await sites.create_site(unit, {"name": "Vienna"})
    fields = {"name": "Lab", "type": "cidr", "address": "10.9.0.0/24", "site_id": site.id}
    resource = await resources.create_resource(unit, fields)
    policy = await policies.create_policy(unit, {"group_id": group.id, "resource_id": resource.id})
    expires_at = (unit.at + timedelta(days=7)).isoformat()
    client = await tokens.create_client_token(unit, actor.id, {"expires_at": expires_at}, actor_types=("account_user",))
    gateway = await tokens.create_site_token(unit, site.id)
    tenant.tokens |= {"eve": client.text, "rival-site": gateway.text}
    tenant.token_ids |= {"eve": client.row.id, "rival-site": gateway.row.id}
    ids |= {"eve": actor.id, "rival-group": group.id, "rival-site": site.id, "rival-lab": resource.id}
    ids["p-rival"] = policy.id


async def populate(world: World) -> World:
    """Two tenants; corp has Mia with two clients and grants at two receivers, and Ugo, whom little of it concerns."""
    corp, rival = await world.add_tenant("corp", _corp), await world.add_tenant("rival", _rival)
    one, other = world.versions
    await world.connect_gateway("gw-vienna", corp.tokens["vienna"], version=one)
    await world.connect_gateway("gw-graz", corp.tokens["graz"], version=other)
    await world.connect_gateway("gw-rival", rival.tokens["rival-site"], version=one)
    await world.connect_client("printer", corp.tokens["pia"], version=one)
    async with world.change() as unit:
        await resources.set_pool_members(unit, world.id("printers"), [world.id("printer")])
    await world.connect_client("laptop", corp.tokens["mia"], version=one)
    await world.connect_client("phone", corp.tokens["mia"], version=other)
    await world.connect_client("ugo-laptop", corp.tokens["ugo"], version=other)
    await world.connect_client("eve-laptop", rival.tokens["eve"], version=other)
    await world.quiesce()
    await world.granted("laptop", "lab", gateway="gw-vienna")
    await world.granted("laptop", "web", gateway="gw-vienna")
    await world.granted("laptop", "printers", device="printer")
    await world.granted("phone", "lab", gateway="gw-vienna")
    await world.granted("ugo-laptop", "ledger", gateway="gw-graz")
    await world.granted("eve-laptop", "rival-lab", gateway="gw-rival")
    await world.mark()
    return world
