"""Field checks that several nouns share; each gives the cleaned value or a sentence about what is wrong."""

import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from wardgate.errors import InvalidInput

_EMAIL_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
RESERVED_SLUGS: Final = frozenset(
    {
        "account",
        "actors",
        "auth",
        "browser",
        "client",
        "clients",
        "docs",
        "email_otp_auth_providers",
        "entra_auth_providers",
        "entra_directories",
        "explain",
        "find_account",
        "gateway",
        "gateways",
        "getting_started",
        "google_auth_providers",
        "google_directories",
        "groups",
        "healthz",
        "ingestion",
        "integrations",
        "intune_devices",
        "intune_posture_providers",
        "iru_devices",
        "iru_posture_providers",
        "live",
        "logs",
        "metrics",
        "oidc_auth_providers",
        "okta_auth_providers",
        "okta_directories",
        "openapi",
        "policies",
        "policy_tests",
        "preview",
        "reach",
        "readyz",
        "relay",
        "relays",
        "resources",
        "sign_in",
        "sign_up",
        "sites",
        "static",
        "swaggerui",
        "theme",
        "try",
        "verification",
        "verify_sign_up",
    }
)
"""First parts of paths that are not an account's pages."""
_SLUG: Final = re.compile(r"[A-Za-z0-9_]{3,100}", re.ASCII)


class Problems:
    """Collects what is wrong by field, to be raised at once."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str]] = {}

    def add(self, field: str, text: str) -> None:
        """Notes one problem."""
        self._fields.setdefault(field, []).append(text)

    def merge(self, error: InvalidInput) -> None:
        """Takes over the problems of another check."""
        for field, texts in error.fields.items():
            self._fields.setdefault(field, []).extend(texts)

    def raise_if_any(self) -> None:
        """Ends the check.

        Raises:
            InvalidInput: Something was wrong.
        """
        if self._fields:
            raise InvalidInput(self._fields)


def text(
    problems: Problems, fields: Mapping[str, Any], name: str, *, least: int = 1, most: int = 255, needed: bool = True
) -> str | None:
    """A trimmed text of `least` to `most` characters; `None` where it may be and is missing."""
    value = fields.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        if needed:
            problems.add(name, "can't be blank")
        return None
    if not isinstance(value, str):
        problems.add(name, "is invalid")
        return None
    value = value.strip()
    if len(value) < least:
        problems.add(name, f"should be at least {least} character(s)")
    if len(value) > most:
        problems.add(name, f"should be at most {most} character(s)")
    if "\x00" in value:
        problems.add(name, "is invalid")
    return value


def flag(problems: Problems, fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        problems.add(name, "is invalid")
        return default
    return value


def one_of(problems: Problems, fields: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    """One of the allowed words."""
    value = fields.get(name)
    if value is None:
        problems.add(name, "can't be blank")
        return None
    if value not in allowed:
        problems.add(name, "is invalid")
        return None
    return str(value)


def uuid(problems: Problems, fields: Mapping[str, Any], name: str, *, needed: bool = True) -> str | None:
    """The canonical text of a UUID."""
    value = fields.get(name)
    if value is None:
        if needed:
            problems.add(name, "can't be blank")
        return None
    if not is_uuid(value):
        problems.add(name, "is invalid")
        return None
    return str(UUID(value))


def is_uuid(value: object) -> bool:
    """Whether this is the dashed text of a UUID."""
    if not isinstance(value, str) or len(value) != 36:
        return False
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False


def email(problems: Problems, fields: Mapping[str, Any], name: str = "email") -> str | None:
    """An e-mail address with its domain in lower-case ASCII form."""
    value = text(problems, fields, name, most=160)
    if value is None:
        return None
    local, separator, domain = value.rpartition("@")
    try:
        domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        separator = ""
    labels = domain.split(".")
    if (
        not separator
        or not _EMAIL_LOCAL.fullmatch(local)
        or len(labels) < 2
        or not all(_LABEL.fullmatch(one) for one in labels)
    ):
        problems.add(name, "is not an e-mail address")
        return None
    return f"{local}@{domain}"


def slug(problems: Problems, fields: Mapping[str, Any]) -> str | None:
    """An account's slug: 3 to 100 letters, digits and underscores."""
    value = text(problems, fields, "slug", least=3, most=100)
    if value is not None and not _SLUG.fullmatch(value):
        problems.add("slug", "may have letters, digits and underscores only, 3 to 100 of them")
    if value is not None and value.lower() in RESERVED_SLUGS:
        problems.add("slug", "is the portal's own word")
    return value
