"""How a client makes the host ask its stub resolver, and how it takes that back.

Three methods: `systemd-resolved` gives the tunnel interface its servers, which vanish with it (`resolved.py`);
`etc-resolv-conf` puts a file of ours in the place of `/etc/resolv.conf` (`resolv_conf.py`); `disabled` leaves the host
alone. `auto` looks which of the first two the host's programs go by (`dns_methods.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from wardgate.errors import WardgateError
from wardgate.io.resolver import RESOLV_CONF, read_nameservers

DnsMethod = Literal["auto", "systemd-resolved", "etc-resolv-conf", "disabled"]
RESOLVED_DIRECTORY: Final = Path("/run/systemd/resolve")
RESOLVED_STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})


class DnsControlError(WardgateError):
    """The host's DNS could not be set."""


class DnsControl(Protocol):
    """One method of DNS control."""

    name: str

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Makes the host ask these servers; without any, nothing is changed.

        Raises:
            DnsControlError: It could not be done; the host is as before.
        """

    async def keep(self) -> bool:
        """Does it again if somebody else undid it; whether that was so."""

    async def revert(self) -> None:
        """Takes it back."""

    def revert_at_once(self) -> None:
        """Takes back what outlives this process; does not block."""

    async def flush(self) -> None:
        """Forgets cached answers."""

    async def system_nameservers(self) -> list[str]:
        """Whom the host asks apart from us."""


class Disabled:
    """Leaves the host alone."""

    name = "disabled"

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Does nothing."""

    async def keep(self) -> bool:
        """Does nothing."""
        return False

    async def revert(self) -> None:
        """Does nothing."""

    def revert_at_once(self) -> None:
        """Does nothing."""

    async def flush(self) -> None:
        """Does nothing."""

    async def system_nameservers(self) -> list[str]:
        """Those of resolv.conf."""
        return read_nameservers(self._path)


def leads_to_resolved(resolv_conf: Path, runtime: Path = RESOLVED_DIRECTORY) -> bool:
    """Whether resolv.conf is systemd-resolved's, or names its stub."""
    if resolv_conf.is_symlink() and resolv_conf.resolve().is_relative_to(runtime.resolve()):
        return True
    return bool(RESOLVED_STUBS.intersection(read_nameservers(resolv_conf)))
