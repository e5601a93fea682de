"""Secrets are nowhere but where they belong: an installation does all it can, and is then searched for every one.

And secrets are compared in constant time: each comparison in the portal's source that looks like one is named here.
"""

import ast
import asyncio
import base64
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest, Refusal, key
from wardgate.ids import AccountId, ResourceId
from wardgate.portal.clock import SystemClock
from wardgate.portal.db import sealing
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import AuthProvider
from wardgate.portal.db.tables import Account, Device, new_id
from wardgate.portal.domain import subjects, tokens
from wardgate.wire import portal

SOURCE = Path(__file__).resolve().parents[3] / "src" / "wardgate"
STAMP = "c0ffee" + "ab" * 29
CLIENT_SECRET = "the client secret of an identity provider"
WORDS = (
    "secret",
    "secrets",
    "hash",
    "digest",
    "hexdigest",
    "signature",
    "password",
    "passcode",
    "code_hash",
    "stamp",
    "psk",
    "mac",
)
COMPARISONS: set[str] = {
    "api/places.py: of != stamp",  # whether a page is of the same account as the one before
    "api/idempotency.py: found.request_hash != self._hash",  # of what the asker itself asked
    "db/backup_file.py: value.get('sha256') != seen.hexdigest()",  # whether a file is whole
    "services/log_sinks.py: secrets != known",  # whether an admin's own form has others than before
    "domain/tokens.py: len(raw) != 16 + 16 + _SECRET_LENGTH",
}
"""Comparisons with such a word in them that are of no secret."""


async def test_an_installation_that_did_everything_shows_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "portal.db"
    made = {
        "api": command(path, "setup", "--account", "corp", "--email", "admin@corp.example"),
        "client": command(path, "client-token", "--account", "corp", "--actor", "admin@corp.example"),
        "relay": command(path, "relay-token"),
    }
    await add_provider(path)
    async with served(tmp_path, path) as (server, answers):
        async with httpx.AsyncClient(base_url=server.url.replace("ws://", "http://")) as http:
            http.headers["Authorization"] = f"Bearer {made['api']}"
            made |= await work(server, http, made, answers)
    everything = seen(tmp_path, path, answers)

    found = {
        f"{name} in {place}"
        for name, text in (await secrets_of(path, made)).items()
        for place, bytes_ in everything.items()
        if text in bytes_
    }

    assert found == set()
    assert b"connect refused" in everything["log"]  # what was searched has something in it
    assert b"wardgate_portal_joins_total" in everything["answers"]
    assert b"client_tokens" in everything["database"]


def test_secrets_are_compared_in_constant_time() -> None:
    assert set(comparisons()) - COMPARISONS == set(), "compare with hmac.compare_digest, or name it in COMPARISONS"


def test_a_tokens_secret_is_hashed_before_it_is_compared_whether_it_is_right_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tokens.create("client", AccountId(new_id()), cast(Any, new_id()), os.urandom, "nonce")
    right = tokens.parse("nonce" + made.text)
    wrong = tokens.parse("other" + made.text)
    assert right is not None
    assert wrong is not None
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr("wardgate.portal.domain.tokens.hmac.compare_digest", compare)

    for token in (right, wrong):
        assert tokens.is_genuine(token, made.salt, made.hash)

    assert [len(one) for one, _ in compared] == [64, 64]
    assert {other for _, other in compared} == {made.hash}
    assert compared[0][0] == made.hash != compared[1][0]


# --- what the installation does ---------------------------------------------------------------------------------------


