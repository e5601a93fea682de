"""A portal that listens on loopback, with time that stands still."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import PortalUnderTest, running_portal
from wardgate.portal.config import Settings


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(listen="127.0.0.1:0", database=database_url, secret_key=SECRET_KEY, connect_capacity=1000)


@pytest.fixture
async def server(settings: Settings, clock: ManualClock) -> AsyncIterator[PortalUnderTest]:
    async with running_portal(settings, clock) as under_test:
        yield under_test


@pytest.fixture
async def lab(server: PortalUnderTest) -> Lab:
    return await make_lab(server.hub.db)
