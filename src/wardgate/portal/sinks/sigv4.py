"""AWS Signature Version 4, for requests whose path needs no second encoding (S3, and `/` elsewhere).

Source: AWS, "Create a signed AWS API request".
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair, and the session token of temporary ones."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id})"


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    region: str,
    service: str,
    at: datetime,
) -> dict[str, str]:
    """The headers of a request with those that sign it.

    Args:
        headers: All of them are signed, and `Host`, which whoever sends them adds.
        at: When it is signed; AWS takes it for some minutes.
    """
    parts = urlsplit(url)
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed |= {"host": parts.netloc, "x-amz-date": stamp}
    if service == "s3":
        signed["x-amz-content-sha256"] = digest
    if credentials.session_token is not None:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path or "/"), safe="/~"),
            _canonical_query(parts.query),
            *[f"{name}:{signed[name]}" for name in sorted(signed)],
            "",
            names,
            digest,
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    proof = f"Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {name: value for name, value in signed.items() if name != "host"} | {
        "authorization": f"AWS4-HMAC-SHA256 {proof}"
    }


def _canonical_query(query: str) -> str:
    pairs = []
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        pairs.append((quote(unquote(name), safe="~"), quote(unquote(value), safe="~")))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
