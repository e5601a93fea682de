"""A world on one node, or with its clients on one and its gateways on another."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.live.world import World, populate
from tests.unit.portal.sockets.conftest import settings
from tests.unit.portal.sockets.harness import PortalUnderTest, running_portal
from wardgate.portal.cluster.bus import LocalNetwork
from wardgate.portal.config import Settings

__all__ = ["nodes", "settings", "world"]


@pytest.fixture(params=[1, 2] if os.environ.get("WARDGATE_LIVE_MATRIX") else [None])
async def nodes(
    request: pytest.FixtureRequest, settings: Settings, clock: ManualClock
) -> AsyncIterator[list[PortalUnderTest]]:
    """The nodes that serve one database: clients connect to the first, gateways to the last.

    As people have it: one node on SQLite, two on PostgreSQL; `WARDGATE_LIVE_MATRIX=1` tries all four.
    """
    count = request.param or (1 if settings.database.startswith("sqlite") else 2)
    network = LocalNetwork()
    async with AsyncExitStack() as stack:
        if count == 1:
            yield [await stack.enter_async_context(running_portal(settings, clock))]
            return
        some = [running_portal(settings, clock, lambda hub: network.bus(hub.node_id)) for _ in range(count)]
        yield [await stack.enter_async_context(one) for one in some]


@pytest.fixture
async def world(request: pytest.FixtureRequest, nodes: list[PortalUnderTest]) -> World:
    """Two tenants, connected and granted, and nothing under way.

    With the parameter `flipped`, peers that else speak V2 speak V1, and the other way round.
    """
    return await populate(World(nodes, is_flipped=getattr(request, "param", None) == "flipped"))
