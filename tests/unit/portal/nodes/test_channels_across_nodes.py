"""Every test of channels, with clients at one portal, gateways and relays at another."""

from pathlib import Path

import pytest

from tests.unit.portal.sockets.test_channels import *  # noqa: F403


@pytest.fixture
def database_url(database_path: Path) -> str:
    """None of this depends on the database."""
    return f"sqlite:///{database_path}"
