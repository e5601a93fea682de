"""The relay's settings: checked once, each named as on the command line when it is wrong."""

from dataclasses import dataclass

from wardgate.errors import SettingError
from wardgate.proto.portal_login import login_url
from wardgate.proto.turn_server import TurnConfig
from wardgate.settings import check_api_url
from wardgate.wire.addresses import SocketAddr


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """All settings of one relay; `check` says what is wrong with them.

    Attributes:
        public_ipv4, public_ipv6: What clients and peers reach us by; at least one.
        bind_ipv4, bind_ipv6: Where the listening port and the allocations are bound.
        api_url: The portal.
        token: The relay's token.
        name: How the portal may call this relay.
        health_address: Where health checks are answered; `None` turns them off.
        native: Whether the native module forwards; else Python does, slowly.
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
    xdp: str | None = None
    xdp_mode: str = "driver"

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
        check_api_url(self.api_url, "relay")

    def portal_url(self) -> str:
        """The websocket that the relay joins."""
        params = (
            ("name", self.name),
            ("ipv4", self.public_ipv4),
            ("ipv6", self.public_ipv6),
            ("port", str(self.listen_port)),
        )
        return login_url(self.api_url, "relay", params)

    def turn_config(self) -> TurnConfig:
        """What of this concerns the TURN server."""
        return TurnConfig(self.public_ipv4, self.public_ipv6, self.listen_port, self.lowest_port, self.highest_port)
