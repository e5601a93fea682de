"""A gateway's settings, checked once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wardgate.proto.http_proxy import Proxies
from wardgate.proto.portal_login import external_id, login_url
from wardgate.wire.addresses import SocketAddr

DEFAULT_STATE_DIR: Final = Path("/var/lib/wardgate/gateway")
DEFAULT_INTERFACE: Final = "tun-wardgate"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """All settings of one gateway.

    Attributes:
        api_url: The portal.
        token: The gateway's token.
        id: The device id as configured.
        name: What the portal shows when it sees this gateway for the first time.
        state_dir: Where the gateway keeps what must outlive it; `None` for nowhere.
        interface: The TUN interface.
        max_partition_s: How long the portal may be away.
        health_address: Where health checks are answered; `None` for nowhere.
        masquerade: Whether forwarding and masquerading are set up on the host.
        offload: Whether segmentation offloads are tried.
        proxies: By which HTTP proxy the portal and relays are reached.
        portal_version: Which pair of websocket paths is used, 1 or 2.
    """

    api_url: str
    token: str
    id: str
    name: str
    state_dir: Path | None = None
    interface: str = DEFAULT_INTERFACE
    max_partition_s: float = 86400.0
    health_address: SocketAddr | None = None
    masquerade: bool = True
    offload: bool = True
    portal_version: int = 2
    proxies: Proxies = field(default_factory=lambda: Proxies("none", {}), repr=False)

    def portal_url(self, public_key: str) -> str:
        """The websocket that the gateway joins with that WireGuard key (base64)."""
        params = (("external_id", external_id(self.id)), ("name", self.name))
        return login_url(self.api_url, "gateway", params, public_key=public_key, v1=self.portal_version == 1)

    @property
    def sysctl_record(self) -> Path | None:
        """Where kernel settings are kept as they were."""
        return None if self.state_dir is None else self.state_dir / "sysctls.before-wardgate"
