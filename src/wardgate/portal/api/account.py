"""The account of the token."""

from datetime import datetime

from fastapi import APIRouter

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.objects import AccountOut, Data, Limit
from wardgate.portal.db.accounts import used_of_limits
from wardgate.portal.db.scope import Scope
from wardgate.portal.domain.limits import limit_of

router = APIRouter(tags=["Account"])


async def _limits(scope: Scope, limits: dict[str, int | None], at: datetime) -> dict[str, Limit]:
    used = await used_of_limits(scope, at)
    shown = {}
    for kind, count in used.items():
        total = limit_of(limits, kind)
        if total is not None:
            shown[kind] = Limit(used=count, available=max(0, total - count), total=total)
    return shown


@router.get("/account")
async def read_account(caller: Authenticated) -> Data[AccountOut]:
    """Reads the account that the token belongs to."""
    async with caller.reading() as scope:
        row = await scope.account()
        values = {name: getattr(row, name) for name in ("id", "slug", "key", "name", "legal_name")}
        limits = await _limits(scope, row.limits, caller.context.clock.utc_now())
        return caller.found(AccountOut.model_validate({**values, "limits": limits}))
