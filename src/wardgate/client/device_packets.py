"""Packets to and from other clients: what no flow knows is decided here, flow by flow."""

from collections import Counter, deque

from wardgate._fastpath import PacketUpcall
from wardgate.client.devices import DeviceOnClient, Devices
from wardgate.client.ways import Ways
from wardgate.errors import RemoteProtocolError
from wardgate.ids import PeerIndex
from wardgate.tunnel.connections import Connections
from wardgate.tunnel.flows import Drop, FlowTable, Forward, Refuse
from wardgate.wire.icmp_errors import is_translatable, quoted, unreachable
from wardgate.wire.ip import FlowKey, IpAddress, Packet


class DevicePackets:
    """The packets of all other clients.

    Args:
        packets: Takes what the host is to get.
    """

    def __init__(
        self,
        devices: Devices,
        connections: Connections,
        flows: FlowTable,
        ways: Ways,
        counters: Counter[str],
        packets: deque[bytes],
    ) -> None:
        self._devices = devices
        self._connections = connections
        self._flows = flows
        self._ways = ways
        self._counters = counters
        self._packets = packets

    def receive(
        self,
        device: DeviceOnClient,
        upcall: PacketUpcall,
        packet: Packet,
        own: tuple[IpAddress, ...],
        now: float,
    ) -> None:
        """Takes a packet that another client sent."""
        if packet.is_icmp_error:
            self._receive_error(device, packet, own)
            return
        match self._devices.decide(device, packet, own):
            case Forward() if upcall.target is None:
                self._packets.append(packet.raw)
            case Forward(number):
                self._ways.open(upcall, PeerIndex(upcall.peer or 0), number, is_lasting=False)
            case Refuse(why, reason):
                self._counters[f"refused_{reason}"] += 1
                answer = unreachable(packet, why)
                if answer is not None:
                    self._connections.send(device.client_id, answer, now)
            case Drop(reason):
                self._counters[f"dropped_{reason}"] += 1

    def _receive_error(self, device: DeviceOnClient, packet: Packet, own: tuple[IpAddress, ...]) -> None:
        """An error passes if it is about a packet that we sent to that client."""
        key = self._quoted_key(packet)
        sent = key is not None and (self._is_flow(device, key, from_peer=False) or self._is_flow(device, _back(key)))
        if sent and packet.destination in own:
            self._packets.append(packet.raw)
        else:
            self._counters["dropped_foreign_error"] += 1

    def send_error(self, device: DeviceOnClient, packet: Packet, now: float) -> None:
        """Passes on the host's error if it is about a packet that the other client sent."""
        key = self._quoted_key(packet)
        came = key is not None and (self._is_flow(device, key) or self._is_flow(device, _back(key), from_peer=False))
        if came:
            self._connections.send(device.client_id, packet.raw, now)
        else:
            self._counters["dropped_outbound_icmp_error"] += 1

    def _quoted_key(self, packet: Packet) -> FlowKey | None:
        try:
            return quoted(packet).key if is_translatable(packet) else None
        except RemoteProtocolError:
            return None

    def _is_flow(self, device: DeviceOnClient, key: FlowKey, *, from_peer: bool = True) -> bool:
        """Whether there is a flow whose opener sends such packets."""
        flow = self._flows.by_host(key, from_peer=from_peer)
        return flow is not None and flow.peer == self._connections.index_of(device.client_id)


def _back(key: FlowKey) -> FlowKey:
    return FlowKey(key.protocol, key.destination, key.source)
