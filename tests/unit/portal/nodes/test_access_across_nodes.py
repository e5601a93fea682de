"""Every test of access, with clients at one portal and gateways at another."""

from tests.unit.portal.sockets.test_access import *  # noqa: F403
