"""DNS control by systemd-resolved, through its program `resolvectl`."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

import structlog

from wardgate.io.dns_control import DnsControlError

RESOLVECTL_TIMEOUT_S: Final = 5.0
_LINK: Final = re.compile(r"Link \d+ \((?P<name>[^)]*)\):(?P<servers>.*)")

log = structlog.get_logger("io.dns")


class SystemdResolved:
    """Tells systemd-resolved about the tunnel interface; it forgets that with the interface."""

    name = "systemd-resolved"

    def __init__(self) -> None:
        self._wanted: tuple[str, tuple[str, ...], str | None] | None = None
        self._is_known = True

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Gives the interface its servers, all domains, and the search domain besides."""
        if not servers:
            return
        domains = ["~.", *([search_domain] if search_domain else [])]
        await _resolvectl("dns", interface, *servers)
        await _resolvectl("domain", interface, *domains)
        # The stub is on this host and makes answers up: there is nothing to encrypt, and nothing signed to check.
        for setting, value in (("llmnr", "true"), ("dnsovertls", "no"), ("dnssec", "no")):
            with contextlib.suppress(DnsControlError):
                await _resolvectl(setting, interface, value)
        self._wanted = (interface, tuple(servers), search_domain)
        self._is_known = True

    async def keep(self) -> bool:
        """Tells it again if the last look showed that it forgot, as when it was restarted."""
        if self._wanted is None or self._is_known:
            return False
        try:
            await self.set(*self._wanted)
        except DnsControlError as error:
            log.warning("systemd-resolved forgot the tunnel's servers and does not take them again", error=str(error))
            return False
        log.info("systemd-resolved forgot the tunnel's servers; it has them again")
        return True

    async def revert(self) -> None:
        """The servers vanish with the interface."""
        self._wanted = None

    def revert_at_once(self) -> None:
        """Likewise."""

    async def flush(self) -> None:
        """Forgets cached answers."""
        with contextlib.suppress(DnsControlError):
            await _resolvectl("flush-caches")

    async def system_nameservers(self) -> list[str]:
        """Every address that `resolvectl dns` names for other interfaces than ours."""
        own, ours, _ = self._wanted or (None, (), None)
        found: list[str] = []
        is_known = False
        for line in (await _resolvectl("dns")).splitlines():
            link = _LINK.match(line.strip())
            if link is not None and link["name"] == own:
                is_known = set(ours) <= set(_addresses(link["servers"]))
            else:
                found += _addresses(line)
        self._is_known = is_known
        return list(dict.fromkeys(found))


def _addresses(text: str) -> list[str]:
    """The addresses in it, without ports of their own, interfaces and the names of certificates."""
    found = []
    for word in text.split():
        with contextlib.suppress(ValueError):
            found.append(str(ip_address(word.partition("%")[0].partition("#")[0])))
    return found


async def _resolvectl(*arguments: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "resolvectl", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise DnsControlError("resolvectl cannot be run; choose another DNS control method") from error
    try:
        async with asyncio.timeout(RESOLVECTL_TIMEOUT_S):
            output, problem = await process.communicate()
    except TimeoutError as error:
        process.kill()
        raise DnsControlError("systemd-resolved does not answer") from error
    if process.returncode != 0:
        raise DnsControlError(f"resolvectl {arguments[0]}: {problem.decode(errors='replace').strip()[:200]}")
    return output.decode(errors="replace")
