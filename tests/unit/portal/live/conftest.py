"""A world on one node; where the cluster is there, on two as well."""

import pytest

from tests.unit.portal.live.world import World, populate
from tests.unit.portal.sockets.conftest import server, settings
from tests.unit.portal.sockets.harness import PortalUnderTest

__all__ = ["nodes", "server", "settings", "world"]


@pytest.fixture
async def nodes(server: PortalUnderTest) -> list[PortalUnderTest]:
    """The nodes that serve one database: clients connect to the first, gateways to the last."""
    return [server]


@pytest.fixture
async def world(request: pytest.FixtureRequest, nodes: list[PortalUnderTest]) -> World:
    """Two tenants, connected and granted, and nothing under way.

    With the parameter `flipped`, peers that else speak V2 speak V1, and the other way round.
    """
    return await populate(World(nodes, is_flipped=getattr(request, "param", None) == "flipped"))
