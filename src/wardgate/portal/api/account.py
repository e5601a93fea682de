"""The account of the token."""

from fastapi import APIRouter

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.objects import AccountOut, Data, Limit
from wardgate.portal.db.accounts import used_of_limits
from wardgate.portal.db.scope import Scope

router = APIRouter(tags=["Account"])


async def _limits(scope: Scope, limits: dict[str, int | None]) -> dict[str, Limit]:
    used = await used_of_limits(scope)
    shown = {}
    for kind, count in used.items():
        total = limits.get(f"{kind}_count")
        if total is not None:
            shown[kind] = Limit(used=count, available=max(0, total - count), total=total)
    return shown


@router.get("/account")
async def read_account(caller: Authenticated) -> Data[AccountOut]:
    """Reads the account that the token belongs to."""
    async with caller.db.scoped(caller.subject) as scope:
        row = await scope.account()
        values = {name: getattr(row, name) for name in ("id", "slug", "key", "name", "legal_name")}
        return Data(data=AccountOut.model_validate({**values, "limits": await _limits(scope, row.limits)}))
