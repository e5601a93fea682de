"""Whether one more may be made: the account is open, and its plan has room."""

from collections.abc import Iterable

from wardgate.portal.db.accounts import used_of
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain import limits


async def check_open(unit: UnitOfWork) -> None:
    """Lets something be made.

    Raises:
        Forbidden: The account is disabled.
    """
    limits.check_open((await unit.account()).is_disabled)


async def check_room(unit: UnitOfWork, kinds: Iterable[str], *, actor_id: str | None = None) -> None:
    """Lets one more of each kind be made; two units of work at a time do not both take the last place.

    Args:
        kinds: Of `domain.limits.LIMITS`.
        actor_id: Whose tokens, for `api_tokens_per_client`.

    Raises:
        Forbidden: A limit is reached; it names the kind.
    """
    account = await unit.account()
    for kind in kinds:
        if limits.limit_of(account.limits, kind) is not None:
            account = await unit.locked_account()
            limits.check_room(account.limits, kind, await used_of(unit, kind, unit.at, actor_id))