async def work(
    server: PortalUnderTest, http: httpx.AsyncClient, made: dict[str, str], answers: list[bytes]
) -> dict[str, str]:
    """Uses every kind of token and secret, well and badly; gives the secrets that came of it."""

    async def ask(method: str, path: str, body: Any = None, **options: Any) -> Any:
        return await http.request(method, path, json=body, **options)

    async def make(noun: str, **fields: Any) -> str:
        plural = {"policy": "policies"}.get(noun, noun + "s")
        response = await ask("POST", f"/{plural}", {noun: fields})
        answers.append(response.content)
        return str(response.json()["data"]["id"])

    site = await make("site", name="Vienna")
    gateway_token = (await ask("POST", f"/sites/{site}/gateway_tokens")).json()["data"]["token"]
    resource = await make("resource", name="Lab", type="cidr", address="10.9.0.0/24", site_id=site)
    group = await make("group", name="Admins")
    admin = (await ask("GET", "/actors?email=admin@corp.example")).json()["data"][0]["id"]
    assert (await ask("PATCH", f"/groups/{group}/memberships", {"memberships": {"add": [admin]}})).status_code == 200
    await make("policy", group_id=group, resource_id=resource)
    service = await make("actor", name="Backup", type="service_account")
    issued = await ask(
        "POST", f"/actors/{service}/client_tokens", {"client_token": {"expires_at": "2030-01-01T00:00:00Z"}}
    )
    service_token = issued.json()["data"]["token"]

    relay = await (await server.connect("relay", made["relay"], ipv4="203.0.113.3")).join({"stamp_secret": STAMP})
    device: dict[str, Any] = {"external_id": "gw", "public_key": key("gw")}
    gateway = await (await server.connect("gateway", gateway_token, **device)).join()
    laptop: dict[str, Any] = {"external_id": "laptop", "public_key": key("laptop")}
    client = await (await server.connect("client", made["client"], **laptop)).join()
    psk = await granted(gateway, client, resource)

    for token in (service_token, made["relay"], gateway_token[:-2] + "AA", made["api"]):
        with pytest.raises(Refusal):
            await server.connect("client", token, external_id="x", public_key="nonsense")
    with pytest.raises(Refusal):  # the old way, with the token in the query
        await server.connect("gateway", None, path=f"/gateway/v2/websocket?token={made['client']}&rest=")
    for method, path, body in (
        ("GET", f"/nowhere?token={made['api']}", None),
        ("POST", "/sites", {"site": {"name": made["api"] * 5}}),
        ("GET", "/actors/not-an-id", None),
        *(("GET", one, None) for one in ("/account", "/actors", "/sites", "/logs?type=change&limit=100", "/clients")),
        *(("GET", one, None) for one in ("/logs?type=session", "/logs?type=api_request", "/okta_auth_providers")),
        ("GET", f"/actors/{service}/client_tokens", None),
        ("GET", "/metrics", None),
        ("GET", "/openapi.json", None),
    ):
        answers.append((await ask(method, path, body)).content.replace((made["api"] * 5).encode(), b""))
    answers.append((await http.get("/sites", headers={"Authorization": f"Bearer {gateway_token}"})).content)
    for peer in (relay, gateway, client):
        await peer.close()
    return {"gateway": gateway_token, "service": service_token, "psk": psk}


async def granted(gateway: Peer, client: Peer, resource: str) -> str:
    """A client asks for access and gets it; the pre-shared key of the two."""
    await client.take(portal.ClientInit)
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(resource)))
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    answer = await client.take(portal.AuthorizationCreated)
    return str(answer.preshared_key)


# --- where it is looked for -------------------------------------------------------------------------------------------


def seen(tmp_path: Path, path: Path, answers: list[bytes]) -> dict[str, bytes]:
    """Everything that others may get to see."""
    with closing(sqlite3.connect(path)) as connection:
        dump = "\n".join(connection.iterdump()).encode()
    files = [one for one in tmp_path.iterdir() if one.name.startswith("portal.db") and not one.name.endswith(".key")]
    logs = [one.read_bytes() for one in (tmp_path / "logs").rglob("*") if one.is_file()]
    return {
        "database": b"".join(one.read_bytes() for one in files) + dump,
        "log": b"".join([*logs, (tmp_path / "output").read_bytes()]),
        "answers": b"\n".join(answers),
    }


