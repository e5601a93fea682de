"""Candidate lines, as peers signal them through the portal: text to a `Candidate` and back, in both modes' forms.

ICE-less mode reads nothing but kind, address and base; ICE mode hides the base and appends the local ufrag.
Source: RFC 8839, section 5.1; RFC 8445, section 5.1.2.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address

from wardgate.errors import RemoteProtocolError
from wardgate.wire.addresses import SocketAddr

MAX_LINE = 512
_MAX_U32 = 0xFFFFFFFF
_TYPE_PREFERENCE = {"host": 126, "prflx": 110, "srflx": 100, "relay": 2}
_LOCAL_PREFERENCE = {"host": 65535, "prflx": 49151, "srflx": 32767, "relay": 16383}
_OTHER_FAMILY_PENALTY = 1000


class Kind(StrEnum):
    """How a candidate was learned."""

    HOST = "host"
    SRFLX = "srflx"
    PRFLX = "prflx"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address at which somebody may be reached.

    Attributes:
        address: Where to send to.
        base: The host address behind it; for a host candidate the address itself, for a relay candidate the host
            address from which its owner reaches the relay.
        priority: RFC 8445's; ICE-less receivers ignore it.
    """

    kind: Kind
    address: SocketAddr
    base: SocketAddr
    priority: int = 0

    @property
    def sends_from(self) -> SocketAddr:
        """The address that a datagram sent by way of this candidate leaves from, as its owner sees it."""
        return self.address if self.kind in (Kind.HOST, Kind.RELAY) else self.base

    @classmethod
    def host(cls, address: SocketAddr) -> "Candidate":
        """A host candidate, its own base."""
        return cls(Kind.HOST, address, address)


def ice_priority(candidate: Candidate, earlier: int, *, type_preference: int | None = None) -> int:
    """The priority of a local candidate in ICE mode.

    Args:
        earlier: How many candidates of the same kind came before it.
        type_preference: Instead of the kind's own (a check announces the priority of a peer-reflexive one).
    """
    local_preference = _LOCAL_PREFERENCE[candidate.kind] - 2 * earlier
    if not candidate.address.is_ipv6:
        local_preference -= 1
    if candidate.kind is Kind.RELAY and candidate.base.is_ipv6 != candidate.address.is_ipv6:
        local_preference -= _OTHER_FAMILY_PENALTY
    kind = _TYPE_PREFERENCE[candidate.kind] if type_preference is None else type_preference
    return kind << 24 | max(local_preference, 0) << 8 | 255


def with_ice_priority(candidate: Candidate, earlier: int) -> Candidate:
    """The candidate with its priority in ICE mode."""
    return replace(candidate, priority=ice_priority(candidate, earlier))


def encode_ice(candidate: Candidate, ufrag: str) -> str:
    """The line of ICE mode; the base stays hidden."""
    hidden = "::" if candidate.address.is_ipv6 else "0.0.0.0"
    related = "" if candidate.kind is Kind.HOST else f" raddr {hidden} rport 0"
    return f"{_head(candidate, candidate.priority)}{related} ufrag {ufrag}"


def encode_iceless(candidate: Candidate) -> str:
    """The line of ICE-less mode; the base is mandatory for all but host candidates."""
    preference = {Kind.HOST: 126, Kind.PRFLX: 100, Kind.SRFLX: 100, Kind.RELAY: 0}[candidate.kind]
    base = candidate.base
    related = "" if candidate.kind is Kind.HOST else f" raddr {base.host} rport {base.port}"
    return f"{_head(candidate, preference << 24 | 0xFFFF << 8 | 255)}{related}"


def decode(line: str) -> Candidate:
    """Reads a line of either mode; what follows the related address is ignored.

    Raises:
        RemoteProtocolError: It is no candidate for UDP, or no datagram can be sent to it.
    """
    words = line.split(" ") if len(line) <= MAX_LINE else []
    if len(words) < 8 or not words[0].startswith("candidate:") or words[6] != "typ":
        raise RemoteProtocolError("not a candidate line")
    if words[2].lower() != "udp":
        raise RemoteProtocolError("a candidate of another transport")
    priority = _number(words[3], _MAX_U32)
    address = _address(words[4], words[5])
    try:
        kind = Kind(words[7])
    except ValueError:
        raise RemoteProtocolError("unknown kind of candidate") from None
    parsed = ip_address(address.host)
    if address.port == 0 or parsed.is_unspecified or parsed.is_multicast:
        raise RemoteProtocolError("a candidate that nobody can have")
    base = address
    if kind is not Kind.HOST and len(words) >= 12 and words[8] == "raddr" and words[10] == "rport":
        base = _address(words[9], words[11])
    return Candidate(kind, address, base, priority)


def _head(candidate: Candidate, priority: int) -> str:
    address = candidate.address
    foundation = _fnv1a(f"{candidate.kind} {address} {candidate.base}".encode())
    return f"candidate:{foundation} 1 udp {priority} {address.host} {address.port} typ {candidate.kind}"


def _fnv1a(value: bytes) -> int:
    digest = 0xCBF29CE484222325
    for byte in value:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return digest


def _number(text: str, highest: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > highest:
        raise RemoteProtocolError("a number of the candidate is out of range")
    return int(text)


def _address(host: str, port: str) -> SocketAddr:
    try:
        parsed = ip_address(host)
    except ValueError:
        raise RemoteProtocolError("a candidate without an address") from None
    if "%" in host:
        raise RemoteProtocolError("a candidate with a zone")
    return SocketAddr(str(parsed), _number(port, 65535))
