"""What a component says when it knocks at the portal, and how it reads a refusal: pure functions.

Source: portal protocol, sections 1.1 (URL, headers) and 1.6 (errors on connect).
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

Component = Literal["client", "gateway", "relay"]

MAX_RETRY_AFTER_S: Final = 86400.0
"""A portal that asks for more patience than a day is taken to have erred."""

SPOKEN_RELEASES: Final[Mapping[str, str]] = {"headless-client": "1.5.11", "gateway": "1.6.0", "relay": "1.0.0"}
"""The release of each component whose protocol ours speaks. Portals decide by it which gateways fit a client, how they
write patterns and sites for it, and which resources it is told of; a version of our own numbering would be taken for a
program of 2023 (portal protocol, section 8)."""

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_MAX_DETAIL: Final = 300


def login_url(
    base: str,
    component: Component,
    params: Iterable[tuple[str, str | None]],
    *,
    public_key: str | None = None,
    v1: bool = False,
) -> str:
    """The websocket URL of a component.

    Args:
        base: The portal's API URL; its path is kept, its query dropped, `http` becomes `ws`.
        component: Who connects.
        params: Query parameters in order; those without a value are left out.
        public_key: The WireGuard key in base64, always last.
        v1: Whether to use the unversioned path; relays always do.

    Raises:
        ValueError: The base is not a websocket or HTTP URL.
    """
    parts = urlsplit(base)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"{base!r} is not a ws://, wss://, http:// or https:// address")
    _ = parts.port  # raises ValueError if it is no port
    path = f"{parts.path.rstrip('/')}/{component}/{'' if v1 or component == 'relay' else 'v2/'}websocket"
    query = [(name, value) for name, value in params if value is not None]
    if public_key is not None:
        query.append(("public_key", public_key))
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def user_agent(os_name: str, os_version: str, component: str, our_version: str, arch: str, kernel: str) -> str:
    """`<os>/<os version> <component>/<release> (<arch>; <kernel>) wardgate/<our version>`, ASCII alone.

    The release is the one of `SPOKEN_RELEASES`; portals read no further than that.
    """
    details = "; ".join(text for text in (arch, kernel) if text)
    text = f"{os_name}/{os_version} {component}/{SPOKEN_RELEASES[component]}" + (f" ({details})" if details else "")
    text += f" wardgate/{our_version}"
    return "".join(c for c in text if " " <= c <= "~")


def bearer(token: str) -> str:
    """The value of `X-Authorization`, without any whitespace inside the token.

    Raises:
        ValueError: The token is empty or has characters that no header may carry.
    """
    stripped = "".join(token.split())
    if not stripped or not all("!" <= c <= "~" for c in stripped):
        raise ValueError("the token is empty or holds characters other than printable ASCII")
    return f"Bearer {stripped}"


def external_id(configured: str) -> str:
    """What the portal is told of a device id: a UUID's SHA-256 in hex, any other id as it is."""
    try:
        uuid.UUID(configured)
    except ValueError:
        return configured
    return hashlib.sha256(configured.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer other than the upgrade.

    Attributes:
        status: The HTTP status.
        code: The problem's code, if the body has one.
        detail: A sentence for people.
        retry_after_s: How long the portal wants to be left alone, if it says so.
    """

    status: int
    code: str | None = None
    detail: str = ""
    retry_after_s: float | None = None

    @property
    def is_unauthorized(self) -> bool:
        """Whether trying again is pointless."""
        return self.status == 401

    @property
    def requires_sign_in(self) -> bool:
        """Whether it is the token that was refused, by the portal itself and not by something in front of it."""
        return self.is_unauthorized and self.code in ("invalid_token", "missing_token")

    def __str__(self) -> str:
        words = [f"HTTP {self.status}", *([self.code] if self.code else []), *([self.detail] if self.detail else [])]
        return ", ".join(words)


def read_refusal(status: int, body: bytes | None, retry_after: str | None, wall_time: float) -> Refusal:
    """Reads any answer to an upgrade request; a body that is not problem+json only lacks code and detail."""
    code, detail = None, ""
    try:
        problem = json.loads(body or b"")
    except (ValueError, RecursionError):
        problem = None
    if isinstance(problem, dict):
        code = problem["code"] if isinstance(problem.get("code"), str) else None
        detail = problem["detail"][:_MAX_DETAIL] if isinstance(problem.get("detail"), str) else ""
    waits = None if retry_after is None or status == 401 else parse_retry_after(retry_after, wall_time)
    return Refusal(status, code, detail, waits)


def parse_retry_after(text: str, wall_time: float) -> float | None:
    """Seconds from now, of a number of seconds or an HTTP date; 0 for a date gone by, `None` for anything else."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall_time
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
