"""OpenVPN as Debian ships it, in user space: one client, one server, certificates known by fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from bench.contenders.base import tun_of
from bench.place import GATEWAY_PUBLIC, TUNNEL_MTU, Place, reaches, wait
from wardgate.lab.process import Process

PORT = 1194
APP = IPv4Address("10.9.0.22")
INTERFACE = "openvpn"
CIPHER = "AES-128-GCM"
SOCKET_BUFFER = 1 << 20
TUNING = [
    *("--tun-mtu", str(TUNNEL_MTU), "--txqueuelen", "1000", "--fast-io"),
    *("--sndbuf", str(SOCKET_BUFFER), "--rcvbuf", str(SOCKET_BUFFER)),
]
"""The inner MTU of all contenders, and what OpenVPN's own performance notes recommend."""


@dataclass
class OpenVpn:
    """Both ends, without the kernel's help (DCO): user space is compared with user space."""

    name: str = "openvpn"
    _processes: dict[str, Process] = field(default_factory=dict)
    _facts: dict[str, str] = field(default_factory=dict)

    def start(self, place: Place) -> None:
        """Makes certificates, starts the server, then the client."""
        place.app_answers_at(APP)
        place.forward_port(self.name, PORT)
        place.masquerade(self.name, f"iifname {INTERFACE}")
        prints = {role: _make_certificate(place, role) for role in ("client", "gateway")}
        server = ["--server", "10.78.0.0", "255.255.255.0", "--topology", "subnet", "--dh", "none", "--port", str(PORT)]
        near_end = ["--client", "--nobind", "--remote", str(GATEWAY_PUBLIC), str(PORT)]
        near_end += ["--route", str(APP), "255.255.255.255", "--remote-cert-tls", "server"]
        self._start_end(place, "gateway", server, prints["client"])
        self._start_end(place, "client", near_end, prints["gateway"])
        wait(lambda: reaches(place, self.target()), 10.0, f"{self.name} connects", *self._processes.values())
        self._facts = {"tun at the client": tun_of(place.client, INTERFACE), "cipher": CIPHER}

    def _start_end(self, place: Place, role: str, words: list[str], other: str) -> None:
        node = place.gateway if role == "gateway" else place.client
        argv = ["openvpn", *words, *_common_words(place.directory, role, other)]
        process = self._processes[role] = place.start(f"{self.name}-{role}", node.name, argv)
        wait(lambda: "Initialization Sequence Completed" in process.log(), 15.0, f"{self.name} starts", process)

    def target(self) -> str:
        """The app's address behind the tunnel."""
        return str(APP)

    def processes(self) -> Mapping[str, Process]:
        """Both ends."""
        return self._processes

    def facts(self) -> Mapping[str, str]:
        """The cipher that was negotiated."""
        return self._facts


def _common_words(directory: Path, role: str, fingerprint: str) -> list[str]:
    identity = ["--cert", f"{directory}/openvpn-{role}.crt", "--key", f"{directory}/openvpn-{role}.key"]
    device = ["--dev", INTERFACE, "--dev-type", "tun", "--proto", "udp4", "--disable-dco"]
    keeping = ["--keepalive", "10", "60", "--persist-tun", "--verb", "3"]
    return [*device, *identity, "--peer-fingerprint", fingerprint, "--data-ciphers", CIPHER, *keeping, *TUNING]


def _make_certificate(place: Place, role: str) -> str:
    """Makes a key and a certificate of its own; gives the fingerprint."""
    stem = f"{place.directory}/openvpn-{role}"
    usage = "serverAuth" if role == "gateway" else "clientAuth"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    words += ["-days", "3", "-subj", f"/CN={role}", "-addext", f"extendedKeyUsage={usage}"]
    words += ["-addext", "keyUsage=digitalSignature", "-keyout", f"{stem}.key", "-out", f"{stem}.crt"]
    place.client.run(words).check()
    shown = place.client.run(["openssl", "x509", "-in", f"{stem}.crt", "-noout", "-fingerprint", "-sha256"]).check()
    return shown.stdout.strip().rpartition("=")[2]