async def secrets_of(path: Path, made: dict[str, str]) -> dict[str, bytes]:
    """Every secret that was in play, in every form in which it might show."""
    db = Database(f"sqlite:///{path}", SystemClock())
    async with db.unscoped() as session:
        account = (await session.execute(Account.__table__.select())).mappings().one()
        devices = (await session.execute(Device.__table__.select())).mappings().all()
    raw = {
        "signing key": db.keyring.open(account["ingest_signing_key"], f"accounts.ingest_signing_key:{account['id']}")
    }
    raw |= {
        f"psk base {one['id']}": db.keyring.open(one["psk_base"], f"devices.psk_base:{one['id']}") for one in devices
    }
    await db.close()
    raw["key"] = base64.b64decode((path.parent / "portal.db.key").read_text())
    for name in ("api", "client", "relay", "gateway", "service"):
        parsed = tokens.parse(made[name])
        assert parsed is not None, name
        raw[f"{name} token"] = parsed.secret
    found = {f"{name} as it was shown": text.encode() for name, text in made.items()}
    found |= {"stamp": STAMP.encode(), "client secret": CLIENT_SECRET.encode()}
    for name, secret in raw.items():
        found[f"{name} raw"] = secret
        found[f"{name} in hex"] = secret.hex().encode()
        found[f"{name} in base64"] = base64.b64encode(secret)
        found[f"{name} in base64url"] = base64.urlsafe_b64encode(secret).rstrip(b"=")
    assert len(devices) == 2
    return found


async def add_provider(path: Path) -> None:
    """A sign-in provider with its secret, as an admin's page would make it."""
    db = Database(f"sqlite:///{path}", SystemClock())
    async with db.unscoped() as session:
        account_id = (await session.execute(Account.__table__.select())).mappings().one()["id"]
    async with db.writing(subjects.system(account_id)) as unit:
        row_id = new_id()
        sealed = sealing.seal(db.keyring, CLIENT_SECRET.encode(), AuthProvider, "sealed_secret", row_id)
        facts = {"type": "okta", "name": "Okta", "issuer": "https://corp.okta.com", "client_id": "wardgate"}
        await unit.insert(AuthProvider(account_id=account_id, id=row_id, sealed_secret=sealed, **facts))
    await db.close()


def command(path: Path, *words: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *words, "--database", f"sqlite:///{path}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PROGRAM = [sys.executable, "-c", "from wardgate.portal.main import app; app()"]


@asynccontextmanager
async def served(tmp_path: Path, path: Path) -> AsyncIterator[tuple[PortalUnderTest, list[bytes]]]:
    """The real program, which logs everything that it can."""
    environment = {
        **os.environ,
        "WARDGATE_LOG_LEVEL": "debug",
        "WARDGATE_LOG_DIR": str(tmp_path / "logs"),
        "WARDGATE_CONNECT_CAPACITY": "100",
    }
    with (tmp_path / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("serve", "--listen", "127.0.0.1:0", "--database", f"sqlite:///{path}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            env=environment,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        assert "http://" in line, (tmp_path / "output").read_text()
        server = PortalUnderTest(line.split()[-1].replace("http://", "ws://"), cast(Any, None), ManualClock())
        yield server, []
        await server.close()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()


# --- the source -------------------------------------------------------------------------------------------------------


def comparisons() -> list[str]:
    """Every `==`, `!=` and `in` of the portal that has a word of secrets on one side."""
    found = []
    for path in sorted((SOURCE / "portal").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
                sides = [one for one in (node.left, *node.comparators) if not isinstance(one, ast.Constant)]
                parts = re.split("[^a-z]+", " ".join(ast.unparse(one) for one in sides).lower())
                if set(parts) & set(WORDS):
                    found.append(f"{path.relative_to(SOURCE / 'portal').as_posix()}: {ast.unparse(node)}")
    return found
