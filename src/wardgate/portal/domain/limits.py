"""What a plan allows: how many of each kind an account may have. Source: portal-domain section 6."""

from collections.abc import Mapping
from typing import Any, Final

from wardgate.errors import Forbidden
from wardgate.portal.domain.actors import ActorState

LIMITS: Final = {
    "users": "users_count",
    "monthly_active_users": "monthly_active_users_count",
    "service_accounts": "service_accounts_count",
    "sites": "sites_count",
    "account_admin_users": "account_admin_users_count",
    "api_clients": "api_clients_count",
    "api_tokens_per_client": "api_tokens_per_client_count",
}
"""The kinds, and what each is called among an account's limits."""

DEFAULTS: Final = {"api_clients_count": 100, "api_tokens_per_client_count": 100}
_WORDS: Final = {kind: kind.replace("_", " ").replace("account admin users", "admins") for kind in LIMITS}


def limit_of(limits: Mapping[str, Any], kind: str) -> int | None:
    """How many of a kind there may be; `None` is any number."""
    name = LIMITS[kind]
    value = limits.get(name, DEFAULTS.get(name))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def kinds_of_actor(actor: ActorState, limits: Mapping[str, Any]) -> tuple[str, ...]:
    """Which limits an enabled actor counts towards; monthly actives replace users where they are limited."""
    if actor.is_disabled:
        return ()
    users = "users" if limit_of(limits, "monthly_active_users") is None else "monthly_active_users"
    return {
        "account_user": (users,),
        "account_admin_user": (users, "account_admin_users"),
        "service_account": ("service_accounts",),
        "api_client": ("api_clients",),
    }[actor.type]


def newly_counted(before: ActorState | None, after: ActorState, limits: Mapping[str, Any]) -> tuple[str, ...]:
    """Which limits a change needs room in: all of a new or re-enabled actor, the admins' for a promotion."""
    already = kinds_of_actor(before, limits) if before else ()
    return tuple(kind for kind in kinds_of_actor(after, limits) if kind not in already)


def check_room(limits: Mapping[str, Any], kind: str, used: int) -> None:
    """Lets one more of a kind be made.

    Raises:
        Forbidden: The limit is reached; `details` name the kind.
    """
    total = limit_of(limits, kind)
    if total is not None and used >= total:
        raise Forbidden(
            f"the account's limit of {_WORDS[kind]} is reached: {used} of {total}",
            "limit_reached",
            limit=kind,
            used=used,
            total=total,
        )


def check_open(is_disabled: bool) -> None:
    """Nothing is made in an account that is disabled.

    Raises:
        Forbidden: It is.
    """
    if is_disabled:
        raise Forbidden("the account is disabled: nothing can be created in it", "account_disabled")
