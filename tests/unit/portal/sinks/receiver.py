"""A small real server that destinations are played with, and certificates for their names."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.decode().splitlines()]


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Play = Callable[[Seen], Answer | Awaitable[Answer]]


class Receiver:
    """An ASGI application that keeps what comes and answers as the test says."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.play: Play = lambda seen: Answer()
        self.port = 0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self) -> list[str]:
        """The ids of all events that were accepted as JSON arrays, in order."""
        return [event["log_id"] for seen in self.seen for event in seen.json]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = Seen(
            scope["method"], scope["raw_path"].decode().partition("?")[0], scope["query_string"].decode(), headers, body
        )
        self.asked += 1
        found = self.play(seen)
        answer = found if isinstance(found, Answer) else await found
        if answer.status < 300:
            self.seen.append(seen)
        given = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": given})
        await send({"type": "http.response.body", "body": answer.body})


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    def capture_signals(self) -> Any:
        return nullcontext()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def running(receiver: Receiver, certificate: tuple[Path, Path] | None = None) -> AsyncIterator[Receiver]:
    """Serves on a free port of loopback until the test is over."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", receiver.port))
    receiver.port = listener.getsockname()[1]
    options: dict[str, Any] = {}
    if certificate is not None:
        options = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}
    config = uvicorn.Config(receiver, log_config=None, lifespan="off", timeout_graceful_shutdown=1, **options)
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with asyncio.timeout(20):
            await server.is_up.wait()
        yield receiver
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass
class Authority:
    """A certificate authority that the test's clients trust.

    Attributes:
        certificate: Chain and key of a server that has all the names.
    """

    tls: ssl.SSLContext
    certificate: tuple[Path, Path]


def make_authority(folder: Path, names: list[str]) -> Authority:
    """Makes an authority and a certificate of it."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca = _certificate(subject, subject, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=0))
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    leaf = _certificate(x509.Name([]), subject, key, ca_key, alternatives)
    chain, key_file = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*pem))
    tls = ssl.create_default_context(cadata=ca.public_bytes(serialization.Encoding.PEM).decode())
    return Authority(tls, (chain, key_file))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=True)
    )
    return builder.sign(signer, hashes.SHA256())
