"""Keeps the host's strict check of the way back from dropping what comes in beside the tunnel.

With the Internet resource in use, an unmarked packet to anywhere leaves through the tunnel. The strict check of RFC
3704 asks where an answer *without* our mark would leave, finds the tunnel, and drops what the portal, a relay or a
gateway sends to our marked sockets. The loose check, that there be any way back at all, stays on meanwhile.
"""

from typing import Final

import structlog

from wardgate.io.sysctls import Sysctls

STRICT: Final = "1"
LOOSE: Final = "2"
_ALL: Final = "net/ipv4/conf/all/rp_filter"

log = structlog.get_logger("io.reverse_path")


class ReversePathFilter:
    """Loosens the check while it must be, and makes it strict again."""

    def __init__(self, sysctls: Sysctls) -> None:
        self._sysctls = sysctls
        self._is_loose = False

    def loosen(self) -> None:
        """Sees that no interface checks strictly; called again when interfaces may have come."""
        for path in sorted(self._sysctls.root.glob("net/ipv4/conf/*/rp_filter")):
            name = str(path.relative_to(self._sysctls.root))
            if self._sysctls.get(name) == STRICT and self._is_effective(name) and self._sysctls.set(name, LOOSE):
                log.info("the check of the way back is loose while the Internet resource is used", setting=name)
        self._is_loose = True

    def tighten(self) -> None:
        """Puts everything back."""
        if self._is_loose:
            self._sysctls.restore()
            self._is_loose = False

    def keep(self) -> None:
        """Loosens again if it is to be loose."""
        if self._is_loose:
            self.loosen()

    def _is_effective(self, name: str) -> bool:
        """The larger of an interface's value and that for all counts."""
        return name == _ALL or self._sysctls.get(_ALL) != LOOSE
