"""Field checks that several nouns share; each gives the cleaned value or a sentence about what is wrong."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from wardgate.errors import FieldProblem, InvalidInput

_EMAIL_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_HOSTNAME: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
BLANK: Final = "can't be blank"
RESERVED_SLUGS: Final = frozenset(
    {
        "account",
        "actors",
        "auth",
        "browser",
        "client",
        "clients",
        "device_pools",
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
        self._found: list[FieldProblem] = []

    def add(self, field: str, text: str, code: str = "invalid", accepted: str | None = None) -> None:
        """Notes one problem, and what would be right."""
        self._found.append(FieldProblem(field, text, code, accepted))

    def merge(self, error: InvalidInput) -> None:
        """Takes over the problems of another check."""
        self._found.extend(error.problems)

    def raise_if_any(self) -> None:
        """Ends the check.

        Raises:
            InvalidInput: Something was wrong.
        """
        if self._found:
            raise error_of(self._found)


def error_of(found: Sequence[FieldProblem]) -> InvalidInput:
    """The error that says all of them."""
    fields: dict[str, list[str]] = {}
    for one in found:
        fields.setdefault(one.field, []).append(one.message)
    return InvalidInput(fields, found)


def text(
    problems: Problems, fields: Mapping[str, Any], name: str, *, least: int = 1, most: int = 255, needed: bool = True
) -> str | None:
    """A trimmed text of `least` to `most` characters; `None` where it may be and is missing."""
    value = fields.get(name)
    accepted = f"text of {least} to {most} characters"
    if value is None or (isinstance(value, str) and not value.strip()):
        if needed:
            problems.add(name, BLANK, "required", accepted)
        return None
    if not isinstance(value, str) or not is_storable(value):
        problems.add(name, "is invalid", "invalid", f"{accepted}, without NUL")
        return None
    value = value.strip()
    if len(value) < least:
        problems.add(name, f"should be at least {least} character(s)", "too_short", accepted)
    if len(value) > most:
        problems.add(name, f"should be at most {most} character(s)", "too_long", accepted)
    return value


def is_storable(value: str) -> bool:
    """Whether every database can hold this text: no NUL, and no half of a surrogate pair."""
    return "\x00" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def flag(problems: Problems, fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        problems.add(name, "is invalid", "invalid", "true or false")
        return default
    return value


def one_of(problems: Problems, fields: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    """One of the allowed words."""
    value = fields.get(name)
    accepted = ", ".join(allowed)
    if value is None:
        problems.add(name, BLANK, "required", accepted)
        return None
    if value not in allowed:
        problems.add(name, "is invalid", "invalid", accepted)
        return None
    return str(value)


def uuid(problems: Problems, fields: Mapping[str, Any], name: str, *, needed: bool = True) -> str | None:
    """The canonical text of a UUID."""
    value = fields.get(name)
    if value is None:
        if needed:
            problems.add(name, BLANK, "required", "a UUID")
        return None
    if not is_uuid(value):
        problems.add(name, "is invalid", "invalid", "a UUID")
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
        problems.add(name, "is not an e-mail address", "invalid", "an address such as mia@corp.example")
        return None
    return f"{local}@{domain}"


def slug(problems: Problems, fields: Mapping[str, Any]) -> str | None:
    """An account's slug: 3 to 100 letters, digits and underscores."""
    value = text(problems, fields, "slug", least=3, most=100)
    if value is not None and not _SLUG.fullmatch(value):
        accepted = "letters, digits and underscores, 3 to 100 of them"
        problems.add("slug", "may have letters, digits and underscores only, 3 to 100 of them", "invalid", accepted)
    if value is not None and value.lower() in RESERVED_SLUGS:
        problems.add("slug", "is the portal's own word", "taken", "a word that is not the first part of another path")
    return value


def hostname(problems: Problems, fields: Mapping[str, Any], name: str = "hostname") -> str | None:
    """A host name for dynamic pools; `None` where it is missing."""
    value = text(problems, fields, name, least=3, needed=False)
    if value is not None and not _HOSTNAME.fullmatch(value):
        problems.add(name, "is not a host name", "invalid", "letters, digits, dots, hyphens and underscores")
        return None
    return value


def number(problems: Problems, fields: Mapping[str, Any], name: str, *, least: int, most: int) -> int | None:
    """A whole number within bounds."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        problems.add(name, f"must be from {least} to {most}", "out_of_range", f"a whole number from {least} to {most}")
        return None
    return value


def unknown_ids(field: str, noun: str, ids: Iterable[str]) -> InvalidInput:
    """The error for ids that lead nowhere in this account."""
    return error_of(
        [FieldProblem(field, f"has no {noun} {one}", "unknown_reference", f"ids of {noun}s") for one in sorted(ids)]
    )
