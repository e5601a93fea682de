"""The lab without root: the same program as another user, where unprivileged user namespaces are allowed."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import wardgate

pytestmark = pytest.mark.netns

PROGRAM = """
import importlib.util, os, tempfile
from wardgate.lab import Lab, Link, capture, topologies
assert os.geteuid() != 0
delay_ms = 5 if importlib.util.find_spec("wardgate._fastpath") else 0
with Lab(topologies.demo(gateway_link=Link(delay_ms))) as lab:
    client = lab.node("client")
    with tempfile.TemporaryDirectory() as place:
        with capture(lab.wan, "client-nat", path=os.path.join(place, "wan.pcap")) as recording:
            client.run(["ping", "-c1", "-W2", "-p", "decafbad", "portal"]).check()
        assert recording.contains(bytes.fromhex("decafbaddecafbad"))
    lab.node("gateway-1").run(["ping", "-c1", "-W2", "portal"]).check()
    client.run(["sh", "-c", "echo nameserver 100.100.111.1 > /etc/resolv.conf"]).check()
    client.run(["ip", "tuntap", "add", "dev", "tun-test", "mode", "tun"]).check()
    with lab.node("app").socket() as made:
        made.bind(("10.9.0.2", 53))
    lab.set_link("client-nat", Link(loss=1))
    assert client.run(["ping", "-c1", "-W1", "portal"]).returncode == 1
print("done")
"""


# Some systems leave the TUN device to root alone. In a mount namespace of its own, nobody gets one as udev makes it.
AS_NOBODY = """
set -e
mkdir "$1"
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod "$1/tun" c 10 200
chmod 666 "$1/tun"
mount --bind "$1/tun" /dev/net/tun
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"
"""


def test_lab_works_without_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    else:
        done = run_as_nobody(tmp_path)
    if "LabUnavailable" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def run_as_nobody(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Copies the sources to where everybody can read them, for the repository may be in root's home."""
    python = readable_python()
    copy = tmp_path / "src" / "wardgate"
    shutil.copytree(Path(wardgate.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "static"))
    libraries = [Path(path) for path in sys.path if path.endswith("site-packages")]
    if not all(readable(path) for path in libraries):
        shutil.copytree(libraries[0] / "pyroute2", tmp_path / "src" / "pyroute2")
        libraries = []
    for place in (
        tmp_path,
        *(one for one in tmp_path.parents if one.stat().st_uid == os.geteuid() and len(one.parts) > 2),
    ):
        place.chmod(place.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "src"), *map(str, libraries)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh", str(tmp_path / "dev"), python, "-c", PROGRAM],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def readable_python() -> str:
    """An interpreter of our version that others may start; a virtual environment's can be a link into root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/{version}"):
        if os.path.exists(candidate) and readable(Path(candidate)):
            return candidate
    pytest.skip("no interpreter that another user may start")


def readable(path: Path) -> bool:
    real = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (real, *real.parents))
