"""What an account may have, and what of it is over.

Source: portal-domain sections 1.2 and 6. A limit that is not set is none. Users and service accounts that are over keep
clients from connecting; seats (people with a client seen in a month) only warn, and replace the limit of users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from wardgate.errors import InvalidInput

LIMITS: Final = (
    "users_count",
    "monthly_active_users_count",
    "service_accounts_count",
    "account_admin_users_count",
    "sites_count",
    "api_clients_count",
    "api_tokens_per_client_count",
    "api_refill_rate",
    "api_capacity",
    "ingestion_refill_rate",
    "ingestion_capacity",
)
DEFAULTS: Final[Mapping[str, int]] = {"api_clients_count": 100, "api_tokens_per_client_count": 100}
UNLIMITED: Final = "unlimited"
MONTH: Final = timedelta(days=30)
_MOST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Usage:
    """How many an account has of what may be limited; disabled actors do not count."""

    users: int = 0
    monthly_active_users: int = 0
    service_accounts: int = 0
    account_admin_users: int = 0
    sites: int = 0
    api_clients: int = 0

    def of(self, limit: str) -> int | None:
        """How many there are of what a limit counts; rates count nothing."""
        count: int | None = getattr(self, limit.removesuffix("_count"), None)
        return count


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The flags of an account."""

    users_limit_exceeded: bool
    seats_limit_exceeded: bool
    service_accounts_limit_exceeded: bool
    sites_limit_exceeded: bool
    admins_limit_exceeded: bool

    @property
    def keeps_clients_out(self) -> bool:
        """Whether new connections of clients are refused."""
        return self.users_limit_exceeded or self.service_accounts_limit_exceeded


def limit_of(limits: Mapping[str, Any], name: str) -> int | None:
    """A limit's value; `None` is unlimited."""
    value = limits.get(name, DEFAULTS.get(name))
    return None if value is None else int(value)


def exceeded(limits: Mapping[str, Any], usage: Usage) -> Exceeded:
    """Which limits an account is over."""

    def is_over(name: str) -> bool:
        limit, used = limit_of(limits, name), usage.of(name)
        return limit is not None and used is not None and used > limit

    has_seats = limit_of(limits, "monthly_active_users_count") is not None
    return Exceeded(
        users_limit_exceeded=not has_seats and is_over("users_count"),
        seats_limit_exceeded=is_over("monthly_active_users_count"),
        service_accounts_limit_exceeded=is_over("service_accounts_count"),
        sites_limit_exceeded=is_over("sites_count"),
        admins_limit_exceeded=is_over("account_admin_users_count"),
    )


def parse_limit(text: str) -> tuple[str, int | None]:
    """`name=value` as an operator writes it; `unlimited` gives `None`.

    Raises:
        InvalidInput: There is no such limit, or the value is no count.
    """
    name, _, value = (part.strip() for part in text.partition("="))
    if name not in LIMITS:
        raise InvalidInput({"limits": [f"has no {name or text!r}; accepted are {', '.join(LIMITS)}"]})
    if value == UNLIMITED:
        return name, None
    if not (value.isascii() and value.isdigit() and int(value[:11]) <= _MOST):
        raise InvalidInput({name: [f"is {value!r}, but must be a whole number up to {_MOST}, or {UNLIMITED}"]})
    return name, int(value)
