"""What may be said of an actor, and what may become of it. Source: portal-domain sections 1.3 and 3.1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wardgate.errors import Conflict, Forbidden, InvalidInput, invalid
from wardgate.portal.domain import checks
from wardgate.portal.domain.subjects import ACTOR_TYPES, USER_TYPES

ADMIN = "account_admin_user"
START_PAGES = ("sites", "resources", "groups", "policies", "clients", "actors")


@dataclass(frozen=True, slots=True)
class ActorState:
    """An actor as far as the rules look at it; `None` for the state after stands for its deletion."""

    id: str
    type: str
    is_disabled: bool = False
    email: str | None = None
    allow_email_otp_sign_in: bool = False

    @property
    def is_acting_admin(self) -> bool:
        """Whether the account can be managed by it."""
        return self.type == ADMIN and not self.is_disabled


@dataclass(frozen=True, slots=True)
class WaysIn:
    """How an actor can sign in, apart from e-mail codes.

    Attributes:
        has_email_codes: The account has a provider of e-mail codes that is enabled.
        identity_issuers: Where the actor has identities.
        enabled_issuers: Where the account lets people come from.
    """

    has_email_codes: bool = False
    identity_issuers: Sequence[str] = ()
    enabled_issuers: Sequence[str] = ()
    has_password: bool = False


def check_actor(fields: Mapping[str, Any], allowed_types: tuple[str, ...]) -> dict[str, Any]:
    """The columns of an actor, from what a person gave.

    Raises:
        InvalidInput: A field is missing or wrong.
    """
    problems = checks.Problems()
    values: dict[str, Any] = {
        "name": checks.text(problems, fields, "name"),
        "type": checks.one_of(problems, fields, "type", allowed_types),
        "allow_email_otp_sign_in": checks.flag(problems, fields, "allow_email_otp_sign_in", False),
        "email": None,
    }
    if values["type"] in USER_TYPES:
        values["email"] = checks.email(problems, fields)
    elif values["type"] in ACTOR_TYPES and fields.get("email"):
        problems.add("email", "is for people only", "not_allowed", "no e-mail address for this type")
    problems.raise_if_any()
    return values


def check_type_change(old: str, new: str) -> None:
    """Users and admins become each other; nothing else changes its type.

    Raises:
        InvalidInput: The type cannot become that one.
    """
    if old != new and not (old in USER_TYPES and new in USER_TYPES):
        accepted = ", ".join(USER_TYPES) if old in USER_TYPES else old
        raise invalid("type", "cannot be changed", "unchangeable", accepted)


def guard_change(
    before: ActorState, after: ActorState | None, *, changed_by: str | None, other_admins: int, ways_in: WaysIn
) -> None:
    """Keeps actors from what nobody could take back.

    Args:
        after: `None` if it is deleted.
        changed_by: The acting actor's id.
        other_admins: How many enabled admins there are besides this actor.

    Raises:
        Forbidden: An actor would disable, demote or delete itself.
        Conflict: The account would be left without an admin.
        InvalidInput: The actor could not sign in any more.
    """
    loses_admin = before.is_acting_admin and not (after is not None and after.is_acting_admin)
    if before.id == changed_by:
        _guard_self(before, after)
    if loses_admin and not other_admins:
        raise Conflict("the account would be left without an admin", "last_admin")
    if after is not None and before.allow_email_otp_sign_in and not after.allow_email_otp_sign_in:
        _guard_way_in(after, ways_in)


def _guard_self(before: ActorState, after: ActorState | None) -> None:
    if after is None:
        raise Forbidden("an actor cannot delete itself", "own_actor")
    if after.is_disabled and not before.is_disabled:
        raise Forbidden("an actor cannot disable itself", "own_actor")
    if before.type == ADMIN != after.type:
        raise Forbidden("an admin cannot demote itself", "own_actor")


def _guard_way_in(after: ActorState, ways: WaysIn) -> None:
    has_identity = any(one in ways.enabled_issuers for one in ways.identity_issuers)
    if ways.has_email_codes and not after.is_disabled and not has_identity and not ways.has_password:
        raise _only_way_in()


def _only_way_in() -> InvalidInput:
    return invalid(
        "allow_email_otp_sign_in",
        "is the actor's only way in",
        "only_way_in",
        "true, until the actor has an identity of an enabled provider, or a password",
    )


def is_other_email(old: str | None, new: str | None) -> bool:
    """Whether a person's address really changes, and not just its case or the space around it."""
    return (old or "").strip().casefold() != (new or "").strip().casefold()
