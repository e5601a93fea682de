"""A client's settings, checked once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from wardgate.proto.http_proxy import Proxies
from wardgate.proto.portal_login import external_id, login_url
from wardgate.wire.addresses import SocketAddr

DEFAULT_STATE_DIR: Final = Path("/var/lib/wardgate/client")
DEFAULT_TOKEN_FILE: Final = Path("/etc/wardgate/client/token")
DEFAULT_SOCKET: Final = Path("/run/wardgate/client.sock")
DEFAULT_INTERFACE: Final = "tun-wardgate"

DnsMethod = Literal["auto", "systemd-resolved", "etc-resolv-conf", "disabled"]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All settings of one client.

    Attributes:
        api_url: The portal.
        token: The client's token.
        id: The device id as configured.
        name: What the portal shows when it sees this client for the first time.
        state_dir: Where the client keeps what must outlive it.
        socket: Where commands reach it.
        interface: The TUN interface.
        dns_method: How the host is made to ask the client's resolver.
        is_internet_active: Whether the Internet resource is used, if there is one.
        max_partition_s: How long the portal may be away; `None` for as long as it takes.
        health_address: Where figures are served; `None` for nowhere.
        offload: Whether segmentation offloads are tried.
        exit_when_ready: Whether to end with success once the interface is configured.
        proxies: By which HTTP proxy the portal and relays are reached.
        portal_version: Which pair of websocket paths is used, 1 or 2.
    """

    api_url: str
    token: str
    id: str
    name: str
    state_dir: Path = DEFAULT_STATE_DIR
    socket: Path = DEFAULT_SOCKET
    interface: str = DEFAULT_INTERFACE
    dns_method: DnsMethod = "auto"
    is_internet_active: bool = False
    max_partition_s: float | None = None
    health_address: SocketAddr | None = None
    offload: bool = True
    exit_when_ready: bool = False
    portal_version: int = 2
    proxies: Proxies = field(default_factory=lambda: Proxies("none", {}), repr=False)

    def portal_url(self, public_key: str) -> str:
        """The websocket that the client joins with that WireGuard key (base64)."""
        params = (("external_id", external_id(self.id)), ("name", self.name))
        return login_url(self.api_url, "client", params, public_key=public_key, v1=self.portal_version == 1)

    @property
    def resolv_conf_backup(self) -> Path:
        """Where resolv.conf is kept while ours is in its place."""
        return resolv_conf_backup(self.state_dir)


def sysctl_record(state_dir: Path) -> Path:
    """Where kernel settings are kept as they were."""
    return state_dir / "sysctls.before-wardgate"


def resolv_conf_backup(state_dir: Path) -> Path:
    """The same, by the directory alone."""
    return state_dir / "resolv.conf.before-wardgate"
