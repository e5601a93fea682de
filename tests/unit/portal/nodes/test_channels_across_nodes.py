"""Every test of channels, with clients at one portal, gateways and relays at another."""

from tests.unit.portal.sockets.test_channels import *  # noqa: F403
