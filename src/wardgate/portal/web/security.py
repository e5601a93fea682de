"""What guards the pages: headers, cookies, and where a form may come from."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from wardgate.ids import AccountId

FORM_FIELD: Final = "csrf"
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "strict-transport-security": "max-age=63072000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
NOT_KEPT: Final = {"cache-control": "no-store"}


def session_cookie(account_id: AccountId) -> str:
    """The name of an account's session cookie: several accounts may be signed in at once."""
    return f"__Host-session-{account_id.partition('-')[0]}"


def set_cookie(response: Response, name: str, value: str, lifetime: timedelta) -> None:
    """A cookie for this host alone, out of the reach of scripts and of other sites' forms."""
    response.set_cookie(
        name, value, max_age=int(lifetime.total_seconds()), path="/", secure=True, httponly=True, samesite="lax"
    )


def drop_cookie(response: Response, name: str) -> None:
    """Makes the browser forget a cookie."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def is_own_form(request: Request) -> bool:
    """Whether a request that changes something comes from a page of ours, as far as the browser says.

    Browsers send `Sec-Fetch-Site`, or at least `Origin`, with each form; what sends neither is no browser.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or (origin != "null" and urlsplit(origin).netloc == request.headers.get("host"))


def own_path(text: str | None, account_slug: str) -> str | None:
    """A path to go back to after signing in, if it is one of this account's pages."""
    if text is None or (not text.startswith(f"/{account_slug}/") and text != f"/{account_slug}"):
        return None
    parts = urlsplit(text)
    is_plain = not parts.scheme and not parts.netloc and "\\" not in text and text.isprintable()
    return text if is_plain and not text.startswith("//") else None
