"""The methods of DNS control by their names, and which of them a host needs."""

from pathlib import Path
from typing import Final, Literal

from wardgate.io.dns_control import RESOLVED_DIRECTORY, Disabled, DnsControl, DnsMethod, leads_to_resolved
from wardgate.io.resolv_conf import EtcResolvConf
from wardgate.io.resolved import SystemdResolved
from wardgate.io.resolver import RESOLV_CONF

NSSWITCH: Final = Path("/etc/nsswitch.conf")


def dns_control(method: DnsMethod, backup: Path, resolv_conf: Path = RESOLV_CONF) -> DnsControl:
    """The method by its name, after what a killed run left in resolv.conf, by whatever method, was taken back.

    Args:
        method: Which.
        backup: Where the file is kept that `etc-resolv-conf` replaces; the same in every run.
        resolv_conf: That file.
    """
    in_file = EtcResolvConf(backup, resolv_conf)
    in_file.revert_at_once()
    match detect_method(resolv_conf) if method == "auto" else method:
        case "systemd-resolved":
            return SystemdResolved()
        case "etc-resolv-conf":
            return in_file
        case "disabled":
            return Disabled(resolv_conf)


def detect_method(
    resolv_conf: Path = RESOLV_CONF, nsswitch: Path = NSSWITCH, runtime: Path = RESOLVED_DIRECTORY
) -> Literal["systemd-resolved", "etc-resolv-conf"]:
    """Which method this host's programs go by.

    Args:
        resolv_conf: Names the resolver of those that use the C library's.
        nsswitch: May name systemd-resolved's own plug-in.
        runtime: Where systemd-resolved keeps its files while it runs.
    """
    if leads_to_resolved(resolv_conf, runtime) or (runtime.is_dir() and _asks_resolved(nsswitch)):
        return "systemd-resolved"
    return "etc-resolv-conf"


def _asks_resolved(nsswitch: Path) -> bool:
    try:
        lines = nsswitch.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any("resolve" in line.split() for line in lines if line.startswith("hosts:"))
