"""Chromium: two pages whose data channels go through our relay only, as those of any WebRTC application may."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.interop.clients.service import Service

pytestmark = pytest.mark.interop

MESSAGES = 100
SCHEMES = {
    "udp": "turn:127.0.0.1:{}?transport=udp",
    "tcp": "turn:127.0.0.1:{}?transport=tcp",
    "tls": "turns:127.0.0.1:{}?transport=tcp",
}


@pytest.mark.parametrize("user", ["static", "shared"])
@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
def test_two_pages_talk_through_the_relay(
    service: Service, interop_python: str, tmp_path: Path, way: str, user: str
) -> None:
    trusted = trusting(service.ports.certificate)

    said = run_pair(interop_python, service, tmp_path, way, service.user(user), trusted)

    assert said.get("echoed") == [MESSAGES, MESSAGES], said
    assert said["selected"] == [{"kinds": ["relay", "relay"], "by": way}] * 2


def test_an_unknown_certificate_is_not_trusted(service: Service, interop_python: str, tmp_path: Path) -> None:
    """That TLS is refused here shows that it was checked above."""
    said = run_pair(interop_python, service, tmp_path, "tls", service.user("static"), [])

    assert said["errors"], said


def test_a_wrong_password_is_reported_to_the_page(service: Service, interop_python: str, tmp_path: Path) -> None:
    said = run_pair(interop_python, service, tmp_path, "udp", ("alice", "looking-glass"), [])

    assert [error[:3] for error in said["errors"]] == ["401"]


def run_pair(
    python: str, service: Service, home: Path, way: str, user: tuple[str, str], arguments: list[str]
) -> dict[str, Any]:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.fail("not installed: chromium (apt-get install chromium)", pytrace=False)
    name, password = user
    settings = {
        "browser": browser,
        "arguments": arguments + (["--no-sandbox"] if os.geteuid() == 0 else []),
        "url": SCHEMES[way].format(service.port(way)),
        "username": name,
        "password": password,
        "messages": MESSAGES,
    }
    result = subprocess.run(
        [python, str(Path(__file__).with_name("chromium_pair.py"))],
        input=json.dumps(settings),
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def trusting(certificate: Path) -> list[str]:
    """What makes Chromium trust this one key: its certificate vouches for itself."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return [f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"]
