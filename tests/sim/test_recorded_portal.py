"""Our client and gateway under the portal of the recorded conversations.

Every frame that it sent is understood, and answered in the way that real programs answered it.
"""

import itertools
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.unit.wire.recordings import RECORDINGS, frames, version_of
from wardgate._fastpath import Engine, StaticKey
from wardgate.client.state import ClientState
from wardgate.gateway.state import GatewayState
from wardgate.tunnel.events import ConfigureTun, SendPortal
from wardgate.wire import portal
from wardgate.wire.addresses import RandomBytes
from wardgate.wire.ip import icmp_echo

APP = ip_address("10.9.0.2")
EPOCH = 1_790_000_000.0
KEY = bytes(range(32))
PHOENIX_EVENTS = (portal.REPLY, portal.CLOSE, portal.ERROR)


@pytest.mark.parametrize("name", RECORDINGS)
def test_client_asks_for_the_resource_that_a_packet_needs(name: str) -> None:
    engine = Engine()
    state = ClientState(engine, StaticKey.from_bytes(KEY), EPOCH, counted_bytes())
    state.handle_portal_up(0.0)
    messages = [portal.decode_to_client(event, payload, version_of(name)) for event, payload in pushes(name, "client")]
    init = next(one for one in messages if isinstance(one, portal.ClientInit))

    state.handle_portal(init, 1.0)
    state.handle_timeout(1.5)
    configured = [event for event in drained(state) if isinstance(event, ConfigureTun)][-1]
    engine.handle_tun(icmp_echo(configured.ipv4, APP, 7, 1), 2.0)
    for upcall in engine.poll_upcalls():
        state.handle_upcall(upcall, 2.0)

    sent = [event.message for event in drained(state) if isinstance(event, SendPortal)]
    assert [one.resource_id for one in sent if isinstance(one, portal.RequestAuthorization)]
    assert any(APP in network for network in configured.routes if network.version == 4)
    assert not [one for one in messages if isinstance(one, portal.Unknown)]
    for message in messages:
        state.handle_portal(message, 3.0)
    assert state.counters["ignored_portal_messages"] == 0


@pytest.mark.parametrize("name", RECORDINGS)
def test_gateway_acknowledges_what_it_is_told_to_allow(name: str) -> None:
    state = GatewayState(Engine(), StaticKey.from_bytes(KEY), EPOCH, counted_bytes())
    state.handle_portal_up(0.0)
    messages = [
        portal.decode_to_gateway(event, payload, version_of(name)) for event, payload in pushes(name, "gateway")
    ]

    for message in messages:
        state.handle_portal(message, 1.0)

    sent = [event.message for event in drained(state) if isinstance(event, SendPortal)]
    asked = [one.ref for one in messages if isinstance(one, portal.CreateAuthorization)]
    assert asked
    assert [one.ref for one in sent if isinstance(one, portal.AuthorizationAcknowledged)] == asked
    assert not [one for one in messages if isinstance(one, portal.Unknown)]


def pushes(name: str, who: str) -> Iterator[tuple[str, portal.Json]]:
    for frame in frames(name, who, "portal>"):
        if frame.event not in PHOENIX_EVENTS:
            yield frame.event, frame.payload


def drained(state: ClientState | GatewayState) -> Iterator[object]:
    while (event := state.poll_event()) is not None:
        yield event


def counted_bytes() -> RandomBytes:
    counter = itertools.count()
    return lambda length: bytes((next(counter) * 37) % 256 for _ in range(length))
