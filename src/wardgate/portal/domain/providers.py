"""What may be said of a way to sign in. Source: portal-domain section 1.4."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from wardgate.portal.domain import checks

DEFAULT_NAMES: Final = {
    "google": "Google",
    "entra": "Entra",
    "okta": "Okta",
    "oidc": "OpenID Connect",
    "email_otp": "Email (OTP)",
    "userpass": "Username & Password",
}
PROVIDER_TYPES: Final = tuple(DEFAULT_NAMES)
OWN_TYPES: Final = ("email_otp", "userpass")
OWN_ISSUER: Final = "firezone"
CONTEXTS: Final = ("clients_and_portal", "clients_only", "portal_only")
EMAIL_CLAIMS: Final = ("upn", "email", "preferred_username")
VERIFICATIONS: Final = ("claim", "proof", "none")
_FQDN: Final = re.compile(r"(?=.{4,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}", re.ASCII)


def check_provider(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a provider, from what a person gave; `secret` is not sealed yet.

    Raises:
        InvalidInput: A field is missing or wrong.
    """
    problems = checks.Problems()
    values: dict[str, Any] = {
        "name": checks.text(problems, {"name": DEFAULT_NAMES[kind], **fields}, "name"),
        "context": checks.one_of(problems, {"context": CONTEXTS[0], **fields}, "context", CONTEXTS),
        "client_session_lifetime_secs": _lifetime(problems, fields, "client_session_lifetime_secs", 604_800),
        "portal_session_lifetime_secs": _lifetime(problems, fields, "portal_session_lifetime_secs", 28_800),
        "is_disabled": checks.flag(problems, fields, "is_disabled", False),
        "is_default": checks.flag(problems, fields, "is_default", False),
        "issuer": OWN_ISSUER,
        "client_id": None,
        "secret": None,
        "settings": {},
    }
    if kind in OWN_TYPES:
        if values["is_default"]:
            problems.add("is_default", "is not for codes and passwords", "not_allowed", "false")
    else:
        values["issuer"] = checks.text(problems, fields, "issuer", most=2048)
    if kind in ("okta", "oidc"):
        values["client_id"] = checks.text(problems, fields, "client_id")
        values["secret"] = checks.text(problems, fields, "client_secret")
    values["settings"] = _settings(problems, kind, fields, values["issuer"])
    problems.raise_if_any()
    return values


_LIFETIMES: Final = {"client_session_lifetime_secs": (3_600, 7_776_000), "portal_session_lifetime_secs": (300, 86_400)}


def _lifetime(problems: checks.Problems, fields: Mapping[str, Any], name: str, default: int) -> int | None:
    least, most = _LIFETIMES[name]
    return checks.number(problems, {name: default, **fields}, name, least=least, most=most)


def _settings(problems: checks.Problems, kind: str, fields: Mapping[str, Any], issuer: str | None) -> dict[str, Any]:
    match kind:
        case "entra":
            claim = checks.one_of(problems, {"email_claim": "upn", **fields}, "email_claim", EMAIL_CLAIMS)
            return {"email_claim": claim}
        case "okta":
            domain = checks.text(problems, fields, "okta_domain")
            if domain is not None and not _FQDN.fullmatch(domain):
                problems.add("okta_domain", "is not a domain name", "invalid", "a name such as corp.okta.com")
            elif domain is not None and issuer is not None and issuer != f"https://{domain}":
                problems.add("issuer", "is not that of the domain", "invalid", f"https://{domain}")
            return {"okta_domain": domain}
        case "oidc":
            uri = checks.text(problems, fields, "discovery_document_uri", most=2000)
            if uri is not None and not _is_https(uri):
                problems.add("discovery_document_uri", "is not an https address", "invalid", "an https address")
            name = "email_verification_method"
            method = checks.one_of(problems, {name: "claim", **fields}, name, VERIFICATIONS)
            return {"discovery_document_uri": uri, name: method, "is_legacy": bool(fields.get("is_legacy", False))}
        case _:
            return {}


def _is_https(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme == "https" and bool(_FQDN.fullmatch(parts.hostname or ""))
    except ValueError:
        return False
