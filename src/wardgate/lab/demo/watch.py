"""Looks at what arrives at a router where tcpdump gives up: in a user namespace that forbids changing groups.

Run as `python -m wardgate.lab.demo.watch route FROM TO` (tells of the first such UDP datagram) or `save PATH COUNT`.
"""

import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

ETH_P_IP = 0x0800
UDP = 17
SNAP_BYTES = 400


def ports_of(packet: bytes, source: IPv4Address, destination: IPv4Address) -> tuple[int, int] | None:
    """The ports of a UDP datagram between these addresses; `None` for any other packet, whole or cut."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != UDP:
        return None
    if (packet[12:16], packet[16:20]) != (source.packed, destination.packed):
        return None
    ports = packet[(packet[0] & 15) * 4 :][:4]
    return (int.from_bytes(ports[:2]), int.from_bytes(ports[2:])) if len(ports) == 4 else None


def route(reader: socket.socket, source: IPv4Address, destination: IPv4Address) -> None:
    """Prints the first datagram's ends, as tcpdump does."""
    while (ports := ports_of(reader.recv(SNAP_BYTES), source, destination)) is None:
        pass
    print(f"IP {source}.{ports[0]} > {destination}.{ports[1]}: UDP", flush=True)


def save(reader: socket.socket, path: Path, count: int) -> None:
    """Writes the start of so many packets to a file, as they come."""
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(reader.recv(SNAP_BYTES))


def main() -> None:
    """Does one of the two."""
    what, first, second = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as reader:
        print("listening", file=sys.stderr, flush=True)
        if what == "route":
            route(reader, IPv4Address(first), IPv4Address(second))
        else:
            save(reader, Path(first), int(second))


if __name__ == "__main__":
    main()
