"""Two portals in one process, on one database and one bus; clients are connected to the first, all else elsewhere."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.postgres import Server
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest, running_portal
from wardgate.portal.channels.hub import Hub
from wardgate.portal.cluster.bus import LocalNetwork
from wardgate.portal.config import Settings
from wardgate.wire.portal import Topic


@pytest.fixture
def database_url(postgresql: Server) -> Iterator[str]:
    """Several portals need PostgreSQL."""
    name = postgresql.create_database()
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(listen="127.0.0.1:0", database=database_url, secret_key=SECRET_KEY, connect_capacity=1000)


@dataclass
class Nodes:
    """Two portals and what is between them."""

    first: PortalUnderTest
    second: PortalUnderTest
    network: LocalNetwork
    clock: ManualClock


@pytest.fixture
async def nodes(settings: Settings, clock: ManualClock) -> AsyncIterator[Nodes]:
    network = LocalNetwork()
    async with (
        running_portal(settings, clock, lambda hub: network.bus(hub.node_id)) as first,
        running_portal(settings, clock, lambda hub: network.bus(hub.node_id)) as second,
    ):
        yield Nodes(first, second, network, clock)


class _BothPresences:
    """The lists of channels of both."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.all_gateways = nodes.second.hub.presence.all_gateways
        self.gateways = nodes.second.hub.presence.gateways

    def all_clients(self) -> list[Any]:
        return [*self._nodes.first.hub.presence.all_clients(), *self._nodes.second.hub.presence.all_clients()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nodes.first.hub.presence, name)


class _BothOutboxes:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def is_behind(self) -> bool:
        return await self._nodes.first.hub.outbox.is_behind() or await self._nodes.second.hub.outbox.is_behind()


class _BothHubs:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.presence = _BothPresences(nodes)
        self.outbox = _BothOutboxes(nodes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nodes.first.hub, name)


class SplitPortal(PortalUnderTest):
    """Two portals that look like one: clients go to the first; gateways, relays and printers to the second."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes.first.url, cast("Hub", _BothHubs(nodes)), nodes.clock)
        self.nodes = nodes

    async def connect(self, topic: Topic, token: str | None, **options: Any) -> Peer:
        is_first = topic == "client" and options.get("external_id") != "printer"
        node = self.nodes.first if is_first else self.nodes.second
        return await node.connect(topic, token, **options)


@pytest.fixture
def server(nodes: Nodes) -> SplitPortal:
    return SplitPortal(nodes)


@pytest.fixture
async def lab(nodes: Nodes) -> Lab:
    return await make_lab(nodes.first.hub.db)
