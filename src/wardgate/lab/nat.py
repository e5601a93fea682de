"""The nftables rules of a site's router, one script for each kind of NAT; RFC 4787 has the terms.

    prerouting   -300 contacts   whom a local endpoint has sent to
                 -100 inward     public port -> local endpoint, from the map (full cone, address-restricted)
                  -90 filter     drops what came unasked
    postrouting   100 outward    local endpoint -> public port: the one it has, else its own number, else another
                  110 remember   keeps both maps, now that the port is known

Two things are easy to get wrong and decide whether hole punching works:

* What came unasked is dropped in `prerouting`, so connection tracking never confirms it, even if it was meant for the
  router itself. Remembered, it would hold the public port, and the later outbound packet of the same two endpoints
  would get another one.
* Linux's own masquerading maps per destination and only happens to keep port numbers. The two maps make the mapping
  endpoint-independent by construction: an endpoint keeps its public port towards everyone until the mapping times out.
  With a mapping that depends on the address, the map's key has the destination's address as well, and what depends on
  the port, too, is left to connection tracking, with random ports.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wardgate.lab.topology import Filtering, Mapping, NatKind

UPLINK = "wan0"
LOCAL = "lan0"
MAX_MAPPINGS = 65_535


@dataclass(frozen=True, slots=True)
class RouterRules:
    """What one router does.

    Attributes:
        kind: How it treats UDP; never `CARRIER_GRADE`, which is two routers.
        public: Its IPv4 address on the outer side.
        timeout_s: How long an unused UDP mapping lives.
    """

    kind: NatKind
    public: str
    timeout_s: int

    def script(self) -> str:
        """An nftables script that replaces whatever rules and mappings the router had."""
        lines = ["table ip nat", "delete table ip nat", "table ip6 nat", "delete table ip6 nat"]
        if self.kind is not NatKind.NONE:
            lines += ["table ip nat {", *self._sets(), *self._chains(), "}", *self._ipv6()]
        return "\n".join(lines) + "\n"

    def _sets(self) -> list[str]:
        limits = f"size {MAX_MAPPINGS}; flags dynamic,timeout; timeout {self.timeout_s}s;"
        key = "ipv4_addr . inet_service" + (" . ipv4_addr" if self._is_by_address else "")
        types = {
            "map ports": "inet_service : ipv4_addr . inet_service",
            "map endpoints": f"{key} : ipv4_addr . inet_service",
            "set taken": "inet_service",
            "set contacted": "ipv4_addr . inet_service . ipv4_addr",
            "set hairpinned": "ipv4_addr . inet_service",
        }
        return [f"{name} {{ type {kind}; {limits.replace('; ', chr(10))}\n}}" for name, kind in types.items()]

    def _chains(self) -> list[str]:
        return [
            *_chain("contacts", "filter hook prerouting priority -300", self._contacts()),
            *_chain("inward", "nat hook prerouting priority -100", self._inward()),
            *_chain("filter", "filter hook prerouting priority -90", self._filter()),
            *_chain("outward", "nat hook postrouting priority 100", self._outward()),
            *_chain("remember", "filter hook postrouting priority 110", self._remember()),
        ]

    @property
    def _is_loose(self) -> bool:
        """Whether some packets come in unasked."""
        return self.kind.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT

    @property
    def _is_by_address(self) -> bool:
        return self.kind.mapping is Mapping.ADDRESS_DEPENDENT

    @property
    def _hairpins(self) -> bool:
        return self._is_loose and self.kind.mapping is Mapping.ENDPOINT_INDEPENDENT

    def _contacts(self) -> list[str]:
        if self.kind.filtering is not Filtering.ADDRESS_DEPENDENT:
            return []
        return [
            f"iifname {LOCAL} meta l4proto udp update @contacted {{ ip saddr . udp sport . ip daddr }}",
            f"iifname {LOCAL} ip daddr {self.public} meta l4proto udp update @hairpinned {{ ip saddr . udp sport }}",
        ]

    def _inward(self) -> list[str]:
        if not self._is_loose:
            return []
        uplink = "" if self._hairpins else f"iifname {UPLINK} "
        return [f"{uplink}ip daddr {self.public} meta l4proto udp dnat ip to udp dport map @ports"]

    def _filter(self) -> list[str]:
        rules = []
        if self.kind is NatKind.UDP_BLOCKED:
            rules.append("meta l4proto udp drop")
        rules += [
            f"iifname {UPLINK} ct state new,invalid,untracked ct status & dnat == 0 drop",
            f"iifname {LOCAL} ip daddr {self.public} ct state new ct status & dnat == 0 drop",
        ]
        if self.kind.filtering is Filtering.ADDRESS_DEPENDENT:
            rules += [
                f"iifname {UPLINK} ct state new ip daddr . udp dport . ip saddr != @contacted drop",
                f"iifname {LOCAL} ct state new ct status & dnat == dnat ip daddr . udp dport != @hairpinned drop",
            ]
        return rules

    def _outward(self) -> list[str]:
        if self.kind.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT:
            return [f"oifname {UPLINK} snat ip to {self.public} fully-random"]
        if self._is_by_address:
            return [
                f"oifname {UPLINK} meta l4proto udp snat ip to ip saddr . udp sport . ip daddr map @endpoints",
                f"oifname {UPLINK} snat ip to {self.public} fully-random",
            ]
        rules = []
        for leaving in self._leaving():
            rules += [
                f"{leaving} meta l4proto udp snat ip to ip saddr . udp sport map @endpoints",
                f"{leaving} udp sport @taken snat ip to {self.public}:1024-65535 fully-random",
                f"{leaving} snat ip to {self.public}",
            ]
        return rules

    def _remember(self) -> list[str]:
        if self.kind is NatKind.SYMMETRIC:
            return []
        to = " . ip daddr" if self._is_by_address else ""
        rules = []
        for leaving in self._leaving():
            for direction in ("original", "reply"):
                local = f"ct {direction} ip saddr . ct {direction} proto-src"
                packets = f"{leaving} ct direction {direction} ip saddr {self.public}"
                rules += [
                    f"{packets} meta l4proto udp update @ports {{ udp sport : {local} }}",
                    f"{packets} meta l4proto udp update @endpoints {{ {local}{to} : ip saddr . udp sport }}",
                    f"{packets} meta l4proto udp update @taken {{ udp sport }}",
                ]
        return rules

    def _leaving(self) -> Sequence[str]:
        """Packets that need a public source: those for the uplink, and those that turn around inside."""
        hairpin = f"iifname {LOCAL} oifname {LOCAL} ct original ip daddr {self.public}"
        return (f"oifname {UPLINK}", hairpin) if self._hairpins else (f"oifname {UPLINK}",)

    def _ipv6(self) -> list[str]:
        blocked = ["meta l4proto udp drop"] if self.kind is NatKind.UDP_BLOCKED else []
        unasked = f"iifname {UPLINK} ct state new,invalid,untracked"
        return [
            "table ip6 nat {",
            *_chain("filter", "filter hook forward priority 0", [*blocked, f"{unasked} drop"]),
            *_chain("self", "filter hook input priority 0", [f"{unasked} meta l4proto {{ tcp, udp }} drop"]),
            "}",
        ]


def _chain(name: str, hook: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{ type {hook}; policy accept;", *rules, "}"] if rules else []


def loss_script(interface: str, share: float) -> str:
    """An nftables script that drops this share of the packets that arrive at an interface; zero drops none.

    Address resolution is spared unless the wire is cut: its lost packets would stand for seconds, not for a packet.
    """
    table = f"loss-{interface}"
    lines = [f"table netdev {table}", f"delete table netdev {table}"]
    if share > 0:
        lines += [
            f"table netdev {table} {{",
            f'chain arriving {{ type filter hook ingress device "{interface}" priority 0; policy accept;',
            *(_lose(share) if share < 1 else ["counter drop"]),
            "}",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _lose(share: float) -> list[str]:
    parts = max(1, min(999_999, round(share * 1_000_000)))
    return [
        "ether type arp accept",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
        f"numgen random mod 1000000 < {parts} counter drop",
    ]
