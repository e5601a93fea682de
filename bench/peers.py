"""The programs that are compared and that make load: installed or built once, into a directory that git ignores."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardgate.errors import WardgateError
from wardgate.lab.node import SYSTEM_DIRECTORIES

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
LOAD = CACHE / "target/release/load"
WIREGUARD_GO = CACHE / "bin/wireguard"
GOTATUN = CACHE / "bin/gotatun"
WIREGUARD_GO_MODULE = "golang.zx2c4.com/wireguard"
GOTATUN_CRATE = "gotatun-cli"
PACKAGES: Mapping[str, str] = {
    "openvpn": "openvpn",
    "openssl": "openssl",
    "iperf3": "iperf3",
    "wg": "wireguard-tools",
    "ping": "iputils-ping",
    "ip": "iproute2",
    "nft": "nftables",
}
"""Debian's package of each program."""

Say = Callable[[str], None]


class PeerError(WardgateError):
    """A program that is needed cannot be had; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Something to build.

    Attributes:
        name: What it is.
        result: The program that comes out.
        argv: How to build it.
        tool: What it is built with.
        always: Whether to build again even if it is there, which is quick when nothing has changed.
    """

    name: str
    result: Path
    argv: Sequence[str]
    tool: str
    always: bool = False


def prepare(contenders: Sequence[str], say: Say) -> dict[str, str]:
    """Makes sure that everything these contenders need is there; gives the version of each program.

    Raises:
        PeerError: Something cannot be installed or built.
    """
    _install_packages([name for name in PACKAGES if name not in ("openvpn", "openssl") or "openvpn" in contenders], say)
    for peer in peers_for(contenders):
        _build(peer, say)
    return versions(contenders)


def prepare_load(say: Say) -> None:
    """Makes sure that the load program alone is there.

    Raises:
        PeerError: It cannot be built.
    """
    for peer in peers_for(()):
        _build(peer, say)


def peers_for(contenders: Sequence[str]) -> list[Peer]:
    """What has to be built for these contenders."""
    cargo = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", str(HERE / "load/Cargo.toml")]
    made = [Peer("the load program", LOAD, [*cargo, "--target-dir", str(CACHE / "target")], "cargo", always=True)]
    if "wireguard-go" in contenders:
        made.append(Peer("wireguard-go", WIREGUARD_GO, ["go", "install", f"{WIREGUARD_GO_MODULE}@latest"], "go"))
    if "gotatun" in contenders:
        install = ["cargo", "install", "--quiet", "--locked", "--root", str(CACHE), GOTATUN_CRATE]
        made.append(Peer("gotatun", GOTATUN, [*install, "--target-dir", str(CACHE / "target")], "cargo"))
    return made


def versions(contenders: Sequence[str]) -> dict[str, str]:
    """The version of each program, in its own words."""
    found = {"iperf3": _first_line(["iperf3", "--version"])}
    if "openvpn" in contenders:
        found["openvpn"] = _first_line(["openvpn", "--version"])
    if "wireguard-go" in contenders:
        told = _output(["go", "version", "-m", str(WIREGUARD_GO)]).split()
        found["wireguard-go"] = f"{told[told.index('mod') + 2]}, {told[1]}" if "mod" in told else "unknown"
    if "gotatun" in contenders:
        found["gotatun"] = _first_line([str(GOTATUN), "--version"])
    found["wardgate"] = _output(["git", "describe", "--always", "--dirty", "--abbrev=10"]).strip() or "unknown"
    return found


def _install_packages(programs: Sequence[str], say: Say) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES])
    packages = [PACKAGES[program] for program in programs if shutil.which(program, path=path) is None]
    if not packages:
        return
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PeerError(f"Debian packages are missing. As root: {' '.join(command)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    _timed(f"Debian packages ({' '.join(packages)})", ["apt-get", "update", "-q"], quiet, say)
    _timed(f"installing {' '.join(packages)}", command, quiet, say)


def _build(peer: Peer, say: Say) -> None:
    if peer.result.exists() and not peer.always:
        return
    hint = "" if peer.always else "; `python -m bench.tunnel --contenders …` can do without"
    if shutil.which(peer.tool) is None:
        raise PeerError(f"{peer.name} is built with {peer.tool}, which is not on the PATH{hint}")
    CACHE.mkdir(exist_ok=True)
    try:
        _timed(f"building {peer.name}", peer.argv, {"GOBIN": str(WIREGUARD_GO.parent)}, say)
    except PeerError as error:
        raise PeerError(f"{error}{hint}") from None
    if not peer.result.exists():
        raise PeerError(f"{peer.name}: {peer.result} was not made")


def _timed(text: str, argv: Sequence[str], env: Mapping[str, str], say: Say) -> None:
    began = time.monotonic()
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise PeerError(f"{text} failed: {' '.join(argv)}\n{said}")
    if time.monotonic() - began > 1:
        say(f"{text}: done in {time.monotonic() - began:.0f} s")


def _first_line(argv: Sequence[str]) -> str:
    return next(iter(_output(argv).splitlines()), "unknown").strip()


def _output(argv: Sequence[str]) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES])
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=HERE, env={**os.environ, "PATH": path}
        ).stdout
    except OSError:
        return ""
