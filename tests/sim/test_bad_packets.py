"""One packet that a state cannot bear costs that packet alone; the real states, with a bug put into them."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate._fastpath import PacketUpcall
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr

CIDR = resource_id(0xC1)
BAD = b"what breaks it"


@pytest.mark.parametrize("where", ["client", "gateway"])
def test_one_bad_packet_costs_neither_its_batch_nor_the_state(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = connected()
    state: Any = lab.client.state if where == "client" else lab.gateways[0].state
    method = "_handle_tun_packet" if where == "client" else "_handle_peer_packet"
    monkeypatch.setattr(state, method, stumbling(getattr(state, method)))
    peer = None if where == "client" else next(iter(lab.gateways[0].state._client_by_peer))
    upcalls = [PacketUpcall.of(peer, udp(payload)) for payload in (b"one", BAD, b"two")]

    errors = state.handle_upcalls(upcalls, lab.world.now)
    (lab.client if where == "client" else lab.gateways[0]).program.settle()
    lab.run(0.2)

    assert [str(error) for error in errors] == ["cannot"]
    assert [packet.payload for packet in lab.lan.received if packet.protocol == ip.UDP] == [b"one", b"two"]


@pytest.mark.parametrize("where", ["client", "gateway"])
def test_an_error_while_settling_is_told_like_any_other(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = connected()
    state: Any = lab.client.state if where == "client" else lab.gateways[0].state

    def fail(now: float) -> None:
        raise ValueError("cannot settle")

    with monkeypatch.context() as patched:
        patched.setattr(state, "_settle", fail)
        errors = state.handle_upcalls([], lab.world.now)
    lab.client.send(udp(b"later"))
    lab.run(0.2)

    assert [str(error) for error in errors] == ["cannot settle"]
    assert lab.lan.received[-1].payload == b"later"


def stumbling(handle: Callable[..., None]) -> Callable[..., None]:
    def stumble(upcall: PacketUpcall, *rest: object) -> None:
        if BAD in upcall.packet:
            raise ValueError("cannot")
        handle(upcall, *rest)

    return stumble


def udp(payload: bytes) -> bytes:
    source = SocketAddr(str(CLIENT_V4), 4000 + payload[0] + len(payload))
    return ip.udp_packet(source, SocketAddr("10.9.0.2", 7), payload)


def connected() -> Product:
    lab = product()
    lab.portal.allow(portal.CidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,)))
    lab.run(0.1)
    lab.client.send(udp(b"first"))
    lab.run(2.0)
    lab.lan.received.clear()
    return lab
