"""Carries out network operations in the lab's nodes: links, addresses, routes, sysctls, rules.

An operation is a JSON object with the name of a method here in `op` and its arguments beside it; `operations.py` makes
them. Links and addresses go through netlink. Rules go to `nft` as text: the JSON form of nftables 1.0.6 (Debian 12)
can neither declare a dynamic map nor add to one from a rule, and the NATs are made of those.
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from wardgate.lab import namespaces
from wardgate.lab.delays import Delays, open_tap

LOOPBACK_INDEX = 1
TAP_QUEUE = 4096
NO_DUPLICATE_DETECTION = 2  # IFA_F_NODAD
ONLINK = 4  # RTNH_F_ONLINK
DEFAULTS = {
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # A switch that shows its frames to the IP rules makes a NAT see packets twice, on the wrong interfaces.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}
"""Kernel settings of every node, where this kernel has them."""


class _HasNetwork(Protocol):
    @property
    def net(self) -> int: ...


class Network:
    """Netlink sockets into every node, and what can be asked of them."""

    def __init__(self, nodes: Mapping[str, _HasNetwork]) -> None:
        self._nodes = nodes
        self._netlink_by_node: dict[str, Any] = {}
        self._indexes: dict[tuple[str, str], int] = {}
        self.delays = Delays()
        self._operations: dict[str, Callable[..., None]] = {
            "bridge": self.bridge,
            "veth": self.veth,
            "delayed_wire": self.delayed_wire,
            "delay": self.delay,
            "delete_link": self.delete_link,
            "attach": self.attach,
            "up": self.up,
            "address": self.address,
            "flush_addresses": self.flush_addresses,
            "route": self.route,
            "delete_route": self.delete_route,
            "sysctl": self.sysctl,
            "rules": self.rules,
            "rate": self.rate,
            "mtu": self.mtu,
            "forget_flows": self.forget_flows,
            "whole_packets": self.whole_packets,
        }

    def prepare(self, node: str) -> None:
        """Opens the node's netlink socket and brings its loopback up."""
        with namespaces.inside_network(self._nodes[node].net):
            self._netlink_by_node[node] = IPRoute()
            for key, value in DEFAULTS.items():
                if os.path.exists(f"/proc/sys/{key}"):
                    _write_sysctl(key, value)
        self._netlink_by_node[node].link("set", index=LOOPBACK_INDEX, state="up")

    def apply(self, operation: Mapping[str, Any]) -> None:
        """Does one operation.

        Raises:
            OSError: The kernel refused it; the text names the operation.
        """
        arguments = dict(operation)
        name = arguments.pop("op")
        try:
            self._operations[name](**arguments)
        except Exception as error:
            raise OSError(f"{name} {arguments}: {error}") from error

    def close(self) -> None:
        """Closes every netlink socket and ends every delay line."""
        self.delays.close()
        for netlink in self._netlink_by_node.values():
            netlink.close()
        self._netlink_by_node.clear()

    def bridge(self, node: str, interface: str) -> None:
        """Makes a switch. Its address is fixed, or it would change with the ports and neighbours would lose it."""
        address = "02:00:00:00:00:01"
        self._netlink_by_node[node].link("add", ifname=interface, kind="bridge", address=address)

    def veth(self, node: str, interface: str, peer_node: str, peer_interface: str, mtu: int) -> None:
        """Makes a wire between two nodes."""
        self._netlink_by_node[node].link(
            "add",
            ifname=interface,
            kind="veth",
            mtu=mtu,
            peer={"ifname": peer_interface, "net_ns_fd": self._nodes[peer_node].net, "mtu": mtu},
        )

    def delayed_wire(
        self, node: str, interface: str, peer_node: str, peer_interface: str, mtu: int, delay_ms: float
    ) -> None:
        """Makes a wire between two nodes that takes its time."""
        ends = ((node, interface), (peer_node, peer_interface))
        descriptors: list[int] = []
        self.delays.start()
        try:
            for end_node, end_interface in ends:
                with namespaces.inside_network(self._nodes[end_node].net):
                    descriptors.append(open_tap(end_interface))
                index = self._index(end_node, end_interface)
                self._netlink_by_node[end_node].link("set", index=index, mtu=mtu, txqlen=TAP_QUEUE)
            self.delays.add(*ends, (descriptors[0], descriptors[1]), delay_ms / 1000)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def delay(self, node: str, interface: str, delay_ms: float) -> None:
        """Changes how long a wire is."""
        self.delays.set_delay((node, interface), delay_ms / 1000)

    def delete_link(self, node: str, interface: str) -> None:
        """Removes an interface, and with it the other end of its wire."""
        if (node, interface) in self.delays:
            self.delays.remove((node, interface))
        else:
            self._netlink_by_node[node].link("del", index=self._index(node, interface))
        self._indexes.clear()

    def attach(self, node: str, interface: str, bridge: str) -> None:
        """Plugs an interface into a switch."""
        netlink = self._netlink_by_node[node]
        netlink.link("set", index=self._index(node, interface), master=self._index(node, bridge))

    def up(self, node: str, interface: str) -> None:
        """Brings an interface up."""
        self._netlink_by_node[node].link("set", index=self._index(node, interface), state="up")

    def address(self, node: str, interface: str, address: str, prefix: int) -> None:
        """Gives an interface an address that can be used at once."""
        options = {"flags": NO_DUPLICATE_DETECTION} if ":" in address else {}
        index = self._index(node, interface)
        self._netlink_by_node[node].addr("add", index=index, address=address, prefixlen=prefix, **options)

    def flush_addresses(self, node: str, interface: str) -> None:
        """Takes every address from an interface."""
        self._netlink_by_node[node].flush_addr(index=self._index(node, interface))

    def route(self, node: str, destination: str, interface: str, gateway: str | None = None) -> None:
        """Adds or replaces a route; the gateway needs no address of ours in its network."""
        options: dict[str, Any] = {} if gateway is None else {"gateway": gateway, "flags": ONLINK}
        oif = self._index(node, interface)
        self._netlink_by_node[node].route("replace", dst=destination, oif=oif, **options)

    def delete_route(self, node: str, destination: str, interface: str) -> None:
        """Removes a route."""
        self._netlink_by_node[node].route("del", dst=destination, oif=self._index(node, interface))

    def sysctl(self, node: str, key: str, value: str) -> None:
        """Sets one of the node's kernel settings; the key is written with slashes."""
        with namespaces.inside_network(self._nodes[node].net):
            _write_sysctl(key, value)

    def rules(self, node: str, text: str) -> None:
        """Runs an nftables script in the node."""
        with namespaces.inside_network(self._nodes[node].net):
            done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise OSError(done.stderr.strip())

    def rate(self, node: str, interface: str, bits_per_s: int, mtu: int) -> None:
        """Limits what leaves an interface, with a queue of 50 ms behind it; zero lifts the limit."""
        netlink, index = self._netlink_by_node[node], self._index(node, interface)
        if bits_per_s == 0:
            netlink.tc("del", index=index, root=True)
            return
        burst = max(bits_per_s // 8 // 250, 2 * (mtu + 14))
        netlink.tc("replace", "tbf", index, 0x10000, rate=bits_per_s // 8, burst=burst, latency="50ms")

    def mtu(self, node: str, interface: str, mtu: int) -> None:
        """Sets the largest packet that an interface sends."""
        self._netlink_by_node[node].link("set", index=self._index(node, interface), mtu=mtu)

    def forget_flows(self, node: str) -> None:
        """Empties the node's connection tracking table, as a router does that restarts."""
        with namespaces.inside_network(self._nodes[node].net):
            # This socket is opened by its first request, so the request has to be made here as well.
            with NFCTSocket() as table:
                table.flush()

    def whole_packets(self, node: str, interface: str, enabled: bool) -> None:
        """Whether super-packets may cross this interface whole; a lossy link takes them apart, to lose each alone."""
        segments = 65_535 if enabled else 1
        self._netlink_by_node[node].link("set", index=self._index(node, interface), gso_max_segs=segments)

    def _index(self, node: str, interface: str) -> int:
        if (node, interface) not in self._indexes:
            found = self._netlink_by_node[node].link_lookup(ifname=interface)
            if not found:
                raise OSError(f"{node} has no interface {interface}")
            self._indexes[node, interface] = found[0]
        return self._indexes[node, interface]


def _write_sysctl(key: str, value: str) -> None:
    with open(f"/proc/sys/{key}", "w", encoding="ascii") as file:
        file.write(value)
