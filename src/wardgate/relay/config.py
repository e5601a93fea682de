"""The relay's settings: checked once, each named as on the command line when it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from wardgate.errors import SettingError
from wardgate.proto.portal_login import login_url
from wardgate.proto.turn_auth import SharedSecretUsers, StaticUsers, Users
from wardgate.proto.turn_config import TurnConfig
from wardgate.settings import check_api_url
from wardgate.wire import turn
from wardgate.wire.addresses import SocketAddr

DEFAULT_REALM: Final = "wardgate"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """All settings of one relay; `check` says what is wrong with them.

    Attributes:
        public_ipv4, public_ipv6: What clients and peers reach us by; at least one.
        bind_ipv4, bind_ipv6: Where the listening port and the allocations are bound.
        api_url: The portal; empty for a relay by itself, which needs users.
        token: The relay's token.
        passwords: Static users.
        auth_secret: What an application shares with this relay, to make users by the TURN REST API.
        realm: Of those users; `None` for the usual one.
        allowed_peers: Networks that are relayed to in spite of all rules.
        private_peers: Whether private networks are; `None`: if our own public address is private.
        max_per_user, max_per_source: Allocations of one user, and of one IPv4 address or IPv6 /64.
        drain_s: How long allocations are still served once the relay is asked to end.
        tcp_port, tls_port: Where TURN is served over TCP and TLS as well; `None` for nowhere.
        tls_certificate, tls_key: PEM files.
        name: How the portal may call this relay.
        health_address: Where health checks are answered; `None` turns them off.
        native: Whether the native module forwards; else Python does, slowly.
        threads: How many native threads forward; `None` for one less than there are processors.
        segmentation: Whether datagrams of one flow may share a system call (UDP GSO and GRO).
        xdp: At which interface the kernel is to forward known channels by itself, if it can.
        xdp_mode: `driver` or `generic`.
    """

    public_ipv4: str | None
    public_ipv6: str | None
    api_url: str
    token: str
    bind_ipv4: str = "0.0.0.0"
    bind_ipv6: str = "::"
    listen_port: int = 3478
    lowest_port: int = 49152
    highest_port: int = 65535
    name: str | None = None
    health_address: SocketAddr | None = None
    native: bool = True
    segmentation: bool = True
    threads: int | None = None
    xdp: str | None = None
    xdp_mode: str = "driver"
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth_secret: str | None = field(default=None, repr=False)
    realm: str | None = None
    allowed_peers: tuple[str, ...] = ()
    private_peers: bool | None = None
    max_per_user: int = 1024
    max_per_source: int = 4096
    drain_s: float = 0.0
    tcp_port: int | None = None
    tls_port: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def is_alone(self) -> bool:
        """Whether there is no portal."""
        return not self.api_url

    def check(self) -> None:
        """Looks at everything that no type says.

        Raises:
            SettingError: A setting is missing or wrong; the text names it and what is accepted.
        """
        if self.public_ipv4 is None and self.public_ipv6 is None:
            raise SettingError(
                "--public-ip4-addr or --public-ip6-addr is missing: the address that clients reach us by"
            )
        if self.lowest_port > self.highest_port:
            raise SettingError(f"--lowest-port {self.lowest_port} is above --highest-port {self.highest_port}")
        if self.tls_port is not None and (self.tls_certificate is None or self.tls_key is None):
            raise SettingError("--tls-port needs --tls-cert and --tls-key, PEM files of a certificate and its key")
        if self.tcp_port is not None and self.tcp_port == self.tls_port:
            raise SettingError(f"--tcp-port and --tls-port are both {self.tcp_port}: they need one each")
        for text in self.allowed_peers:
            try:
                ip_network(text)
            except ValueError as error:
                raise SettingError(
                    f"--allow-peers {text}: {error}; a network is 192.0.2.0/24 or 2001:db8::/32"
                ) from None
        if not self.is_alone or not (self.passwords or self.auth_secret):
            check_api_url(self.api_url, "relay")
            if self.realm is not None and self.realm != turn.REALM:
                raise SettingError(f"--realm {self.realm}: devices of a portal know the realm {turn.REALM} alone")

    def portal_url(self) -> str:
        """The websocket that the relay joins."""
        params = (
            ("name", self.name),
            ("ipv4", self.public_ipv4),
            ("ipv6", self.public_ipv6),
            ("port", str(self.listen_port)),
        )
        return login_url(self.api_url, "relay", params)

    def users(self) -> tuple[Users, ...]:
        """Who may use this relay besides the portal's devices."""
        static = (StaticUsers(self.passwords),) if self.passwords else ()
        shared = (SharedSecretUsers(self.auth_secret),) if self.auth_secret else ()
        return (*static, *shared)

    def turn_config(self, own_hosts: tuple[str, ...]) -> TurnConfig:
        """What of this concerns the TURN server, at a host with these addresses."""
        return TurnConfig(
            self.public_ipv4,
            self.public_ipv6,
            self.listen_port,
            self.lowest_port,
            self.highest_port,
            realm=self.realm or (DEFAULT_REALM if self.is_alone else turn.REALM),
            own_hosts=own_hosts,
            allowed_peers=self.allowed_peers,
            private_peers=self.private_peers,
            max_per_user=self.max_per_user,
            max_per_source=self.max_per_source,
        )


def parse_passwords(text: str, place: str) -> dict[str, str]:
    """Reads a line `NAME:PASSWORD` for each user; lines that are empty or begin with `#` say nothing.

    Raises:
        SettingError: A line is none of these.
    """
    passwords: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password) or name in passwords:
            raise SettingError(f"{place}, line {number}: no NAME:PASSWORD of a new user")
        passwords[name] = password
    if not passwords:
        raise SettingError(f"{place} names no user; a user is a line NAME:PASSWORD")
    return passwords
