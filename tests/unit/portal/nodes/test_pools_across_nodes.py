"""Every test of device pools, with the target at another portal."""

from tests.unit.portal.sockets.test_pools import *  # noqa: F403
