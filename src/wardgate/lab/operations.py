"""What is asked of the supervisor's network side, as JSON objects; `network.py` has a method for each."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from wardgate.lab.messages import Message
from wardgate.lab.nat import loss_script
from wardgate.lab.topology import Link

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


def bridge(node: str, interface: str) -> Message:
    """A switch."""
    return {"op": "bridge", "node": node, "interface": interface}


def wire(node: str, interface: str, peer_node: str, peer_interface: str, link: Link) -> list[Message]:
    """A wire between two nodes, both ends down, with the link's properties."""
    first: Message = {
        "op": "veth",
        "node": node,
        "interface": interface,
        "peer_node": peer_node,
        "peer_interface": peer_interface,
        "mtu": link.mtu,
    }
    if link.delay_ms > 0:
        first |= {"op": "delayed_wire", "delay_ms": link.delay_ms}
    made = [first]
    for end_node, end_interface in ((node, interface), (peer_node, peer_interface)):
        made += end_properties(end_node, end_interface, Link(mtu=link.mtu), link)
    return made


def end_properties(node: str, interface: str, before: Link, after: Link) -> list[Message]:
    """Changes MTU, rate and loss at one end of a wire."""
    changed: list[Message] = []
    if before.mtu != after.mtu:
        changed.append(mtu(node, interface, after.mtu))
    if before.rate_mbit != after.rate_mbit:
        bits = 0 if after.rate_mbit is None else max(1, round(after.rate_mbit * 1_000_000))
        changed.append({"op": "rate", "node": node, "interface": interface, "bits_per_s": bits, "mtu": after.mtu})
    if before.loss != after.loss:
        enabled = after.loss == 0
        changed.append({"op": "whole_packets", "node": node, "interface": interface, "enabled": enabled})
        changed.append(rules(node, loss_script(interface, after.loss)))
    return changed


def delete_link(node: str, interface: str) -> Message:
    """The end of a wire."""
    return {"op": "delete_link", "node": node, "interface": interface}


def attach(node: str, interface: str, bridge_name: str) -> Message:
    """An interface becomes a port of a switch."""
    return {"op": "attach", "node": node, "interface": interface, "bridge": bridge_name}


def up(node: str, interface: str) -> Message:
    """An interface comes up."""
    return {"op": "up", "node": node, "interface": interface}


def mtu(node: str, interface: str, value: int) -> Message:
    """The largest packet that an interface sends."""
    return {"op": "mtu", "node": node, "interface": interface, "mtu": value}


def delay(node: str, interface: str, delay_ms: float) -> Message:
    """Another delay for the wire that ends there."""
    return {"op": "delay", "node": node, "interface": interface, "delay_ms": delay_ms}


def forget_flows(node: str) -> Message:
    """The node forgets every flow that it tracked."""
    return {"op": "forget_flows", "node": node}


def address(node: str, interface: str, value: Address, prefix: int) -> Message:
    """An interface gets an address."""
    return {"op": "address", "node": node, "interface": interface, "address": str(value), "prefix": prefix}


def flush_addresses(node: str, interface: str) -> Message:
    """An interface loses its addresses."""
    return {"op": "flush_addresses", "node": node, "interface": interface}


def route(node: str, destination: Prefix, interface: str, gateway: Address | None = None) -> Message:
    """A route, added or replaced."""
    via = None if gateway is None else str(gateway)
    return {"op": "route", "node": node, "destination": str(destination), "interface": interface, "gateway": via}


def delete_route(node: str, destination: Prefix, interface: str) -> Message:
    """A route goes."""
    return {"op": "delete_route", "node": node, "destination": str(destination), "interface": interface}


def sysctl(node: str, key: str, value: str | int) -> Message:
    """A kernel setting of the node; the key is written with slashes."""
    return {"op": "sysctl", "node": node, "key": key, "value": str(value)}


def rules(node: str, text: str) -> Message:
    """An nftables script."""
    return {"op": "rules", "node": node, "text": text}
