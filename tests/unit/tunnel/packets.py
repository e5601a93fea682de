"""Packets for the tests of this folder, by their addresses."""

from ipaddress import ip_address

from wardgate.wire import ip
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import Packet, parse

CLIENT_V4 = "100.64.3.9"
CLIENT_V6 = "fd00:2021:1111::7:21"


def tcp(
    destination: str,
    port: int,
    *,
    source: str = CLIENT_V4,
    source_port: int = 40000,
    flags: int = ip.SYN,
    sequence: int = 1,
    acknowledgment: int = 0,
    payload: bytes = b"",
) -> Packet:
    segment = ip.tcp_packet(
        SocketAddr(source, source_port),
        SocketAddr(destination, port),
        flags,
        sequence=sequence,
        acknowledgment=acknowledgment,
        payload=payload,
    )
    return parse(segment)


def udp(
    destination: str, port: int, payload: bytes = b"x", *, source: str = CLIENT_V4, source_port: int = 40000
) -> Packet:
    return parse(ip.udp_packet(SocketAddr(source, source_port), SocketAddr(destination, port), payload))


def ping(
    destination: str, identifier: int = 7, *, source: str = CLIENT_V4, sequence: int = 1, reply: bool = False
) -> Packet:
    return parse(ip.icmp_echo(ip_address(source), ip_address(destination), identifier, sequence, b"ping", reply=reply))
