"""What one relay offers, and its limits."""

from dataclasses import dataclass

from wardgate.wire import turn
from wardgate.wire.stun import AddressFamily


@dataclass(frozen=True, slots=True)
class StrangerRules:
    """What a forwarder has to know to answer strangers with the bytes of the TURN server.

    Attributes:
        nonce_key: What nonces are made with.
        nonce_cookie: What they begin with.
        algorithms: The value of PASSWORD-ALGORITHMS in refusals; empty for none.
        refusals_per_s, refusals_burst: As in `TurnConfig`.
    """

    nonce_key: bytes
    realm: str
    refusals_per_s: float
    refusals_burst: float
    nonce_cookie: bytes = b""
    algorithms: bytes = b""


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """What one relay offers; `public_ipv4` or `public_ipv6` must be there.

    Attributes:
        own_hosts: Other addresses of this host, to which nothing is relayed.
        allowed_peers: Networks that are relayed to in spite of all rules.
        private_peers: Whether private networks are; `None`: if our own address is private.
        max_per_user, max_per_source: Allocations of one user, and of one IPv4 address or IPv6 /64.
        refusals_per_s, refusals_burst: Unauthenticated errors for one source prefix.
    """

    public_ipv4: str | None
    public_ipv6: str | None = None
    listen_port: int = turn.DEFAULT_PORT
    lowest_port: int = 49152
    highest_port: int = 65535
    software: str = "wardgate-relay"
    realm: str = turn.REALM
    own_hosts: tuple[str, ...] = ()
    allowed_peers: tuple[str, ...] = ()
    private_peers: bool | None = None
    max_per_user: int = 1024
    max_per_source: int = 4096
    refusals_per_s: float = 100.0
    refusals_burst: float = 1000.0

    def stranger_rules(self, nonce_key: bytes, nonce_cookie: bytes, algorithms: bytes) -> StrangerRules:
        """What a forwarder needs of it."""
        rates = (self.refusals_per_s, self.refusals_burst)
        return StrangerRules(nonce_key, self.realm, *rates, nonce_cookie, algorithms)

    def public_host(self, family: AddressFamily) -> str | None:
        """The address of that family that clients and peers see."""
        return self.public_ipv4 if family == AddressFamily.IPV4 else self.public_ipv6

    def public_hosts(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(host for host in (self.public_ipv4, self.public_ipv6) if host is not None)
