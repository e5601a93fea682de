"""How a client makes the host ask its stub resolver, and how it takes that back.

Three methods: `systemd-resolved` gives the tunnel interface its servers, which vanish with it; `etc-resolv-conf`
rewrites the file and keeps a backup, known by a first line that also shows the next run that this one was killed;
`disabled` leaves the host alone.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal, Protocol

from wardgate.errors import WardgateError
from wardgate.io.resolver import RESOLV_CONF, read_nameservers

DnsMethod = Literal["systemd-resolved", "etc-resolv-conf", "disabled"]
MAGIC_LINE: Final = "# BEGIN Wardgate DNS configuration"
RESOLVECTL_TIMEOUT_S: Final = 5.0


class DnsControlError(WardgateError):
    """The host's DNS could not be set."""


class DnsControl(Protocol):
    """One method of DNS control."""

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Makes the host ask these servers; without any, nothing is changed.

        Raises:
            DnsControlError: It could not be done; the host is as before.
        """

    async def revert(self) -> None:
        """Takes it back, also what a killed run left behind."""

    async def flush(self) -> None:
        """Forgets cached answers."""

    async def system_nameservers(self) -> list[str]:
        """Whom the host asks apart from us."""


def dns_control(method: DnsMethod, backup: Path, resolv_conf: Path = RESOLV_CONF) -> DnsControl:
    """The method by its name.

    Args:
        method: Which.
        backup: Where the file is kept that `etc-resolv-conf` replaces; the same in every run.
        resolv_conf: That file.
    """
    match method:
        case "systemd-resolved":
            return SystemdResolved()
        case "etc-resolv-conf":
            return EtcResolvConf(backup, resolv_conf)
        case "disabled":
            return Disabled(resolv_conf)


class Disabled:
    """Leaves the host alone."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Does nothing."""

    async def revert(self) -> None:
        """Does nothing."""

    async def flush(self) -> None:
        """Does nothing."""

    async def system_nameservers(self) -> list[str]:
        """Those of resolv.conf."""
        return read_nameservers(self._path)


class EtcResolvConf:
    """Rewrites resolv.conf in place, for hosts and containers that read it directly."""

    def __init__(self, backup: Path, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._backup = backup

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Backs the file up, unless it is ours already, and writes the servers in."""
        if not servers:
            return
        if self._path.is_symlink() or not self._path.is_file():
            raise DnsControlError(f"{self._path} is no regular file; choose another DNS control method")
        try:
            if not self._is_ours():
                self._backup.parent.mkdir(parents=True, exist_ok=True)
                _write_atomically(self._backup, self._path.read_bytes())
        except OSError as error:
            raise DnsControlError(f"{self._path} could not be kept as {self._backup}: {error.strerror}") from error
        try:
            lines = [MAGIC_LINE, f"# The file as it was is in {self._backup}."]
            lines += [f"nameserver {server}" for server in servers]
            lines += [f"search {search_domain}"] if search_domain else []
            self._path.write_text("\n".join([*lines, "options ndots:1", ""]))
        except OSError as error:
            raise DnsControlError(f"{self._path} could not be written: {error.strerror}") from error

    async def revert(self) -> None:
        """Copies the backup back if the file is ours; the backup stays."""
        with contextlib.suppress(OSError):
            if self._is_ours() and self._backup.is_file():
                shutil.copyfile(self._backup, self._path)

    async def flush(self) -> None:
        """Nobody caches."""

    async def system_nameservers(self) -> list[str]:
        """Those of the file as it was before us."""
        return read_nameservers(self._backup if self._is_ours() else self._path)

    def _is_ours(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.readline().strip() == MAGIC_LINE.encode()
        except OSError:
            return False


class SystemdResolved:
    """Tells systemd-resolved about the tunnel interface."""

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Gives the interface its servers, all domains, and the search domain besides."""
        if not servers:
            return
        domains = ["~.", *([search_domain] if search_domain else [])]
        await _resolvectl("dns", interface, *servers)
        await _resolvectl("domain", interface, *domains)
        with contextlib.suppress(DnsControlError):
            await _resolvectl("llmnr", interface, "true")

    async def revert(self) -> None:
        """The servers vanish with the interface."""

    async def flush(self) -> None:
        """Forgets cached answers."""
        with contextlib.suppress(DnsControlError):
            await _resolvectl("flush-caches")

    async def system_nameservers(self) -> list[str]:
        """Every address that `resolvectl dns` names, apart from sentinels of ours."""
        found = []
        for word in (await _resolvectl("dns")).split():
            with contextlib.suppress(ValueError):
                found.append(str(ip_address(word.partition("%")[0].partition("#")[0])))
        return list(dict.fromkeys(found))


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


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)
