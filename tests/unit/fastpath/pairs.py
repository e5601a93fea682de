"""Two engines with a tunnel between them, and flows over it."""

from dataclasses import dataclass
from typing import Any

from wardgate._fastpath import (
    DatagramUpcall,
    Engine,
    Flow,
    Initiation,
    Keypair,
    OpenedInitiation,
    PacketUpcall,
    SessionUpcall,
    StaticKey,
)

Addr = tuple[str, int]
CLIENT, GATEWAY = StaticKey.from_bytes(b"\x01" * 32), StaticKey.from_bytes(b"\x02" * 32)
CLIENT_ADDRESS, GATEWAY_ADDRESS = ("192.0.2.1", 52625), ("192.0.2.2", 52625)
RELAY = ("192.0.2.9", 3478)
PEER = 7
"""The number by which each side knows the other."""


def handshake(initiator_index: int, responder_index: int, seed: int = 3) -> tuple[Keypair, Keypair]:
    """The keys of a handshake that the client started: its own, and the gateway's."""
    psk = b"\x07" * 32
    initiation, message = Initiation.start(
        CLIENT, GATEWAY.public_key, psk, initiator_index, bytes(12), bytes([seed]) * 32
    )
    response, of_gateway = OpenedInitiation.open(GATEWAY, message).respond(psk, responder_index, bytes([seed + 1]) * 32)
    return initiation.finish(response), of_gateway


@dataclass
class Pair:
    client: Engine
    gateway: Engine

    def to_gateway(self, packet: bytes, now: float) -> list[bytes]:
        """Carries a packet of the client's TUN device to the gateway's."""
        return carry(self.client, self.gateway, packet, CLIENT_ADDRESS, GATEWAY_ADDRESS, now)

    def to_client(self, packet: bytes, now: float) -> list[bytes]:
        return carry(self.gateway, self.client, packet, GATEWAY_ADDRESS, CLIENT_ADDRESS, now)


def carry(sender: Engine, receiver: Engine, packet: bytes, source: Addr, destination: Addr, now: float) -> list[bytes]:
    arrived = []
    for _, to, payload in sender.handle_tun(packet, now):
        assert to == destination
        arrived += receiver.handle_datagram(destination, source, payload, now)
    return arrived


def connected(now: float = 0.0, **limits: int) -> Pair:
    """Both sides with a direct path and a session that both may seal with."""
    pair = Pair(Engine(**limits), Engine(**limits))
    of_client, of_gateway = handshake(10, 20)
    pair.client.add_session(PEER, of_client, now)
    pair.gateway.add_session(PEER, of_gateway, now)
    pair.client.set_path(PEER, None, GATEWAY_ADDRESS)
    pair.gateway.set_path(PEER, None, CLIENT_ADDRESS)
    keepalive = pair.client.seal(PEER, b"", now)
    assert keepalive is not None
    pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, keepalive, now)
    pair.gateway.poll_upcalls()
    return pair


def client_flow(protocol: int, source: Addr, destination: Addr, **changes: Any) -> Flow:
    """A flow from the client's TUN device into the tunnel, unchanged."""
    return flow(protocol, (source, destination), (source, destination), from_peer=False, **changes)


def gateway_flow(protocol: int, inner: tuple[Addr, Addr], host: tuple[Addr, Addr], **changes: Any) -> Flow:
    """A flow from the tunnel to the gateway's TUN device, translated."""
    return flow(protocol, inner, host, from_peer=True, **changes)


def flow(protocol: int, inner: tuple[Addr, Addr], host: tuple[Addr, Addr], *, from_peer: bool, **changes: Any) -> Flow:
    values: dict[str, Any] = {
        "flow_id": 1,
        "peer": PEER,
        "authorization": 5,
        "idle_s": 120.0,
        "unconfirmed_idle_s": 60.0,
        **changes,
    }
    return Flow(
        protocol=protocol,
        inner_source=inner[0],
        inner_destination=inner[1],
        host_source=host[0],
        host_destination=host[1],
        from_peer=from_peer,
        **values,
    )


def packet_upcalls(engine: Engine) -> list[PacketUpcall]:
    return [one for one in engine.poll_upcalls() if isinstance(one, PacketUpcall)]


def datagram_upcalls(engine: Engine) -> list[DatagramUpcall]:
    return [one for one in engine.poll_upcalls() if isinstance(one, DatagramUpcall)]


def session_upcalls(engine: Engine) -> list[tuple[str, int, int]]:
    found = [one for one in engine.poll_upcalls() if isinstance(one, SessionUpcall)]
    return [(one.kind, one.peer, one.local_index) for one in found]
