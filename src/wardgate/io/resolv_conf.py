"""DNS control by `/etc/resolv.conf`, for hosts and containers whose programs read it directly.

A file of ours takes its place, and a copy of the one before is kept. Ours is known by its first line, which shows the
next run that this one was killed, and everybody that a file without it was written by somebody else since: that one is
never overwritten without a copy, and never reverted. Where resolv.conf is a link, the link is what is kept.
"""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from wardgate.io.dns_control import DnsControlError, leads_to_resolved
from wardgate.io.resolver import RESOLV_CONF, read_nameservers

MAGIC_LINE: Final = "# BEGIN Wardgate DNS configuration"
MAX_BYTES: Final = 1024 * 1024
_NOT_REPLACEABLE: Final = frozenset({errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM})
"""What a rename fails with where the file itself is mounted, as in containers, or only the file may be written."""

log = structlog.get_logger("io.dns")


class EtcResolvConf:
    """Puts a file of ours in the place of resolv.conf.

    Args:
        backup: Where the one before is kept; the same in every run.
        path: The file.
    """

    name = "etc-resolv-conf"

    def __init__(self, backup: Path, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._backup = backup
        self._link = backup.with_name(backup.name + ".link")
        self._content: bytes | None = None
        self._is_trampled = False

    async def set(self, interface: str, servers: Sequence[str], search_domain: str | None) -> None:
        """Keeps a copy of the file, unless it is ours already, and puts ours in its place."""
        if not servers:
            return
        lines = [MAGIC_LINE, f"# The file as it was is in {self._backup}; `wardgate client clean-up` puts it back."]
        lines += [f"nameserver {server}" for server in servers]
        lines += [f"search {search_domain}"] if search_domain else []
        content = "\n".join([*lines, "options ndots:1", ""]).encode()
        self._put(content)
        self._content = content

    async def keep(self) -> bool:
        """Takes up what somebody else, such as NetworkManager or a DHCP client, wrote, and puts ours back."""
        if self._content is None or self._is_ours():
            return False
        try:
            self._put(self._content)
        except DnsControlError as error:
            if not self._is_trampled:
                log.warning("names of resources are not found: another program took resolv.conf", error=str(error))
            self._is_trampled = True
            return False
        self._is_trampled = False
        log.info("resolv.conf was replaced by another program; it is ours again")
        return True

    async def revert(self) -> None:
        """Puts the one before back if the file is ours; the copy stays."""
        self.revert_at_once()

    def revert_at_once(self) -> None:
        """The same, also for what a killed run left behind."""
        self._content = None
        if not self._is_ours():
            return
        try:
            if self._link.is_file():
                _replace_by_link(self._path, self._link.read_text())
            elif self._backup.is_file():
                replace_file(self._path, self._backup.read_bytes())
            else:
                log.error("resolv.conf is ours, but the copy of the one before is gone", copy=str(self._backup))
        except (OSError, UnicodeDecodeError) as error:
            log.error("resolv.conf could not be put back", copy=str(self._backup), error=str(error))

    async def flush(self) -> None:
        """Nobody caches."""

    async def system_nameservers(self) -> list[str]:
        """Those of the file as it was before us; of a link, as what it leads to is now."""
        return read_nameservers(self._before_us() if self._is_ours() else self._path)

    def _before_us(self) -> Path:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self._path.parent / self._link.read_text()
        return self._backup

    def _put(self, content: bytes) -> None:
        if leads_to_resolved(self._path):
            raise DnsControlError(f"{self._path} leads to systemd-resolved; choose --dns-control systemd-resolved")
        if not self._path.is_file():
            raise DnsControlError(f"{self._path} is no file; make one, or choose another DNS control method")
        try:
            if not self._is_ours():
                self._keep_copy()
        except OSError as error:
            raise DnsControlError(f"{self._path} could not be kept as {self._backup}: {error.strerror}") from error
        try:
            replace_file(self._path, content)
        except OSError as error:
            raise DnsControlError(f"{self._path} could not be written: {error.strerror}") from error

    def _keep_copy(self) -> None:
        self._backup.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("rb") as file:
            _write(self._backup, file.read(MAX_BYTES))
        if self._path.is_symlink():
            _write(self._link, os.fsencode(os.readlink(self._path)))
        else:
            self._link.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.readline(len(MAGIC_LINE) + 2).strip() == MAGIC_LINE.encode()
        except OSError:
            return False


def replace_file(path: Path, data: bytes) -> None:
    """Gives a file new content at once, so that no reader sees half of it; in place where that cannot be.

    A link is replaced, not what it leads to. Mode and owner stay.

    Raises:
        OSError: The file is as it was.
    """
    try:
        _write(path, data, like=path)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE or path.is_symlink():
            raise
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()


def _write(path: Path, data: bytes, like: Path | None = None) -> None:
    """Puts a new file in the place of whatever has that name."""
    temporary = path.with_name(path.name + ".wardgate-new")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            if like is not None:
                status = like.stat()
                os.fchmod(file.fileno(), status.st_mode & 0o777)
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _replace_by_link(path: Path, target: str) -> None:
    temporary = path.with_name(path.name + ".wardgate-new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)
