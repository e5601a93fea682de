"""The machine that a run was made on, for the record."""

import os
import platform
from pathlib import Path

from bench.cost import number_of


def describe() -> dict[str, str]:
    """Processor, kernel, memory, and the settings that change results, by name."""
    found = {
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{number_of(_read('/proc/meminfo'), 'MemTotal') / (1 << 20):.1f} GiB",
        "python": platform.python_version(),
    }
    for name in ("net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem", "net/core/rmem_max", "net/core/netdev_max_backlog"):
        found[name] = " ".join(_read(f"/proc/sys/{name}").split())
    return found


def _processor() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
